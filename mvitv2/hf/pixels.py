"""Our preprocessing as an image processor of transformers, bit for bit."""

from typing import TYPE_CHECKING, Any

import torch

from mvitv2.data.transforms import EvalTransform
from mvitv2.extras import required
from mvitv2.preprocessing import IMAGENET, Preprocessing

if TYPE_CHECKING:
    from transformers import BatchFeature
    from transformers.image_processing_utils import BaseImageProcessor
else:
    BatchFeature = required("transformers", extra="hf").BatchFeature
    BaseImageProcessor = required("transformers.image_processing_utils", extra="hf").BaseImageProcessor


class MViTv2ImageProcessor(BaseImageProcessor):
    """Pictures to ``pixel_values``, ``(B, C, H, W)``.

    Args:
        preprocessing: :meth:`mvitv2.preprocessing.Preprocessing.to_dict`; ``None``: the authors' for ImageNet.
        **kwargs: transformers' own.

    Raises:
        ValueError: The record cannot be used; every offending field is named.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  transformers' own declaration

    def __init__(self, preprocessing: dict[str, Any] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        record = IMAGENET if preprocessing is None else Preprocessing.from_dict(preprocessing)
        self.preprocessing = record.to_dict()

    def preprocess(self, images: Any, return_tensors: str | None = "pt", **_: Any) -> "BatchFeature":
        """One picture or many, of Pillow, NumPy or torch, as a batch.

        Raises:
            ValueError: Something else than ``"pt"`` is wanted, or pictures come out in several sizes.
        """
        if return_tensors not in (None, "pt"):
            raise ValueError(f"return_tensors={return_tensors!r}: this processor gives tensors of torch, 'pt'")
        utils: Any = required("transformers.image_utils", extra="hf")
        pillow: Any = required("transformers.image_transforms", extra="hf").to_pil_image
        transform = EvalTransform(Preprocessing.from_dict(self.preprocessing))
        made = [transform(pillow(image)) for image in utils.make_flat_list_of_images(images)]
        if len({tensor.shape for tensor in made}) > 1:
            raise ValueError(f"pictures come out in sizes {sorted({tuple(t.shape) for t in made})}; pass one at a time")
        return BatchFeature({"pixel_values": torch.stack(made)}, tensor_type="pt")
