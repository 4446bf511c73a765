"""What a file says of its model beside the tensors: the authors' training configuration, or our own description."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.weights import dialects
from mvitv2.weights.dialects import Dialect
from mvitv2.weights.evidence import examine
from mvitv2.weights.peers.slowfast import MODEL_DEFAULTS, MVIT_DEFAULTS, official_config, slowfast_config
from mvitv2.weights.plain import LARGEST, check_sizes, stored_card, stored_config
from mvitv2.weights.rename import DialectError

DESCRIPTION = "mvitv2_description"
"""Key of our configuration and card, as JSON text, in files written for other codebases, which do not look at it."""
LONGEST = 1 << 20
"""Characters of a stored configuration that are read."""


def description(config: MViTConfig, card: Mapping[str, Any]) -> str:
    """What :func:`stored_description` reads."""
    return json.dumps({"config": config.to_dict(), "card": dict(card)})


def stored_description(metadata: Mapping[str, Any]) -> tuple[MViTConfig | None, dict[str, Any]]:
    """Configuration and card that we wrote into a file for another codebase.

    Raises:
        DialectError: There is something else under that key.
    """
    text = metadata.get(DESCRIPTION)
    if text is None:
        return None, {}
    try:
        values = json.loads(text)
        return stored_config(values["config"]), stored_card(values["card"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DialectError(f"its {DESCRIPTION} entry is not what mvitv2 writes: {str(error)[:200]}") from error


def stored_settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML that facebookresearch/mvit and SlowFast store as ``cfg``; empty where there is none.

    Raises:
        DialectError: It is no YAML.
    """
    text = metadata.get("cfg")
    if not isinstance(text, str) or "MVIT" not in text:
        return {}
    if len(text) > LONGEST:
        raise DialectError(f"the configuration stored in the file has {len(text)} characters; the authors' have 10000")
    try:
        cfg = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DialectError(f"the configuration stored in the file is no YAML: {str(error)[:200]}") from error
    parts = ("MVIT", "MODEL", "DATA")
    return cfg if isinstance(cfg, dict) and all(isinstance(cfg.get(part), dict) for part in parts) else {}


DATA_DEFAULTS: dict[str, Any] = {
    "TRAIN_CROP_SIZE": 224,
    "TEST_CROP_SIZE": 224,
    "NUM_FRAMES": 8,
    "SAMPLING_RATE": 8,
    "TARGET_FPS": 30,
    "INPUT_CHANNEL_NUM": [3],
    "TRAIN_JITTER_SCALES": [256, 320],
    "MEAN": [0.45, 0.45, 0.45],
    "STD": [0.225, 0.225, 0.225],
}
"""SlowFast ``config/defaults.py``."""


def wrong_settings(settings: Mapping[str, Any]) -> list[str]:
    """Settings whose values are of another kind than the authors' defaults, each with its value."""
    defaults = {"MVIT": {**MVIT_DEFAULTS, "REV": {}}, "MODEL": MODEL_DEFAULTS, "DATA": DATA_DEFAULTS}
    stated = ((part, key, settings[part][key]) for part in defaults for key in settings[part])
    return [
        f"{part}.{key}={str(value)[:60]}"
        for part, key, value in stated
        if key in defaults[part] and not _alike(value, defaults[part][key])
    ]


def _alike(value: Any, default: Any) -> bool:
    """Whether a setting is of its default's kind; numbers stay below :data:`LARGEST`, lists may be ``None``."""
    if default is None or isinstance(default, list):
        return value is None or isinstance(value, list)
    if isinstance(default, bool | str | dict):
        return isinstance(value, type(default))
    whole = isinstance(value, int) and not isinstance(value, bool)
    return (whole or (isinstance(default, float) and isinstance(value, float))) and abs(value) < LARGEST


def settings_config(settings: Mapping[str, Any], state: Mapping[str, Tensor], kind: Dialect) -> MViTConfig:
    """The configuration that such YAML states; the tensors have the last word on the classifier and the last norm.

    Raises:
        DialectError: It is of another model than the tensors, or lacks what every model has.
    """
    if wrong := wrong_settings(settings):
        raise DialectError(f"the configuration stored in the file has settings of no sense: {', '.join(wrong)}")
    count, stated = len(examine(state).blocks), settings["MVIT"].get("DEPTH", MVIT_DEFAULTS["DEPTH"])
    if stated != count:
        raise DialectError(f"the configuration stored in the file is of {stated} blocks, its tensors are of {count}")
    reader = slowfast_config if kind is dialects.SLOWFAST else official_config
    try:
        config = reader(settings)
        check_sizes(config)
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError) as error:
        raise DialectError(f"the configuration stored in the file lacks something: {error!r}") from error
    head = state.get("head.projection.weight")
    classes = 0 if head is None else head.shape[0]
    # tables are resampled at other sizes; that mvit reads wrong rows there is an accident, not a convention
    return replace(config, num_classes=classes, final_norm="norm.weight" in state, table_resampling="linear")
