"""``mvitv2 doctor``: is this installation well, and what is in it."""

from dataclasses import asdict, dataclass

from mvitv2.cli.output import columns, print_json

EXAMPLES = """\
  mvitv2 doctor
  mvitv2 doctor --json > environment.json      # to attach to a report
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to print it."""

    json: bool = False
    """Print JSON."""


def run(options: Options) -> int:
    """Print the report; 1 if something does not work."""
    from mvitv2.cli import environment

    wrong = list(environment.problems())
    libraries = environment.libraries()
    facts = {**environment.versions(), **environment.threads(), **environment.cache(), **environment.operators()}
    devices = environment.devices()
    if options.json:
        listed = [{**asdict(library), "state": library.state} for library in libraries]
        print_json({**facts, "devices": devices, "libraries": listed, "problems": wrong})
        return 1 if wrong else 0
    print(columns([(name.replace("_", " ") if name.islower() else name, value) for name, value in facts.items()]))
    rows = [(d["device"], d["inference"], d["training"], d["what"]) for d in devices]
    print("\n" + columns([("DEVICE", "INFERENCE", "TRAINING", ""), *rows]))
    print(f"Attention: {environment.rule()}\n")
    rows = [(lib.name, lib.installed or "-", " ".join(lib.extras) or "(base)", lib.state) for lib in libraries]
    print(columns([("LIBRARY", "VERSION", "EXTRA", "STATE"), *rows]))
    print("\n" + ("\n".join(f"problem: {text}" for text in wrong) or "No problems found."))
    return 1 if wrong else 0
