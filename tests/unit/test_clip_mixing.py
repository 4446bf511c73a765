"""Mixup and cutmix of clips do to every frame what they do to a picture."""

from dataclasses import replace

import pytest
import torch

from mvitv2.train.mixing import Mixing
from mvitv2.train.recipes import recipe


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_every_frame_is_mixed_as_a_picture_is(mixup, cutmix):
    pytest.importorskip("timm", reason="needs timm, the extra train")
    mixing = Mixing(replace(recipe("imagenet_t"), mixup=mixup, cutmix=cutmix), num_classes=5)
    clips, labels = torch.randn(5, 3, 4, 16, 20), torch.arange(5)
    mixed, soft = mixing(clips, labels, 3)
    assert mixed.shape == clips.shape and not torch.equal(mixed, clips)
    for frame in range(4):
        pictures, same = mixing(clips[:, :, frame].contiguous(), labels, 3)
        torch.testing.assert_close(mixed[:, :, frame], pictures, rtol=0, atol=0)
        torch.testing.assert_close(soft, same, rtol=0, atol=0)
