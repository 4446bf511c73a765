"""What a detector is, as numbers; the defaults are those of the published models."""

from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from mvitv2.core.config import MViTConfig

BoxWeights = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """The region proposal network: anchors, their matching in training, and the choice of proposals."""

    convs: int = 2
    """3x3 convolutions before the two predictors."""
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    """Square roots of the anchors' areas in pixels, one per level of the pyramid."""
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    negative_iou: float = 0.3
    """Anchors that overlap every object less than this are background."""
    positive_iou: float = 0.7
    """Anchors that overlap an object so much are objects; what lies between is ignored."""
    batch_per_image: int = 256
    """Anchors sampled of every image in training; also what losses are divided by, sampled or not."""
    positive_fraction: float = 0.5
    """Largest share of objects among them."""
    best_per_level: tuple[int, int] = (2000, 1000)
    """Boxes per level that go into non-maximum suppression, in training and at test."""
    best_per_image: tuple[int, int] = (1000, 1000)
    """Proposals that leave it, of all levels together, in training and at test."""
    nms_iou: float = 0.7
    min_side: float = 0.0
    """Proposals are wider and higher than this, in pixels."""


@dataclass(frozen=True, kw_only=True)
class BoxStage:
    """One stage of box heads."""

    iou: float
    """Proposals that overlap an object so much are objects in training."""
    box_weights: BoxWeights
    """What differences of centre x, y and log width, height are multiplied by before they are regressed."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which boxes become detections."""

    min_score: float = 0.05
    """Scores are above, not at, this."""
    nms_iou: float = 0.5
    """Of two boxes of one class that overlap more, the one with the higher score stays."""
    max_detections: int = 100
    """Per image."""


MASK_RCNN = (BoxStage(iou=0.5, box_weights=(10.0, 10.0, 5.0, 5.0)),)
CASCADE = (
    *MASK_RCNN,
    BoxStage(iou=0.6, box_weights=(20.0, 20.0, 10.0, 10.0)),
    BoxStage(iou=0.7, box_weights=(30.0, 30.0, 15.0, 15.0)),
)


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Every number that tells one published detector from another."""

    backbone: MViTConfig
    num_classes: int = 80
    """Without background."""
    pyramid_channels: int = 256
    pyramid_norm: Literal["", "LN"] = ""
    proposals: ProposalConfig = ProposalConfig()
    stages: tuple[BoxStage, ...] = CASCADE
    """One for Mask R-CNN; of several, each starts from the boxes of the one before it (Cascade R-CNN)."""
    class_agnostic: bool = True
    """One box per proposal, or one per proposal and class; the stages of a cascade need one."""
    box_convs: tuple[int, ...] = (256, 256, 256, 256)
    """Channels of the 3x3 convolutions of every box head."""
    box_layers: tuple[int, ...] = (1024,)
    """Widths of the linear layers that follow them."""
    masks: bool = True
    """Whether there is a mask head; without it this is a detector of boxes."""
    mask_convs: tuple[int, ...] = (256, 256, 256, 256)
    mask_deconv: int = 256
    """Channels of the deconvolution that doubles a mask's side."""
    head_norm: Literal["", "BN", "LN"] = "BN"
    """After the convolutions of box and mask heads; ``"BN"`` counts the regions of all processes."""
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    """Classes exclude each other, or are asked one by one (LVIS)."""
    federated_classes: int = 0
    """Classes that the loss of a batch asks for: those in it, and others drawn up to this number; 0 for all."""
    selection: Selection = Selection()
    square: int = 0
    """Images are padded to squares of this side; 0 for the largest height and width of a batch."""
    batch_per_image: int = 512
    """Proposals sampled of every image in training."""
    positive_fraction: float = 0.25
    """Largest share of objects among them."""
    add_objects: bool = True
    """The objects themselves are proposals in training."""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Red, green, blue, of values 0..255."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[str]:
        found = []
        levels, sizes = self.backbone.num_stages + 1, self.proposals.anchor_sizes
        if self.backbone.rank != 2:
            found.append(f"a detector needs a backbone for images, this one takes {self.backbone.input_size}")
        if len(sizes) != levels:
            found.append(f"anchor_sizes={sizes} needs one size for each of {levels} levels")
        if not self.stages:
            found.append("stages is empty; MASK_RCNN or CASCADE are the published ones")
        if len(self.stages) > 1 and not self.class_agnostic:
            found.append("class_agnostic=False with several stages: which class's box would the next one start from?")
        if self.num_classes < 1:
            found.append(f"num_classes={self.num_classes}, at least 1 is needed")
        if self.federated_classes and self.scoring != "sigmoid":
            found.append(f"federated_classes={self.federated_classes} needs scoring='sigmoid'")
        return found

    @property
    def family(self) -> Literal["mask_rcnn", "cascade"]:
        """Mask R-CNN has one stage of boxes, a cascade several."""
        return "mask_rcnn" if len(self.stages) == 1 else "cascade"

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per position of every level of the pyramid."""
        return tuple(4 * 2**level for level in range(self.backbone.num_stages + 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` undoes it."""
        return {**asdict(self), "backbone": self.backbone.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DetectorConfig":
        """Undo :meth:`to_dict`, also after a trip through JSON.

        Raises:
            ValueError: Unknown or missing fields (all are named), or values that make no detector.
        """
        made = dict(values)
        inner = {
            "backbone": MViTConfig.from_dict,
            "proposals": _reader(ProposalConfig),
            "selection": _reader(Selection),
        }
        for name, read in inner.items():
            if name in made:
                made[name] = read(_mapping(name, made[name]))
        if isinstance(made.get("stages"), (list, tuple)):
            made["stages"] = tuple(_reader(BoxStage)(_mapping("stages", stage)) for stage in made["stages"])
        return _reader(cls)(made)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} of a detector is a record of fields, got {str(value)[:60]}")
    return value


def _reader(kind: type[Any]) -> Callable[[dict[str, Any]], Any]:
    """Makes a dataclass of plain JSON values, lists taken for tuples."""

    def read(values: dict[str, Any]) -> Any:
        known = fields(kind)
        unknown = sorted(set(values) - {f.name for f in known})
        missing = [f.name for f in known if f.default is MISSING and f.name not in values]
        if unknown or missing:
            wrong = [f"{unknown} are no fields of {kind.__name__}"] if unknown else []
            wrong += [f"{missing} of {kind.__name__} are missing"] if missing else []
            raise ValueError(f"{' and '.join(wrong)}; was this file written by another version?")
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    return read
