"""What users of timm and DINO have in their fingers works on our models."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import mvitv2
from mvitv2.core.model import MViT
from mvitv2.data.transforms import EvalTransform
from mvitv2.preprocessing import IMAGENET, IMAGENET_TIMM, Preprocessing

from ..e2e.training_job import small_model


def test_layers_are_those_of_forward_intermediates() -> None:
    model, x = small_model().eval(), torch.randn(2, 3, 32, 24)
    _, maps = model.forward_intermediates(x, norm=True)
    for given, expected in ((1, maps[-1:]), (2, maps[-2:]), ([0], maps[:1])):
        found = model.get_intermediate_layers(x, given, reshape=True)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
    (tokens,) = model.get_intermediate_layers(x)
    assert torch.equal(tokens, maps[-1].flatten(2).transpose(1, 2))
    ((_, prefix),) = model.get_intermediate_layers(x, return_prefix_tokens=True)
    assert prefix.shape == (2, 0, tokens.shape[2])


def test_a_class_token_is_apart() -> None:
    model = MViT(replace(small_model().config, class_token=True)).eval()
    x = torch.randn(1, 3, 32, 32)
    ((tokens, prefix),) = model.get_intermediate_layers(x, return_prefix_tokens=True)
    assert prefix.shape[1] == 1
    assert torch.equal(torch.cat((prefix, tokens), dim=1), model.forward_features(x))


@pytest.mark.parametrize("record", [IMAGENET, IMAGENET_TIMM, Preprocessing(size=(96, 96), resize=96, mean=(0.5,) * 3)])
def test_timm_makes_our_transform_of_our_model(record: Preprocessing) -> None:
    data = pytest.importorskip("timm.data")
    model = small_model()
    model.card = {"preprocessing": record.to_dict(), "classes": ["a", "b", "c"]}
    assert model.default_cfg == model.pretrained_cfg and model.pretrained_cfg["num_classes"] == 3
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (210, 300, 3), dtype=np.uint8))
    theirs = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    torch.testing.assert_close(theirs(picture), EvalTransform(record)(picture))
    ours = mvitv2.create_transform(model)
    assert torch.equal(ours(picture), EvalTransform(record)(picture))
    assert mvitv2.create_transform(model, img_size=64)(picture).shape == (3, 64, 64)
