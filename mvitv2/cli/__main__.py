"""The ``mvitv2`` command: find the command that is meant, run it, and turn what happened into an exit code."""

import os
import sys
from collections.abc import Sequence

# before anything imports torch: OpenMP threads that spin while they wait slow a small machine up to tenfold
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mvitv2._version import __version__
from mvitv2.cli.commands import command, overview
from mvitv2.cli.failures import INTERRUPTED, guarded, report_bug


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the words name.

    Args:
        argv: Words after ``mvitv2``; those of this process if not given.

    Returns:
        0 for success, 1 for a failure, 2 for words that make no command, 130 after Ctrl-C, 141 after a closed pipe.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    options = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in options
    words = [word for word in options if word != "--debug"] + words[len(options) :]
    if argv is None and not debug:
        sys.excepthook = report_bug
    try:
        return guarded(lambda: dispatch(words), debug=debug)
    except KeyboardInterrupt:  # a second one, while the first was being dealt with
        return INTERRUPTED


def dispatch(words: Sequence[str]) -> int:
    """Print what was asked about all commands, or run one; returns its exit code."""
    match list(words):
        case [] | ["help" | "-h" | "--help"]:
            print(overview())
            return 0
        case ["version" | "-V" | "--version", *_]:
            print(f"mvitv2 {__version__}")
            return 0
        case ["help", name, *_]:
            return command(name).call(["--help"])
        case [name, *rest]:
            return command(name).call(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
