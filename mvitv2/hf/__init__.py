"""Models of this package in Hugging Face transformers: ``import mvitv2.hf``, and its Auto classes know them.

transformers finds no plug-ins by itself, so the import is what makes them known, and it needs the extra ``hf``.
``AutoModelForImageClassification``, ``AutoImageProcessor`` and ``pipeline("image-classification")`` then read what
:func:`mvitv2.save_pretrained` writes, what transformers saves :func:`mvitv2.from_pretrained` reads, and DETR,
Mask2Former and all that takes an ``AutoBackbone`` stand on :func:`backbone_config` or :func:`with_weights`.

>>> from transformers import DetrConfig, DetrForObjectDetection            # doctest: +SKIP
>>> config = DetrConfig(backbone_config=backbone_config("mvitv2_t_det"), num_labels=3)
>>> model = DetrForObjectDetection(config)
"""

from typing import Any

from mvitv2.extras import required
from mvitv2.hf.backbone import MViTv2Backbone, backbone_config, with_weights
from mvitv2.hf.classification import MViTv2ForImageClassification
from mvitv2.hf.config import MViTv2Config
from mvitv2.hf.pixels import MViTv2ImageProcessor

__all__ = [
    "MViTv2Backbone",
    "MViTv2Config",
    "MViTv2ForImageClassification",
    "MViTv2ImageProcessor",
    "backbone_config",
    "with_weights",
]

_auto: Any = required("transformers", extra="hf")
_auto.AutoConfig.register(MViTv2Config.model_type, MViTv2Config, exist_ok=True)
_auto.AutoBackbone.register(MViTv2Config, MViTv2Backbone, exist_ok=True)
_auto.AutoModelForImageClassification.register(MViTv2Config, MViTv2ForImageClassification, exist_ok=True)
# one processor for every backend, since it works on Pillow's pictures alone
_processors = dict.fromkeys(("pil", "torchvision"), MViTv2ImageProcessor)
_auto.AutoImageProcessor.register(MViTv2Config, image_processor_classes=_processors, exist_ok=True)
