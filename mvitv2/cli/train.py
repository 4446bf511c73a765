"""``mvitv2 train``: a classifier of one's own pictures or clips."""

import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from tyro.conf import Positional, arg

from mvitv2.cli.output import millions

if TYPE_CHECKING:
    from mvitv2.train.job import Job
    from mvitv2.train.loop import Outcome
    from mvitv2.train.recipe import Recipe

EXAMPLES = """\
  mvitv2 train digits --output runs/digits
  mvitv2 train photos --pretrained --model mvitv2_t --epochs 30 --output runs/photos
  mvitv2 train photos --weights MViTv2_S_in1k.pyth --lr 1e-3 --output runs/photos
  mvitv2 train data=photos model=mvitv2_s imgsz=160 batch=64 epochs=100 augmentation.policy=rand-m7-n2
  mvitv2 train photos --pretrained --recipe lora --batch-size auto
  mvitv2 train boxes --task segment --epochs 100 --output runs/boxes    # COCO's files, or lines of one's own
  mvitv2 train photos --cfg MVITv2_T.yaml SOLVER.MAX_EPOCH 100
  mvitv2 train clips --model mvitv2_s_16x4 --weights MViTv2_S_16x4_k400.pyth --output runs/clips
  mvitv2 train clips --recipe clips_small --output runs/clips
  mvitv2 train photos --config mine.yaml --seed 1    # what stands here wins over the file
The folder has train/ and val/ with one folder of pictures per class. The same command again goes on where it stopped.
"""
T = TypeVar("T")
HINT = "[recipe]"
OfRecipe = Annotated[T | None, arg(help_behavior_hint=HINT)]
"""A field that the recipe decides where it is not given."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, on what, and where to."""

    data: Positional[str] = ""
    """A folder with train/ and val/ of class folders, or `digits`."""
    output: Annotated[Path | None, arg(help_behavior_hint="(default: runs/DATA)")] = None
    """Folder of the run."""
    recipe: Annotated[str | None, arg(help_behavior_hint="(default: digits, fine_tune or imagenet_t)")] = None
    """Where everything marked [recipe] comes from: a name of `mvitv2 recipes`, or the recipe.json of a run."""
    config: Annotated[str | None, arg(help_behavior_hint="")] = None
    """A YAML file with any of these options; the command line wins over it."""
    cfg: Annotated[tuple[str, ...], arg(help_behavior_hint="")] = ()
    """A YAML file of facebookresearch/mvit or SlowFast instead of a recipe, and KEY VALUE pairs that change it."""
    print_config: bool = False
    """Print the recipe that would be used, as a file for --recipe, and stop."""
    dry_run: bool = False
    """Read the data, take one step on a copy of the model, tell what a run would be, and write nothing."""
    resume: str = "auto"
    """Go on with a run in that folder: auto (where there is one), must (fail where there is none) or never; or the
    checkpoint of a run."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    workers: Annotated[int | None, arg(aliases=["-j"], help_behavior_hint="(default: one per core)")] = None
    """Processes that load pictures."""
    pretrained: bool = False
    """Start from the published weights of the model."""
    num_classes: Annotated[int | None, arg(help_behavior_hint="(default: as many as folders)")] = None
    """Fail unless the data has so many classes."""
    bce_loss: bool = False
    """Yes and no for each class: the same as --loss bce."""
    no_aug: bool = False
    """Show pictures as they are: the same as augmentation.kind=none."""
    amp: bool = False
    """Mixed precision: the same as --precision bf16."""
    model_ema: bool = False
    """Keep a moving average of the weights: the same as --ema-decay 0.9998."""
    aa: Annotated[str | None, arg(help_behavior_hint=HINT)] = None
    """RandAugment, AutoAugment or AugMix in timm's notation, or none."""
    reprob: OfRecipe[float] = None
    """Probability that a rectangle of a picture is erased."""
    set: Annotated[tuple[str, ...], arg(help_behavior_hint="[recipe]")] = ()
    """Other fields of the recipe, such as augmentation.flip=0 or stages.depths=1,1,2,1."""

    task: OfRecipe[Literal["classify", "detect", "segment", "video", "maskfeat", "actions"]] = None
    """What is learned: classes of pictures or of clips, boxes of objects, boxes and masks, hidden gradients
    (pre-training), actions in boxes."""
    model: OfRecipe[str] = None
    """A name of `mvitv2 list`."""
    weights: OfRecipe[str] = None
    """A weights file of any codebase to start from."""
    inflation: OfRecipe[Literal["centre", "mean", "repeat"]] = None
    """How kernels of pictures become kernels of clips, where weights are of pictures and the model of clips."""
    num_frames: OfRecipe[int] = None
    """Frames of a clip."""
    sampling_rate: OfRecipe[int] = None
    """Distance of two of them."""
    img_size: OfRecipe[int] = None
    """Side of the pictures in pixels."""
    sampling: OfRecipe[Literal["shuffle", "balanced", "rare"]] = None
    """Every picture once an epoch, as many of every class, or those with rare classes more often (boxes)."""
    repeats: OfRecipe[int] = None
    """Times that a picture is in a batch, augmented otherwise each time."""
    overfit_batches: OfRecipe[int] = None
    """Learn so many batches by heart and measure on them: a check that a model can learn at all."""
    freeze: Annotated[tuple[str, ...] | None, arg(help_behavior_hint=HINT)] = None
    """What is not trained: stem, a number (the stem and so many blocks), backbone, or patterns of parameter names."""
    epochs: OfRecipe[int] = None
    """Times that every picture is seen."""
    patience: OfRecipe[int | Literal["none"]] = None
    """Epochs without a better figure after which the run ends early."""
    progressive: Annotated[tuple[str, ...] | None, arg(help_behavior_hint=HINT)] = None
    """Other sizes, by the epoch they begin with: 1:128 20:160."""
    progressive_batch: OfRecipe[bool] = None
    """More pictures in a forward pass where they are smaller."""
    batch_size: Annotated[int | Literal["auto"] | None, arg(aliases=["-b"], help_behavior_hint=HINT)] = None
    """Pictures in one forward pass; auto finds how many this machine can do and keeps the global batch."""
    accumulation: OfRecipe[int] = None
    """Forward passes before the weights change."""
    optimizer: OfRecipe[Literal["adamw", "sgd"]] = None
    """How weights change."""
    lr: OfRecipe[float] = None
    """Learning rate for lr-batch pictures at a time; scaled to the real batch."""
    lr_batch: OfRecipe[int] = None
    """Pictures at a time that the learning rates are for."""
    lr_scaling: OfRecipe[Literal["linear", "sqrt", "none"]] = None
    """How learning rates grow with the batch."""
    schedule: OfRecipe[Literal["cosine", "constant", "steps"]] = None
    """The learning rate after the warm-up."""
    milestones: Annotated[tuple[float, ...] | None, arg(help_behavior_hint=HINT)] = None
    """With steps: parts of the run after each of which the rate is a tenth of what it was."""
    warmup_epochs: OfRecipe[float] = None
    """Epochs in which the learning rate rises."""
    warmup_lr: OfRecipe[float] = None
    """Where it starts."""
    min_lr: OfRecipe[float] = None
    """Where the cosine ends."""
    weight_decay: OfRecipe[float] = None
    """Of weight matrices."""
    betas: Annotated[tuple[float, float] | None, arg(help_behavior_hint=HINT)] = None
    """Of AdamW."""
    momentum: OfRecipe[float] = None
    """Of SGD."""
    layer_decay: OfRecipe[float] = None
    """Part of the rate that a block has of the block above it."""
    clip_norm: OfRecipe[float | Literal["none"]] = None
    """Longest gradient."""
    clip_value: OfRecipe[float | Literal["none"]] = None
    """Largest entry of the gradient."""
    loss: OfRecipe[Literal["cross_entropy", "bce"]] = None
    """One class per picture, or yes and no for each class."""
    target_threshold: OfRecipe[float | Literal["none"]] = None
    """With bce: soft targets above it are a yes, the others a no."""
    class_weights: Annotated[str | None, arg(help_behavior_hint=HINT)] = None
    """How much a picture of each class counts: none, balanced, or numbers such as 1,2.5,1."""
    label_smoothing: OfRecipe[float] = None
    """Part of the target that is spread over all classes."""
    mixup: OfRecipe[float] = None
    """Strength of mixup, 0 for none."""
    cutmix: OfRecipe[float] = None
    """Strength of cutmix, 0 for none."""
    mix_probability: OfRecipe[float] = None
    """Part of the batches that are mixed."""
    mix_switch: OfRecipe[float] = None
    """Part of those that take cutmix."""
    drop_path: OfRecipe[float] = None
    """Stochastic depth of the last block."""
    ema_decay: OfRecipe[float] = None
    """Decay of a moving average of the weights, which is what is kept then."""
    precision: OfRecipe[Literal["fp32", "tf32", "bf16", "fp16"]] = None
    """Numbers in forward and backward pass."""
    compile: OfRecipe[bool] = None
    """Run the model through torch.compile."""
    channels_last: OfRecipe[bool] = None
    """Another memory layout for convolutions."""
    grad_checkpointing: OfRecipe[bool] = None
    """Less memory, more time."""
    select: OfRecipe[Literal["best", "last"]] = None
    """Which weights are kept: of the best epoch on the validation pictures, or of the last."""
    seed: OfRecipe[int] = None
    """Of everything random."""

    mask_ratio: OfRecipe[float] = None
    """Part of the patches that MaskFeat hides."""
    mask_window: Annotated[tuple[int, ...] | None, arg(help_behavior_hint=HINT)] = None
    """Cells of MaskFeat's masks, as in 8 7 7 or 7 7."""

    save_minutes: float = 10.0
    """A checkpoint at least this often; there is one after every epoch as well."""
    save_steps: Annotated[int | None, arg(help_behavior_hint="(default: by time alone)")] = None
    """And one every so many steps."""
    log_steps: int = 1
    """A line of metrics.jsonl every so many steps."""
    deterministic: Literal["auto", "yes", "no"] = "auto"
    """The same bits every time; auto: on a CPU."""
    check: bool = True
    """Look at all pictures first, as `mvitv2 check` does; what was seen of unchanged files is remembered. Clips and
    boxes are looked at by that command alone."""
    log: str = "auto"
    """Trackers: tensorboard, wandb, mlflow, trackio, with commas between; auto: TensorBoard if installed; or none."""
    json: bool = False
    """Print a line of JSON for every step and epoch instead of text."""
    report: bool = True
    """Keep report.html in the folder: curves while training goes on, everything at its end."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How processes of torchrun or srun share the model: a copy in each, or a part of each block in each."""
    timeout_minutes: float = 10.0
    """How long a process waits for another one before it counts as lost."""
    mirror: Annotated[str | None, arg(help_behavior_hint="(default: none)")] = None
    """A URL (s3://, gs://, file://, ...) to copy checkpoints and results to, and to go on from."""


def run(options: Options) -> int:
    """Train to the end, or go on to it."""
    from mvitv2.cli.chosen import chosen, settings_of, with_batch_size
    from mvitv2.cli.followed import last_page, listeners, look_at, notes_for
    from mvitv2.cli.plan import configuration, rehearsal
    from mvitv2.tasks.devices import device_named
    from mvitv2.tasks.processes import joined
    from mvitv2.train.jobs import job_for
    from mvitv2.train.loop import fit
    from mvitv2.train.progress import JsonLines, silent

    options, recipe = chosen(options)
    settings = settings_of(options)
    if options.print_config:
        print(configuration(options.data, recipe, settings))
        return 0
    device = device_named(settings.device)  # before the data is read
    with joined(settings.device, minutes=settings.timeout_minutes) as processes:
        processes.led(lambda: look_at(options, recipe))
        with notes_for(options) if processes.leads else nullcontext():
            recipe = with_batch_size(options, recipe, settings, device)
            # one after the other: what the first one downloads or indexes is there for the others
            job = processes.first(lambda: job_for(options.data, recipe, settings))
        classes = job.model.config.num_classes
        if options.num_classes not in (None, classes):
            raise ValueError(f"--num-classes {options.num_classes}: {options.data} has {classes} class folders")
        if options.dry_run:
            print(rehearsal(job, recipe, device))
            return 0
        told = listeners(options, recipe, settings, job.unit) if processes.leads else silent()
        told.say(opening(recipe, job))
        outcome = fit(job, recipe, settings, told)
        if not processes.leads:
            return 0
    page = last_page(options, outcome, recipe, settings)
    if options.json:
        done = {"weights": str(outcome.weights), "report": page and str(page), "unreadable": len(outcome.unreadable)}
        JsonLines().write("done", {"best": outcome.best, "seconds": outcome.seconds, **done})
    else:
        told.say(summary(options, outcome, page, kind_of(job)))
    return 0


def opening(recipe: "Recipe", job: "Job") -> str:
    """What is about to be trained."""
    from mvitv2.cli.plan import start_of

    parameters = millions(sum(p.numel() for p in job.model.parameters()))
    images, classes, what = job.data["train_images"], job.data["classes"], kind_of(job)
    size = "" if recipe.task in ("detect", "segment") else f", {recipe.img_size} pixels"
    data = f"{images} {what} of {classes} classes{size}"
    return f"{start_of(recipe)}, {parameters} parameters; recipe {recipe.name}, {recipe.epochs} epochs; {data}"


def kind_of(job: "Job") -> str:
    """What is trained on, in the plural."""
    return "pictures" if job.unit == "images" else job.unit


def summary(options: Options, outcome: "Outcome", page: Path | None, kind: str) -> str:
    """Where the weights are, how good they are, and what to do next."""
    best, lost, folder = outcome.best, len(outcome.unreadable), str(outcome.folder)
    name = "top-1" if best["metric"] == "top1" else best["metric"]
    lines = [f"{name} {100 * best['value']:.2f} % after epoch {best['epoch']}; weights in {outcome.weights}"]
    if lost:
        one = kind if lost > 1 else kind.removesuffix("s")
        lines.append(f"{lost} training {one} could not be read; {outcome.folder / 'unreadable.txt'} names them")
    if page:
        lines.append(f"report: {page}")
    lines.append(f"next: {shlex.join(['mvitv2', 'eval', folder, options.data])}")
    lines.append(f"      {shlex.join(['mvitv2', 'predict', folder])} {'PICTURE' if kind == 'pictures' else 'CLIP'}...")
    return "\n".join(lines)
