"""Published video classifiers and encoders, MViTv1 and reversible MViT as data; the form is that of ``published``."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mvitv2.preprocessing import (
    IMAGENET,
    IMAGENET_MEAN,
    IMAGENET_STD,
    KINETICS,
    KINETICS_32X3,
    KINETICS_L,
    KINETICS_TORCHVISION,
    SSV2_B,
    SSV2_L,
    SSV2_S,
    Preprocessing,
)
from mvitv2.weights.published import APACHE, FB, GITHUB, IMAGE, OPENMMLAB, PRETRAINING, VIDEO, Release


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
            notes=f"pre-training only; the fine-tuned model, reported at {top1} top1 on Kinetics-400, is not published",
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


def _torchvision() -> Iterator[Release]:
    """torchvision's ports of SlowFast's Kinetics models, in its names."""
    common: dict[str, Any] = {"dialect": "torchvision", "task": VIDEO, "num_classes": 400}
    common["preprocessing"] = KINETICS_TORCHVISION
    terms = "BSD-3-Clause (the repository; weights may have terms of their own, from their training data)"
    rows = (
        ("mvitv1_b_16x4", "mvit_v1_b-dbeb1030", 78.477, 93.582),
        ("mvitv2_s_16x4", "mvit_v2_s-ae3be167", 80.757, 94.665),
    )
    for variant, stem, top1, top5 in rows:
        yield Release(
            name=f"{variant}.torchvision_k400",
            variant=variant,
            url=f"https://download.pytorch.org/models/{stem}.pth",
            sha256=stem[-8:],
            reported={"top1": top1, "top5": top5},
            source=f"{GITHUB}/pytorch/vision/blob/main/torchvision/models/video/mvit.py",
            license=terms,
            notes="5 clips a video at 7.5 frames a second",
            **common,
        )


def _pytorchvideo() -> Iterator[Release]:
    """pytorchvideo's hub: MViTv1 in its names, which it stores twice."""
    folder = f"{FB}/pytorchvideo/model_zoo"
    rows: tuple[tuple[str, str, str, int, Preprocessing, str, float], ...] = (
        ("mvitv1_b", "in1k", IMAGE, 1000, IMAGENET, "imagenet/MVIT_B_16_f292487636", 83.0),
        ("mvitv1_b_16x4", "k400", VIDEO, 400, KINETICS, "kinetics/MVIT_B_16x4", 78.9),
        ("mvitv1_b_32x3", "k400", VIDEO, 400, KINETICS_32X3, "kinetics/MVIT_B_32x3_f294077834", 80.3),
    )
    for variant, data, task, classes, preprocessing, path, top1 in rows:
        yield Release(
            name=f"{variant}.pytorchvideo_{data}",
            variant=variant,
            dialect="pytorchvideo",
            task=task,
            num_classes=classes,
            preprocessing=preprocessing,
            url=f"{folder}/{path}.pyth",
            reported={"top1": top1},
            source=f"{GITHUB}/facebookresearch/pytorchvideo/blob/main/pytorchvideo/models/hub/vision_transformers.py",
            license=APACHE,
        )


def _mmaction2() -> Iterator[Release]:
    """mmaction2: ports of SlowFast's models, and models it trained; tested with the shorter side at the crop's size."""
    common: dict[str, Any] = {"dialect": "mmaction2", "license": APACHE}
    page, folder = f"{GITHUB}/open-mmlab/mmaction2/blob/main/configs/recognition/mvit", f"{OPENMMLAB}/mmaction/v1.0"
    for variant, data, preprocessing, path, top1, top5, notes in _mmaction2_rows():
        yield Release(
            name=f"{variant}.mmaction2_{data}",
            variant=variant,
            task=VIDEO,
            num_classes=174 if data.startswith("ssv2") else 400,
            preprocessing=preprocessing,
            url=f"{folder}/recognition/mvit/{path}.pth",
            sha256=path[-8:],
            reported={"top1": top1, "top5": top5},
            source=f"{page}/{'README.md' if path.startswith('converted') else 'metafile.yml'}",
            notes=notes,
            **common,
        )
    yield from _maskfeat_project(common)


Row = tuple[str, str, Preprocessing, str, float, float, str]


def _mmaction2_rows() -> tuple[Row, ...]:
    """Variant, data, preprocessing, path, top1, top5, notes."""
    s, b = replace(KINETICS, resize=224), replace(KINETICS_32X3, resize=224)
    own_ssv2 = replace(SSV2_S, mean=IMAGENET_MEAN, std=IMAGENET_STD)  # its configuration inherits them
    k400, ssv2, converted = "_kinetics400-rgb_20221021", "_sthv2-rgb_20221021", "converted/mvit"
    s_k400 = "mvit-small-p244_32xb16-16x4x1-200e_kinetics400-rgb"
    s_ssv2 = "mvit-small-p244_k400-pre_16xb16-u16-100e_sthv2-rgb"
    s_mask = "mvit-small-p244_k400-maskfeat-pre_8xb32-16x4x1-100e_kinetics400-rgb"
    small, base, large, masked = "mvitv2_s_16x4", "mvitv2_b_32x3", "mvitv2_l_40x3", "maskfeat_s_16x4"
    mean = "the figures were measured with mean 0.45; the weights were trained with ImageNet's, which is given here"
    other = "trained by mmaction2 with ImageNet's mean, from weights that had another"
    head = "fine-tuned by mmaction2, with its readout instead of SlowFast's mean"
    return (
        (small, "k400", s, f"{converted}-small-p244_16x4x1{k400}-9ebaaeed", 81.1, 94.7, ""),
        (base, "k400", b, f"{converted}-base-p244_32x3x1{k400}-f392cd2d", 82.6, 95.8, ""),
        (large, "k400", KINETICS_L, f"{converted}-large-p244_40x3x1{k400}-11fe1f97", 85.4, 96.2, mean),
        (small, "ssv2", SSV2_S, f"{converted}-small-p244_u16{ssv2}-65ecae7d", 68.1, 91.0, ""),
        (base, "ssv2", SSV2_B, f"{converted}-base-p244_u32{ssv2}-d5de5da6", 70.8, 92.7, ""),
        (large, "ssv2", SSV2_L, f"{converted}-large-p244_u40{ssv2}-61696e07", 73.2, 94.0, ""),
        (small, "k400_trained", s, f"{s_k400}/{s_k400}_20230201-23284ff3", 80.6, 94.7, "trained by mmaction2"),
        (small, "ssv2_trained", own_ssv2, f"{s_ssv2}/{s_ssv2}_20230201-4065c1b9", 68.2, 91.3, other),
        (masked, "k400_trained", s, f"{s_mask}/{s_mask}_20230201-5bced1d0", 81.8, 95.2, head),
    )


def _maskfeat_project(common: dict[str, Any]) -> Iterator[Release]:
    """MaskFeat as mmpretrain's project trained it: the encoder, and the classifier made from it."""
    stem = "maskfeat_mvit-small_16xb32-amp-coslr-300e_k400"
    folder = f"{OPENMMLAB}/mmselfsup/1.x/maskfeat/{stem}"
    tuned = "mvit-small_ft-8xb16-coslr-100e_k400"
    fields: dict[str, Any] = {"variant": "maskfeat_s_16x4", "preprocessing": replace(KINETICS, resize=224)}
    fields |= {"source": f"{GITHUB}/open-mmlab/mmpretrain/blob/main/projects/maskfeat_video/README.md"}
    yield Release(
        name="maskfeat_s_16x4.mmselfsup_k400_pretraining",
        task=PRETRAINING,
        num_classes=0,
        url=f"{folder}/{stem}_20230131-87d60b6f.pth",
        sha256="87d60b6f",
        notes="pre-training only",
        **fields,
        **common,
    )
    yield Release(
        name="maskfeat_s_16x4.mmselfsup_k400",
        task=VIDEO,
        num_classes=400,
        url=f"{folder}/{tuned}/{tuned}_20230131-5e8303f5.pth",
        sha256="5e8303f5",
        reported={"top1": 81.8},
        **fields,
        **common,
    )


VIDEOS = (*_slowfast(), *_torchvision(), *_pytorchvideo(), *_mmaction2())
"""Files of SlowFast, torchvision, pytorchvideo, mmaction2 and mmselfsup."""
