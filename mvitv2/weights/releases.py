"""Every published file of an MViT, as data: where it lies, what it is, how its input is prepared, what was reported.

Addresses and figures are those of the page named in ``source``; what no page states is ``None``. File names of
torchvision and OpenMMLab end in the first digits of the sha256, no other publisher gives a hash or an exact size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mvitv2.preprocessing import (
    IMAGENET,
    IMAGENET_MEAN,
    IMAGENET_STD,
    IMAGENET_TIMM,
    KINETICS,
    KINETICS_32X3,
    KINETICS_L,
    Preprocessing,
)


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
        """The file's own name."""
        return (self.url or self.page or "").rpartition("/")[2] if self.hub is None else self.hub[1]


FB = "https://dl.fbaipublicfiles.com"
OPENMMLAB = "https://download.openmmlab.com"
GITHUB = "https://github.com"
APACHE = "Apache-2.0 (the repository; nothing is said of the weights)"
IMAGE, VIDEO, DETECT, PRETRAINING = "image classification", "video classification", "detection", "pretraining"

# SlowFast reads Something-Something frames with cv2, in the order B G R, normalises them so, and then reverses the
# channels (datasets/ssv2.py, utils.pack_pathway_output): the model sees R G B, and ImageNet's mean the other way round.
# Its test resizes the shorter side to the crop, without a margin (ssv2.py: min_scale = max_scale = TEST_CROP_SIZE).
SSV2_S = replace(KINETICS, resize=224, sampling_rate=None, fps=None)
SSV2_B = replace(SSV2_S, num_frames=32)
SSV2_L = replace(KINETICS_L, mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1], sampling_rate=None, fps=None)


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


def _slowfast() -> Iterator[Release]:
    """facebookresearch/SlowFast: Kinetics, Something-Something, MaskFeat, MViTv1, reversible MViT."""
    common: dict[str, Any] = {"dialect": "slowfast", "license": APACHE}
    repository, folder = f"{GITHUB}/facebookresearch/SlowFast/blob/main", f"{FB}/pyslowfast"
    rows: tuple[tuple[str, str, int, Preprocessing, str, float, float], ...] = (
        ("mvitv2_s_16x4", "k400", 400, KINETICS, "S_16x4_k400_f302660347", 81.0, 94.6),
        ("mvitv2_b_32x3", "k400", 400, KINETICS_32X3, "B_32x3_k400_f304025456", 82.9, 95.7),
        ("mvitv2_l_40x3", "k400", 400, KINETICS_L, "L_40x3_k400_f306903192", 86.1, 97.0),
        ("mvitv2_s_16x4", "ssv2", 174, SSV2_S, "S_16x4_ssv2_f308341823", 68.2, 91.4),
        ("mvitv2_b_32x3", "ssv2", 174, SSV2_B, "B_32x3_ssv2_f305803282", 70.5, 92.7),
        ("mvitv2_l_40x3", "ssv2", 174, SSV2_L, "L_40x3_ssv2_f309603968", 73.3, 94.1),
    )
    for variant, data, classes, preprocessing, stem, top1, top5 in rows:
        yield Release(
            name=f"{variant}.slowfast_{data}",
            variant=variant,
            task=VIDEO,
            num_classes=classes,
            preprocessing=preprocessing,
            url=f"{folder}/model_zoo/mvitv2/pysf_video_models/MViTv2_{stem}.pyth",
            reported={"top1": top1, "top5": top5},
            source=f"{repository}/projects/mvitv2/README.md",
            **common,
        )
    for size, epochs, top1 in (("S", "00300", 82.2), ("L", "00800", 84.3)):
        yield Release(
            name=f"maskfeat_{size.lower()}_16x4.slowfast_k400_pretraining",
            variant=f"maskfeat_{size.lower()}_16x4",
            task=PRETRAINING,
            num_classes=0,
            preprocessing=KINETICS,
            url=f"{folder}/masked_models/k400_MVIT_{size}_MaskFeat_PT_epoch_{epochs}.pyth",
            source=f"{repository}/projects/maskfeat/README.md",
            notes=f"pre-training only; fine-tuned, which was never published, it is reported at {top1} top1 on Kinetics-400",
            **common,
        )
    yield from _slowfast_v1(common, repository, folder)


def _slowfast_v1(common: dict[str, Any], repository: str, folder: str) -> Iterator[Release]:
    """MViTv1 and reversible MViT, of SlowFast's model zoo."""
    zoo, reversible = f"{repository}/MODEL_ZOO.md", f"{repository}/projects/rev/README.md"
    drive = "https://drive.google.com/file/d"
    by_hand = "on a drive that asks before it gives; fetch it with a browser"
    deep = "its configuration builds 24 blocks where the paper's model of this name has 16; the file decides"
    loose: tuple[tuple[str, str | None, str, int, Preprocessing, dict[str, float], dict[str, Any]], ...] = (
        ("rev_mvit_b.slowfast_in1k", "rev_mvit_b", IMAGE, 1000, IMAGENET, {"top1": 82.9, "top5": 96.3},
         {"url": f"{folder}/rev/REV_MVIT_B.pyth", "source": zoo}),
        ("rev_mvit_b_16x4.slowfast_k400", "rev_mvit_b_16x4", VIDEO, 400, KINETICS, {"top1": 78.4, "top5": 93.4},
         {"url": f"{folder}/rev/REV_MVIT_B_16x4.pyth", "source": reversible}),
        ("mvitv1_b.slowfast_in1k", "mvitv1_b", IMAGE, 1000, IMAGENET, {"top1": 82.9, "top5": 96.3},
         {"page": f"{drive}/1dYYqUB-3DSgBVc9d6o-rW8ojtVsrFLgp/view", "source": zoo, "notes": by_hand}),
        ("mvitv1_b_16x4.slowfast_k400", "mvitv1_b_16x4", VIDEO, 400, KINETICS, {"top1": 78.4, "top5": 93.5},
         {"page": f"{drive}/194gJinVejq6A1FmySNKQ8vAN5-FOY-QL/view", "source": zoo, "notes": by_hand}),
        ("mvitv1_32x3.slowfast_k400", None, VIDEO, 400, KINETICS_32X3, {"top1": 80.4, "top5": 94.8},
         {"url": f"{folder}/model_zoo/mvit/k400.pyth", "source": zoo, "notes": deep}),
        ("mvitv1_32x3.slowfast_k600", None, VIDEO, 600, KINETICS_32X3, {"top1": 83.9, "top5": 96.5},
         {"url": f"{folder}/model_zoo/mvit/k600.pyth", "source": zoo, "notes": deep}),
    )  # fmt: skip
    for name, variant, task, classes, preprocessing, reported, rest in loose:
        fields = {"num_classes": classes, "preprocessing": preprocessing, "reported": reported}
        yield Release(name=name, variant=variant, task=task, **fields, **rest, **common)
