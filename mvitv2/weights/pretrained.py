"""Published weights by the name of a model: which file is meant, fetched once, and what its input goes through."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvitv2.aliases import ALIASES, OPENMMLAB, TIMM, TORCHVISION, variant_name
from mvitv2.extras import MissingExtra, required
from mvitv2.tasks.detect.detector import Detector
from mvitv2.weights.load import Filled, Whole, backbone_in, load_into
from mvitv2.weights.published import Release
from mvitv2.weights.published_detectors import detector_release
from mvitv2.weights.releases import RELEASES, default_release, fetch_release, releases_of

LOG = logging.getLogger("mvitv2")
IMAGENET_CLASSES, KINETICS_CLASSES = 1000, 400
DIALECT_OF_ALIAS = {**dict.fromkeys(TIMM, "timm"), **dict.fromkeys(TORCHVISION, "torchvision")}
"""A name of one codebase means that codebase's own file, with its preprocessing."""
DIALECT_OF_ALIAS |= dict.fromkeys((n for n in OPENMMLAB if "3rdparty" in n), "mmpretrain")


def pretrained_release(name: str) -> Release:
    """The published file that a model's name means.

    Args:
        name: A release, a variant, or a name people know from another codebase, which prefers that codebase's file.

    Raises:
        ValueError: There is no such model, or nothing was published for it.
    """
    if name in RELEASES:
        return RELEASES[name]
    if detector := detector_release(name):
        return RELEASES[detector]
    variant = variant_name(name)
    wanted = DIALECT_OF_ALIAS.get(name) if name in ALIASES else None
    same = [entry for entry in releases_of(variant) if entry.dialect == wanted and (entry.url or entry.hub)]
    return same[0] if same else default_release(variant)


def pretrained_file(name: str, **options: Any) -> Path:
    """The published file that a model's name means, fetched if it is not here yet; arguments as below."""
    return fetch_release(pretrained_release(name), **options)


def load_pretrained(model: Filled, name: str, **options: Any) -> Filled:
    """Fill a model with published weights; a classifier for other classes is drawn anew.

    Args:
        model: Of the variant that ``name`` means, of any size, classes or channels; a detector, or a backbone.
        name: As for :func:`pretrained_release`.
        **options: ``cache_dir``, ``offline``, ``mirror`` as for :func:`mvitv2.weights.download.fetch`.

    Raises:
        mvitv2.weights.download.DownloadError: The file cannot be fetched; the message says what to do.
    """
    entry = pretrained_release(name)
    model = load_into(model, pretrained_file(entry.name, **options))
    describe_release(model, entry)
    return model


def describe_release(model: Whole, entry: Release) -> None:
    """Write into a model's card what is known of the published file it was filled from, and no file says itself."""
    inner = backbone_in(model).config
    card = model.card if isinstance(model, Detector) else backbone_in(model).card
    preprocessing, (height, width) = entry.preprocessing, inner.input_size[-2:]
    if preprocessing.size not in (None, (height, width)):
        preprocessing = preprocessing.at((height, width))
    if preprocessing.num_frames is not None:
        preprocessing = replace(preprocessing, num_frames=inner.input_size[0])
    card["preprocessing"] = preprocessing.to_dict()
    card["provenance"] |= {"release": entry.name, "reported": dict(entry.reported), "license": entry.license}
    if not card["classes"] and inner.num_classes == entry.num_classes:
        card["classes"] = class_names(entry.num_classes)


def class_names(num_classes: int) -> list[str]:
    """Names of the 1000 classes of ImageNet or the 400 of Kinetics, from the libraries that keep them.

    Empty for any other number, and where the library (extra ``train``) is not installed: classes then go by number.
    """
    try:
        if num_classes == IMAGENET_CLASSES:
            info = required("timm.data", extra="train").ImageNetInfo()
            return [info.index_to_description(index) for index in range(num_classes)]
        if num_classes == KINETICS_CLASSES:
            weights = required("torchvision.models.video", extra="train").MViT_V2_S_Weights.KINETICS400_V1
            return list(weights.meta["categories"])
    except MissingExtra as error:
        LOG.info("classes go by number: %s", error)
    return []
