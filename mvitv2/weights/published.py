"""Published image classifiers as data: where each file lies, how its input is prepared, what was reported of it.

Addresses and figures are those of the page named in ``source``; what no page states is ``None``. File names of
torchvision and OpenMMLab end in the first digits of the sha256; no other publisher gives a hash or an exact size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mvitv2.preprocessing import IMAGENET, IMAGENET_TIMM, Preprocessing

FB = "https://dl.fbaipublicfiles.com"
OPENMMLAB = "https://download.openmmlab.com"
GITHUB = "https://github.com"
APACHE = "Apache-2.0 (the repository; nothing is said of the weights)"
IMAGE, VIDEO, DETECT, PRETRAINING = "image classification", "video classification", "detection", "pretraining"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One published file."""

    name: str
    """``variant.dialect_data``, such as ``mvitv2_t.official_in1k``."""
    variant: str | None
    """Architecture, a key of ``VARIANTS``; ``None`` where the publisher's own pages disagree and the file decides."""
    dialect: str
    """Whose names its tensors have, a key of ``DIALECTS``."""
    task: str
    """``image classification``, ``video classification``, ``detection`` or ``pretraining``."""
    num_classes: int
    """Classes of its head; 0 without one."""
    preprocessing: Preprocessing
    """What its input goes through; no file says it itself."""
    url: str | None = None
    """Address of the file; ``None`` for the hub, and where only a browser gets it (``page``)."""
    hub: tuple[str, str] | None = None
    """Repository and file name on the Hugging Face hub."""
    page: str | None = None
    """Where a person finds a file that has no direct address."""
    sha256: str | None = None
    """First digits of the hash, as far as published."""
    size: int | None = None
    """Bytes, where published."""
    reported: Mapping[str, float] = field(default_factory=dict)
    """Figures of ``source``, per cent: top1, top5, or box_ap, mask_ap."""
    source: str = ""
    """The page that names the file and the figures."""
    license: str = ""
    """What the publisher says of licences."""
    notes: str = ""
    """What a user of this file should know."""

    @property
    def filename(self) -> str:
        """The file's own name; empty where only a browser gets it."""
        return self.hub[1] if self.hub else (self.url or "").rpartition("/")[2]


def _official() -> Iterator[Release]:
    """facebookresearch/mvit: ImageNet-1k, and 21k in 19168 classes with a class token."""
    common: dict[str, Any] = {"dialect": "official", "task": IMAGE, "preprocessing": IMAGENET, "license": APACHE}
    common |= {"source": f"{GITHUB}/facebookresearch/mvit/blob/main/README.md"}
    folder = f"{FB}/mvit/mvitv2_models"
    for size, top1 in {"T": 82.3, "S": 83.6, "B": 84.4, "L": 85.3}.items():
        yield Release(
            name=f"mvitv2_{size.lower()}.official_in1k",
            variant=f"mvitv2_{size.lower()}",
            num_classes=1000,
            url=f"{folder}/MViTv2_{size}_in1k.pyth",
            reported={"top1": top1},
            notes="pooling kernels may be 5-D with one frame",
            **common,
        )
    for size in "BLH":
        yield Release(
            name=f"mvitv2_{size.lower()}_cls_21k.official_in21k",
            variant=f"mvitv2_{size.lower()}_cls_21k",
            num_classes=19168,
            url=f"{folder}/MViTv2_{size}_in21k.pyth",
            notes="the accuracy on the page is that of a model fine-tuned on ImageNet-1k, which was never published",
            **common,
        )


def _timm() -> Iterator[Release]:
    """The same weights in timm's names on the Hugging Face hub, measured by timm with a larger crop."""
    common: dict[str, Any] = {"dialect": "timm", "task": IMAGE, "preprocessing": IMAGENET_TIMM}
    common |= {"license": "Apache-2.0 (model card)"}
    csv = f"{GITHUB}/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
    figures = {
        "tiny": (82.408, 96.150),
        "small": (83.772, 96.558),
        "base": (84.424, 96.864),
        "large": (85.264, 97.188),
    }
    for size, (top1, top5) in figures.items():
        yield Release(
            name=f"mvitv2_{size[0]}.timm_in1k",
            variant=f"mvitv2_{size[0]}",
            num_classes=1000,
            hub=(f"timm/mvitv2_{size}.fb_in1k", "model.safetensors"),
            reported={"top1": top1, "top5": top5},
            source=csv,
            **common,
        )
    for size in ("base", "large", "huge"):
        yield Release(
            name=f"mvitv2_{size[0]}_cls_21k.timm_in21k",
            variant=f"mvitv2_{size[0]}_cls_21k",
            num_classes=19168,
            hub=(f"timm/mvitv2_{size}_cls.fb_inw21k", "model.safetensors"),
            source=f"https://huggingface.co/timm/mvitv2_{size}_cls.fb_inw21k",
            notes="trained without the class token in residual pooling; timm adds it and gets other features",
            **common,
        )


def _mmpretrain() -> Iterator[Release]:
    """mmpretrain's ports of the authors' ImageNet-1k models."""
    rows = (
        ("tiny", "db7beeef", 82.33, 96.15),
        ("small", "986bd741", 83.63, 96.51),
        ("base", "9c4f0a17", 84.34, 96.86),
        ("large", "2b57b983", 85.25, 97.14),
    )
    for size, digits, top1, top5 in rows:
        yield Release(
            name=f"mvitv2_{size[0]}.mmpretrain_in1k",
            variant=f"mvitv2_{size[0]}",
            dialect="mmpretrain",
            task=IMAGE,
            num_classes=1000,
            preprocessing=IMAGENET,
            url=f"{OPENMMLAB}/mmclassification/v0/mvit/mvitv2-{size}_3rdparty_in1k_20220722-{digits}.pth",
            sha256=digits,
            reported={"top1": top1, "top5": top5},
            source=f"{GITHUB}/open-mmlab/mmpretrain/blob/main/configs/mvit/metafile.yml",
            license=APACHE,
        )


IMAGES = (*_official(), *_timm(), *_mmpretrain())
"""Image classifiers of the official repository, timm and mmpretrain."""
