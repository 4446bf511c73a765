"""``mvitv2 demo``: the whole way, from training to a report, in about two minutes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from mvitv2.cli.output import columns

if TYPE_CHECKING:
    from mvitv2.tasks.prediction import Prediction

EXAMPLES = """\
  mvitv2 demo
  mvitv2 demo --output runs/again --seed 1
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where to, and with which random numbers."""

    output: Path = Path("runs/demo")
    """Folder for everything."""
    seed: int = 0
    """Of everything random."""
    epochs: Annotated[int | None, arg(help_behavior_hint="(default: the recipe's)")] = None
    """Times that every digit is seen."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    resume: Literal["auto", "must", "never"] = "auto"
    """Go on with a run in that folder: where there is one, always, or never."""


def run(options: Options) -> int:
    """Train, measure, predict, and say where the report is."""
    from mvitv2.cli.chosen import with_warmup
    from mvitv2.demo import next_steps, run_demo
    from mvitv2.train.progress import progress_on, seconds_spoken
    from mvitv2.train.recipes import recipe

    print(f"training a small MViTv2 from scratch on handwritten digits, into {options.output}")
    changes = {} if options.epochs is None else with_warmup({"epochs": options.epochs}, recipe("digits"))
    made = run_demo(
        options.output,
        seed=options.seed,
        changes=changes,
        device=options.device,
        resume=options.resume,
        progress=progress_on(),
    )
    found = made.evaluation
    low, high = found.top1_interval
    spent = seconds_spoken(made.outcome.seconds)
    print(f"\n{100 * found.top1:.2f} % of {found.images} digits it has never seen are right", end="")
    print(f" (95 % interval {100 * low:.1f} to {100 * high:.1f}), after {spent} of training")
    print("\nsingle files:")
    print(columns([answer_row(truth, answer) for truth, answer in made.predictions], indent="  "))
    print(f"\nreport: {made.report}  (open it in a browser)")
    print("\nnext:")
    print("\n".join(f"  {command}\n    {sentence}" for sentence, command in next_steps(made.outcome.weights)))
    return 0


def answer_row(truth: str, answer: "Prediction") -> tuple[str, ...]:
    """A file, what it is, and what the model says."""
    said = answer.error or f"{answer.classes[0]} ({100 * answer.scores[0]:.1f} %)"
    return answer.file, f"is {truth}", f"the model says {said}"
