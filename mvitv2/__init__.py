"""Multiscale Vision Transformers v2: images, video and detection.

>>> import mvitv2
>>> model = mvitv2.create_model("mvitv2_t", num_classes=10)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mvitv2._version import __version__

if TYPE_CHECKING:
    from mvitv2.catalogue import is_model, model_info
    from mvitv2.core.config import BlockConfig, MViTConfig, describe, schedule
    from mvitv2.core.model import MViT
    from mvitv2.models import create_model, list_models, model_config
    from mvitv2.tasks.prediction import create_transform
    from mvitv2.weights.hub import from_pretrained, push_to_hub, save_pretrained
    from mvitv2.weights.inspect import inspect_weights
    from mvitv2.weights.load import load_into, load_model
    from mvitv2.weights.save import save_weights

__all__ = [
    "BlockConfig",
    "MViT",
    "MViTConfig",
    "__version__",
    "create_model",
    "create_transform",
    "describe",
    "from_pretrained",
    "inspect_weights",
    "is_model",
    "list_models",
    "load_into",
    "load_model",
    "model_config",
    "model_info",
    "push_to_hub",
    "save_pretrained",
    "save_weights",
    "schedule",
]

# Every name is imported when it is first used (PEP 562): torch takes seconds to load, and `mvitv2 --help`, which has
# to import this file, needs none of it.
_HOMES = {
    "BlockConfig": "mvitv2.core.config",
    "MViT": "mvitv2.core.model",
    "MViTConfig": "mvitv2.core.config",
    "create_model": "mvitv2.models",
    "create_transform": "mvitv2.tasks.prediction",
    "describe": "mvitv2.core.config",
    "from_pretrained": "mvitv2.weights.hub",
    "inspect_weights": "mvitv2.weights.inspect",
    "is_model": "mvitv2.catalogue",
    "list_models": "mvitv2.models",
    "load_into": "mvitv2.weights.load",
    "load_model": "mvitv2.weights.load",
    "model_config": "mvitv2.models",
    "model_info": "mvitv2.catalogue",
    "push_to_hub": "mvitv2.weights.hub",
    "save_pretrained": "mvitv2.weights.hub",
    "save_weights": "mvitv2.weights.save",
    "schedule": "mvitv2.core.config",
}


def __getattr__(name: str) -> Any:
    """The public name ``name``, kept for the next time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """What completion in a shell offers: the public names, loaded or not."""
    return sorted({*globals(), *__all__})
