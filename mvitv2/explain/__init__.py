"""Where a model looks: attention followed back through the pooling strides to pixels, and Grad-CAM.

>>> import torch, mvitv2
>>> from mvitv2.explain import attention_map
>>> model = mvitv2.create_model("mvitv2_t", num_classes=10, img_size=64)
>>> attention_map(model, torch.randn(1, 3, 64, 64)).shape
torch.Size([1, 64, 64])
"""

from mvitv2.explain.overlay import overlay
from mvitv2.explain.rollout import BlockAttention, block_attention, block_map, on_pixels, rollout
from mvitv2.explain.scores import attention_map, grad_cam, readout_weights

__all__ = [
    "BlockAttention",
    "attention_map",
    "block_attention",
    "block_map",
    "grad_cam",
    "on_pixels",
    "overlay",
    "readout_weights",
    "rollout",
]
