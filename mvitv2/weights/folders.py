"""Folders that hold a model: a training run's, and those of the hub in our form, in transformers' and in timm's.

Ours has ``model.safetensors`` in our own format, which needs nothing beside it; ``config.json`` and
``preprocessor_config.json`` say the same in the words of transformers, ``README.md`` to people.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvitv2.core.model import MViT
from mvitv2.preprocessing import Preprocessing
from mvitv2.weights import files
from mvitv2.weights.load import Whole, backbone_in, load_model
from mvitv2.weights.own import KEY
from mvitv2.weights.plain import stored_card, stored_config
from mvitv2.weights.rename import DialectError

CONFIG, WEIGHTS, PIXELS, CARD = "config.json", "model.safetensors", "preprocessor_config.json", "README.md"
PICKLED = "pytorch_model.bin"
IN_FOLDER = ("best.safetensors", "last.safetensors", WEIGHTS, PICKLED)
"""Weights in a folder, the first that is there: best and last of a training run, and the hub's names."""
MODEL_TYPE = "mvitv2"
"""Our ``model_type`` in ``config.json``."""
CLASSIFIER, PROCESSOR = "MViTv2ForImageClassification", "MViTv2ImageProcessor"
"""Classes of :mod:`mvitv2.hf`, as transformers looks for them in these files."""
WITHIN = "mvit."
"""What transformers puts before every name: our model is a part of its."""
LONGEST = 32 << 20
"""Bytes of a JSON file that is read."""


def weights_in(folder: Path) -> Path:
    """The weights in a folder.

    Raises:
        ValueError: There are none.
    """
    for name in IN_FOLDER:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} is a folder without weights; expected one of {', '.join(IN_FOLDER)} in it")


def model_of(weights: Path, stated: Mapping[str, Any], **changes: Any) -> Whole:
    """A model from weights and from what ``config.json`` states beside them.

    Args:
        weights: The file.
        stated: That file's content; empty where there is none.
        **changes: For :func:`mvitv2.load_model`.

    Raises:
        DialectError: The two contradict each other, or ``config.json`` is of another kind of model.
    """
    if stated.get("model_type") not in (None, MODEL_TYPE):
        raise DialectError(
            f"{CONFIG} beside {weights} is of a model of type {stated['model_type']!r}, not {MODEL_TYPE!r}"
        )
    if stated.get("model_type") == MODEL_TYPE:
        content = files.read(weights)
        if KEY not in content.metadata:  # written by transformers
            config, card = stored_config(stated.get("mvit")), stored_card(stated.get("card") or {})
            state = {name.removeprefix(WITHIN): value for name, value in content.tensors.items()}
            model = load_model(state, config=config, dialect="mvitv2", **changes)
            return described(model, card)
    model = load_model(weights, **changes)
    return described(model, timm_card(stated)) if "architecture" in stated else model


def described(model: Whole, card: Mapping[str, Any]) -> Whole:
    """The model with what its folder says of classes, preprocessing and origin, as far as it still holds."""
    target, known = backbone_in(model), dict(card)
    config = target.config
    if len(known.get("classes", ())) != config.num_classes:
        known.pop("classes", None)
    if record := known.get("preprocessing"):
        pixels, (height, width) = Preprocessing.from_dict(record), config.input_size[-2:]
        fits = pixels.size in (None, (height, width))
        known["preprocessing"] = (pixels if fits else pixels.at((height, width))).to_dict()
    target.card = {**target.card, **known}
    return model


def timm_card(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Classes and preprocessing from a ``config.json`` of timm (``architecture``, ``pretrained_cfg``, ``label_names``).

    Raises:
        DialectError: Its values make no preprocessing.
    """
    cfg = stated.get("pretrained_cfg") or {}
    card: dict[str, Any] = {"provenance": {"dialect": "timm", "variant": str(stated["architecture"])}}
    names, descriptions = stated.get("label_names"), stated.get("label_descriptions") or {}
    if isinstance(names, list):
        card["classes"] = [str(descriptions.get(name, name)) for name in names]
    try:
        if "input_size" in cfg:
            channels, height, width = cfg["input_size"]
            record = Preprocessing.from_crop_fraction(
                (height, width),
                cfg.get("crop_pct", 0.9),
                interpolation=cfg.get("interpolation", "bicubic"),
                mean=tuple(cfg.get("mean", (0.485, 0.456, 0.406))),
                std=tuple(cfg.get("std", (0.229, 0.224, 0.225))),
                channels="gray" if channels == 1 else "rgb",
            )
            card["preprocessing"] = record.to_dict()
    except (ValueError, TypeError) as error:
        raise DialectError(f"{CONFIG} of timm has a pretrained_cfg of no sense: {error}") from error
    return card


def stated_in(path: Path) -> dict[str, Any]:
    """What a ``config.json`` states; empty where there is no such file.

    Raises:
        ValueError: It is no JSON object.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than any configuration")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {str(error)[:120]}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, expected names and values")
    return values


def as_stated(model: MViT) -> dict[str, Any]:
    """A model's ``config.json``, which :mod:`mvitv2.hf` gives to transformers."""
    names = model.card.get("classes") or [str(number) for number in range(model.config.num_classes)]
    classifies = model.config.rank == len("hw") and model.config.num_classes > 0
    return {
        "model_type": MODEL_TYPE,
        **({"architectures": [CLASSIFIER]} if classifies else {}),
        "mvit": json.loads(json.dumps(model.config.to_dict())),
        "card": dict(model.card),
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
