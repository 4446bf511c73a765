"""How the published detectors were trained: the learning rate of every iteration, and which parameters decay.

Batches of 64 images, AdamW, weight decay 0.1, no clipping, no layer-wise decay; sources are the configuration files in
detectron2's ``projects/MViTv2`` and ``projects/ViTDet``.
"""

from dataclasses import dataclass

from torch import nn

from mvitv2.core.pyramid import ChannelNorm
from mvitv2.tasks.detect.detector import Detector
from mvitv2.train.optim import Group

BATCH, WEIGHT_DECAY, BETAS = 64, 0.1, (0.9, 0.999)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
TABLES = ("rel_pos_h", "rel_pos_w")


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """Warm-up in a straight line, then a rate that falls tenfold at each milestone."""

    rate: float
    iterations: int
    milestones: tuple[int, ...]
    warmup: float
    """Iterations; a share of all of them where a recipe was shortened and kept the share."""
    start: float = 0.001
    """Of the rate, in the first iteration."""

    def multiplier(self, iteration: int) -> float:
        """What part of the rate iteration ``iteration``, from 0, trains with."""
        if iteration < self.warmup:
            done = iteration / self.warmup
            return self.start * (1 - done) + done
        return float(10.0 ** -sum(iteration >= milestone for milestone in self.milestones))

    def __call__(self, iteration: int) -> float:
        """The rate of ``iteration``, from 0."""
        return self.rate * self.multiplier(iteration)


_3X = StepSchedule(rate=1.6e-4, iterations=67500, milestones=(52500, 62500), warmup=250)
_50EP = StepSchedule(rate=1e-4, iterations=92187, milestones=(81944, 88773), warmup=250)
_100EP = StepSchedule(rate=8e-5, iterations=184375, milestones=(163889, 177546), warmup=250)
_LVIS_50EP = StepSchedule(rate=4e-5, iterations=78125, milestones=(69444, 75231), warmup=250)

SCHEDULES: dict[str, StepSchedule] = {
    "mask_rcnn_mvitv2_t": _3X,
    "cascade_mask_rcnn_mvitv2_t": _3X,
    "cascade_mask_rcnn_mvitv2_s": _3X,
    "cascade_mask_rcnn_mvitv2_b": _3X,
    "cascade_mask_rcnn_mvitv2_l": _50EP,
    "cascade_mask_rcnn_mvitv2_h": _3X,
    "vitdet_coco_mvitv2_b": _100EP,
    # half as many iterations, and still the share of warm-up that the recipe of B has
    "vitdet_coco_mvitv2_l": StepSchedule(
        rate=8e-5, iterations=92187, milestones=(81944, 88773), warmup=250 / 184375 * 92187
    ),
    "vitdet_coco_mvitv2_h": _3X,
    "vitdet_lvis_mvitv2_b": StepSchedule(rate=1e-4, iterations=156250, milestones=(138889, 150463), warmup=250),
    "vitdet_lvis_mvitv2_l": _LVIS_50EP,
    "vitdet_lvis_mvitv2_h": StepSchedule(rate=2e-5, iterations=78125, milestones=(69444, 75231), warmup=250),
}
"""By the names of :data:`mvitv2.tasks.detect.variants.DETECTORS`."""


def detection_groups(
    model: Detector, *, weight_decay: float = WEIGHT_DECAY, tables_decay: bool | None = None
) -> list[Group]:
    """Every parameter that is trained: those that decay, and those that do not.

    Norms do not decay, nor do positions. The norm over channels of the ViTDet project's pyramid and heads does: it is
    none of the classes that detectron2 takes for norms. Biases decay like weights.

    Args:
        model: A detector.
        weight_decay: Of those that decay.
        tables_decay: Whether relative positions decay; as in the project that the model is of, if not given.
    """
    if tables_decay is None:
        tables_decay = model.config.pyramid_norm == "LN"
    still = {f"{name}.{own}" for name, module in model.named_modules() if is_norm(module) for own in ("weight", "bias")}
    spared = ("pos_embed",) if tables_decay else ("pos_embed", *TABLES)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    decaying = tuple(name for name in names if name not in still and name.rpartition(".")[2] not in spared)
    rest = tuple(name for name in names if name not in set(decaying))
    both = (Group(decaying, 0, 1.0, weight_decay), Group(rest, 0, 1.0, 0.0))
    return [group for group in both if group.names]


def is_norm(module: nn.Module) -> bool:
    """Whether detectron2 takes a module for a norm."""
    return isinstance(module, NORMS) and not isinstance(module, ChannelNorm)
