"""Everything that decides what numbers a training run ends with, as one frozen record.

Where a run writes, on which device and how often it saves is in :mod:`mvitv2.train.settings`: it changes no number.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mvitv2.train.values import Wrong, fitted, from_text, near, type_hints

ADAPTER_TARGETS = {
    "qkv": (".attn.qkv", ".attn.q", ".attn.k", ".attn.v"),
    "proj": (".attn.proj",),
    "mlp": (".mlp.fc1", ".mlp.fc2"),
}
"""What adapters may be given to, and how those layers' names end."""
CHOICES = {
    "task": ("classify", "detect", "segment", "video", "maskfeat", "actions"),
    "inflation": ("centre", "mean", "repeat"),
    "optimizer": ("adamw", "sgd"),
    "lr_scaling": ("linear", "sqrt", "none"),
    "schedule": ("cosine", "constant", "steps"),
    "sampling": ("shuffle", "balanced", "rare"),
    "loss": ("cross_entropy", "bce"),
    "precision": ("fp32", "tf32", "bf16", "fp16"),
    "select": ("best", "last"),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. The defaults are the authors' for MViTv2-T on ImageNet-1K (mvit ``MVITv2_T.yaml``).

    Raises:
        ValueError: Fields are out of range or contradict each other; all of them are named at once.
    """

    name: str = "custom"
    source: str = ""
    """Where the numbers come from."""

    task: str = "classify"
    """What is learned: to ``"classify"`` pictures, to ``"detect"`` objects by boxes, to ``"segment"`` them by boxes and
    masks, ``"video"`` (classes of clips), ``"maskfeat"`` (pre-training) or ``"actions"`` (boxes in clips).
    :mod:`mvitv2.train.jobs` has who makes a job of it."""
    model: str = "mvitv2_t"
    """A name of :func:`mvitv2.list_models`."""
    stages: dict[str, Any] = field(default_factory=dict)
    """Arguments of :func:`mvitv2.core.stages.stages` (depths, ...), for other blocks than those of ``model``."""
    model_fields: dict[str, Any] = field(default_factory=dict)
    """Other fields of :class:`~mvitv2.core.config.MViTConfig` that differ from those of ``model``."""
    detector: dict[str, Any] = field(default_factory=dict)
    """Fields of :class:`~mvitv2.tasks.detect.config.DetectorConfig` that differ from those of ``model``."""
    weights: str | None = None
    """Where training starts: a weights file of any codebase, ``"pretrained"`` for the published ones, or nothing."""
    inflation: str = "centre"
    """How kernels of images become kernels of clips: the middle frame and zeros (``"centre"``, the paper), shares of
    the ``"mean"``, or ``"repeat"`` (SlowFast)."""
    img_size: int = 224
    """Side of the square the model sees, pixels."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """Fields of :class:`~mvitv2.preprocessing.Preprocessing` other than those of ``weights``, or than ImageNet's."""
    augmentation: dict[str, Any] = field(default_factory=lambda: {"kind": "published"})
    """``kind``: ``"published"`` (timm's; SlowFast's for clips), ``"device"`` (batches, where the model is), ``"shift"``
    (small pictures) or ``"none"``; and the fields of that one. Of clips ``repeats`` as well: how many are drawn from a
    file each time it is opened."""
    mask_ratio: float = 0.4
    """Part of the patches that MaskFeat hides."""
    mask_window: tuple[int, ...] | None = None
    """Cells of MaskFeat's masks, ``(T, H, W)`` or ``(H, W)``; ``None``: (8, 7, 7) for 16 frames of 224 pixels, and
    likewise for others."""

    sampling: str = "shuffle"
    """``"shuffle"``: an epoch sees every image once; ``"balanced"``: as many images of every class."""
    repeats: int = 1
    """Times that an image is in a batch, augmented otherwise each time; an epoch then sees fewer images (timm's
    ``RepeatAugSampler``)."""
    overfit_batches: int | None = None
    """Train on so many batches of images and measure on the same ones: a model that can learn, learns them."""
    freeze: tuple[str, ...] = ()
    """What is not trained: ``"stem"``, a number ``"4"`` (the stem and so many blocks), ``"backbone"`` (all but the
    classifier) or a pattern of parameter names such as ``"blocks.*.mlp.*"``."""
    adapters: dict[str, Any] = field(default_factory=dict)
    """Low-rank adapters instead of training the backbone: ``rank``, ``alpha`` (``rank``), ``targets`` (``qkv``,
    ``proj``; also ``mlp``); nothing for none."""
    progressive: dict[str, Any] = field(default_factory=dict)
    """Other sizes than ``img_size``, by the epoch they begin with, counted from 1: ``{"1": 128, "100": 160}``."""
    progressive_batch: bool = False
    """Take more images in a forward pass where they are smaller; the global batch stays."""

    epochs: int = 300
    patience: int | None = None
    """Epochs without a better figure after which a run ends early; ``None``: it never does."""
    batch_size: int = 128
    """Images in one forward pass of one process."""
    accumulation: int = 1
    """Forward passes before the weights change; the global batch is ``batch_size * accumulation * processes``."""
    optimizer: str = "adamw"
    """``"adamw"``, or ``"sgd"`` with Nesterov momentum."""
    lr: float = 2.5e-4
    """Peak learning rate for a global batch of ``lr_batch`` images; scaled to the real one by ``lr_scaling``."""
    lr_batch: int = 256
    lr_scaling: str = "linear"
    """``"linear"``, ``"sqrt"``, or ``"none"`` to take ``lr`` as it is."""
    schedule: str = "cosine"
    """``"cosine"`` to ``min_lr``, ``"constant"``, or ``"steps"``; after the warm-up, step by step."""
    milestones: tuple[float, ...] = ()
    """With ``"steps"``: parts of the run after each of which the rate is a tenth of what it was."""
    warmup_epochs: float = 70.0
    warmup_lr: float = 1e-8
    """Where the warm-up starts; scaled as ``lr`` is."""
    min_lr: float = 1e-6
    """Where the cosine ends; scaled as ``lr`` is."""
    weight_decay: float = 0.05
    """Not for parameters of one axis, position tables and the class token."""
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    """Of SGD."""
    layer_decay: float = 1.0
    """Each block learns at this part of the rate of the block above it; 1 for one rate everywhere."""
    clip_norm: float | None = 1.0
    """Longest gradient, over all parameters; ``None`` for any."""
    clip_value: float | None = None
    """Largest entry of the gradient; ``None`` for any."""

    loss: str = "cross_entropy"
    """``"cross_entropy"``, or ``"bce"``: one yes or no per class."""
    target_threshold: float | None = None
    """With ``"bce"``: soft targets above it are a yes, the others a no (timm's ``bce_target_thresh``)."""
    class_weights: str | tuple[float, ...] = "none"
    """How much an image of a class counts in the loss: ``"none"`` (all alike), ``"balanced"`` (rare classes more, so
    that each class counts the same in all), or a number for each class in order."""
    label_smoothing: float = 0.1
    mixup: float = 0.8
    """Alpha of mixup, 0 for none; mixup and cutmix are timm's (extra ``train``)."""
    cutmix: float = 1.0
    """Alpha of cutmix, 0 for none."""
    mix_probability: float = 1.0
    """Part of the batches that are mixed."""
    mix_switch: float = 0.5
    """Part of the mixed batches that take cutmix where both are on."""
    drop_path: float | None = None
    """Stochastic depth of the last block; ``None`` for what ``model`` has."""
    ema_decay: float | None = None
    """Decay of a moving average of the weights, which then is what is evaluated and kept; ``None`` for none."""

    precision: str = "fp32"
    """``"fp32"``, ``"tf32"`` (matrix products of recent GPUs), ``"bf16"`` or ``"fp16"`` (autocast, loss scaled)."""
    compile: bool = False
    """Run the model through ``torch.compile``."""
    channels_last: bool = False
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    select: str = "best"
    """Which weights are kept: of the epoch that was best on the validation images, or of the last."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what could only fail, or be ignored, later."""
        hints = type_hints(Recipe)
        wrong: list[str] = []
        for name, hint in hints.items():
            try:
                object.__setattr__(self, name, fitted(getattr(self, name), hint))
            except Wrong as error:
                wrong.append(f"{name}={getattr(self, name)!r} must be {error}")
        wrong = wrong or list(_offences(self))
        if wrong:
            raise ValueError(f"the recipe {self.name!r} cannot be used: {'; '.join(wrong)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every field; :meth:`from_dict` gives an equal record back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """The recipe of a :meth:`to_dict`; fields that are left out have their defaults.

        Raises:
            ValueError: Unknown fields (all are named, with the nearest known one), or values that make no recipe.
        """
        return overridden(cls(), values)


def overridden(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some fields changed.

    Args:
        recipe: Where to start.
        changes: By field name; ``"augmentation.policy"`` changes one entry of a field that is a mapping. Values may be
            text as on a command line (``"1e-3"``, ``"none"``, ``"1,1,2"``), wherever the field is not text itself.

    Raises:
        ValueError: Unknown fields (all are named, with the nearest known one), or values that make no recipe.
    """
    hints = type_hints(Recipe)
    unknown = [name for name in changes if name.partition(".")[0] not in hints]
    if unknown:
        told = ", ".join(f"{name!r}{near(name, hints)}" for name in unknown)
        raise ValueError(f"no field of a recipe: {told}; there are {', '.join(hints)}")
    values: dict[str, Any] = {}
    for name, value in changes.items():
        top, _, inner = name.partition(".")
        if not inner:
            values[top] = from_text(value, hints[top])
        elif isinstance(getattr(recipe, top), dict):
            # "none" is a kind of augmentation, not the lack of one
            one = value if name == "augmentation.kind" else from_text(value, Any)
            values[top] = {**values.get(top, getattr(recipe, top)), inner: one}
        else:
            raise ValueError(f"{name!r} is no field of a recipe: {top} is one value, not a mapping")
    return dataclasses.replace(recipe, **values)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One ``field: before -> after`` for every field in which two :meth:`Recipe.to_dict` differ, labels left out."""
    names = [name for name in type_hints(Recipe) if name not in ("name", "source")]
    return [f"{n}: {before.get(n)!r} -> {after.get(n)!r}" for n in names if before.get(n) != after.get(n)]


RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    ("at least 1", lambda v: v >= 1, ("epochs", "batch_size", "accumulation", "lr_batch", "img_size", "repeats")),
    ("at least 1, or none", lambda v: v >= 1, ("patience", "overfit_batches")),
    ("0 or more", lambda v: v >= 0, ("lr", "warmup_lr", "min_lr", "warmup_epochs", "weight_decay", "mixup", "cutmix")),
    ("0 or more", lambda v: v >= 0, ("seed", "momentum")),
    ("at least 0 and below 1", lambda v: 0 <= v < 1, ("label_smoothing", "drop_path", "ema_decay", "target_threshold")),
    ("a probability, 0 to 1", lambda v: 0 <= v <= 1, ("mix_probability", "mix_switch", "mask_ratio")),
    ("above 0, or none for no clipping", lambda v: v > 0, ("clip_norm", "clip_value")),
    ("above 0 and at most 1", lambda v: 0 < v <= 1, ("layer_decay",)),
)
KINDS = {
    "classify": ("published", "device", "shift", "none"),
    **dict.fromkeys(("detect", "segment"), ("multi_scale", "large_scale_jitter", "resize")),
}
"""Of augmentation, by task."""


def _offences(recipe: Recipe) -> Iterator[str]:
    """One sentence for each field that no run could use."""
    for name, choices in CHOICES.items():
        if (value := getattr(recipe, name)) not in choices:
            yield f"{name}={value!r} is none of {', '.join(map(repr, choices))}"
    for told, fits, names in RANGES:
        values = ((name, getattr(recipe, name)) for name in names)
        yield from (f"{name}={value} must be {told}" for name, value in values if value is not None and not fits(value))
    if recipe.clip_norm is not None and recipe.clip_value is not None:
        yield f"clip_norm={recipe.clip_norm} and clip_value={recipe.clip_value} exclude each other; set one to none"
    yield from _adapter_offences(recipe)
    yield from _progressive_offences(recipe)
    if recipe.target_threshold is not None and recipe.loss != "bce":
        yield f"target_threshold={recipe.target_threshold} is for loss='bce', not for {recipe.loss!r}"
    if recipe.class_weights not in ("none", "balanced") and isinstance(recipe.class_weights, str):
        yield f"class_weights={recipe.class_weights!r} is none of 'none', 'balanced', or a number for each class"
    if not isinstance(recipe.class_weights, str) and any(w < 0 for w in recipe.class_weights):
        yield f"class_weights={recipe.class_weights} must be 0 or more"
    if recipe.warmup_epochs > recipe.epochs:
        yield f"warmup_epochs={recipe.warmup_epochs:g} is longer than epochs={recipe.epochs}"
    kinds = KINDS.get(recipe.task, KINDS["classify"])
    if (kind := recipe.augmentation.get("kind")) not in kinds:
        yield f"augmentation.kind={kind!r} is none of {', '.join(map(repr, kinds))}"
    if list(recipe.milestones) != sorted(recipe.milestones) or any(not 0 < part < 1 for part in recipe.milestones):
        yield f"milestones={recipe.milestones} must be parts of the run, between 0 and 1, in order"


def _adapter_offences(recipe: Recipe) -> Iterator[str]:
    given = recipe.adapters
    if not given:
        return
    if unknown := sorted(set(given) - {"rank", "alpha", "targets"}):
        yield f"adapters has no {', '.join(unknown)}; it has rank, alpha, targets"
    if not (isinstance(rank := given.get("rank"), int) and rank >= 1):
        yield f"adapters.rank={rank!r} must be a whole number, at least 1"
    if not (isinstance(alpha := given.get("alpha", 1), int | float) and alpha > 0):
        yield f"adapters.alpha={alpha!r} must be above 0"
    targets = listed(given.get("targets", ("qkv",)))
    if not targets or set(targets) - set(ADAPTER_TARGETS):
        yield f"adapters.targets={targets!r} must be some of {', '.join(ADAPTER_TARGETS)}"
    if recipe.freeze:
        yield f"freeze={recipe.freeze} and adapters exclude each other: adapters freeze all but the classifier"


def listed(words: Any) -> tuple[str, ...]:
    """Several words as they stand in a file or on a command line: ``("qkv", "mlp")``, ``"qkv,mlp"``, ``"mlp"``."""
    return tuple(word.strip() for word in words.split(",")) if isinstance(words, str) else tuple(map(str, words))


def _progressive_offences(recipe: Recipe) -> Iterator[str]:
    for epoch, size in recipe.progressive.items():
        if not epoch.isdecimal() or not 1 <= int(epoch) <= recipe.epochs:
            yield f"progressive: {epoch!r} must be an epoch from 1 to {recipe.epochs}"
        if not (isinstance(size, int) and size >= 1):
            yield f"progressive: {size!r} from epoch {epoch} must be a size in pixels"
