"""What goes wrong, in one line for the one who typed the command; tracebacks are for ``--debug``."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dis import opmap
from types import TracebackType

FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 128 + signal.SIGINT, 128 + 13
"""Exit codes; the last two are what a shell reports for a process that SIGINT or SIGPIPE ended."""
OURS = __name__.partition(".")[0]
"""The name of this package."""


class UsageError(ValueError):
    """The words on the command line make no command."""


def guarded(run: Callable[[], int], *, debug: bool) -> int:
    """Run a command; what it raises on purpose becomes one line and an exit code, all else is let through.

    Args:
        run: The command.
        debug: Print tracebacks too.
    """
    with plain_terminal():
        try:
            code = run()
            sys.stdout.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:  # `mvitv2 list | head` is no mistake
            close_stdout()
            return PIPE_CLOSED
        except (OSError, ValueError, TypeError, LookupError, ImportError, RuntimeError, MemoryError) as error:
            if (told := sentence(error)) is None:
                raise
            if debug:
                traceback.print_exception(error)
            stopped = vars(error).get("signal_number")  # of a run that was told to stop, and saved
            if not vars(error).get("told_elsewhere"):  # by the first of several processes
                print(told if stopped else f"error: {told}", file=sys.stderr)
            if stopped:
                return 128 + stopped
            return MISUSED if isinstance(error, UsageError) else FAILED
    return code


def sentence(error: BaseException) -> str | None:
    """What to tell about an error on one line, or ``None`` if nobody foresaw it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, on a GPU
        return f"out of memory ({one_line(str(error)) or 'no details'}); try a smaller batch, picture or model"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith(OURS):
        return f"{error.name} is not installed, but mvitv2 needs it; pip install mvitv2 brings it along"
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror)
    if isinstance(error, OSError) or raised_on_purpose(error.__traceback__):
        return one_line(str(error.args[0] if isinstance(error, KeyError) and error.args else error))
    return None


def raised_on_purpose(trace: TracebackType | None) -> bool:
    """Whether a ``raise`` statement of this package is where an error began.

    Such an error was written for the caller. The same class out of a library, or out of an expression of ours, was not.
    """
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    ours = trace.tb_frame.f_globals.get("__name__", "").split(".")[0] == OURS
    return ours and trace.tb_frame.f_code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]


def one_line(text: str) -> str:
    """``text`` on one line, without characters that steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """``; did you mean ...?`` where a known word is near, else ``; `` and what to do."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=2, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; {otherwise}" if otherwise else ""


@contextmanager
def plain_terminal() -> Iterator[None]:
    """Warnings on one line each, and any file name printable."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {one_line(str(message))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def report_bug(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """The last word on an error that nobody foresaw."""
    print(f"error: {kind.__name__}: {one_line(str(error))}", file=sys.stderr)
    print("This is a bug of mvitv2. Run the same command with --debug for the traceback to report.", file=sys.stderr)


def close_stdout() -> None:
    """Let the interpreter's last flush go nowhere: the reader of our output is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
