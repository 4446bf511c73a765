"""Multiscale Vision Transformers v2: images, video and detection.

>>> import mvitv2
>>> model = mvitv2.create_model("mvitv2_t", num_classes=10)
"""

from mvitv2._version import __version__
from mvitv2.core.config import BlockConfig, MViTConfig, describe, schedule
from mvitv2.core.model import MViT
from mvitv2.models import create_model, list_models, model_config

__all__ = [
    "BlockConfig",
    "MViT",
    "MViTConfig",
    "__version__",
    "create_model",
    "describe",
    "list_models",
    "model_config",
    "schedule",
]
