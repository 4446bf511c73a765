"""The feature pyramid network on top of the backbone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mvitv2.core.pyramid import NormedConv, PyramidBackbone
from tests import tiny


@pytest.mark.parametrize("norm", ["", "LN"])
@pytest.mark.parametrize("size", [(64, 64), (96, 40), (33, 75)])
def test_levels(norm: str, size: tuple[int, int]) -> None:
    pyramid = PyramidBackbone(tiny.model(tiny.detector()), 6, norm=norm)
    levels = pyramid(torch.randn(2, 3, *size))
    assert list(levels) == ["p2", "p3", "p4"]
    for stride, level in zip((4, 8, 16), levels.values(), strict=True):
        assert level.shape == (2, 6, *(-(-n // stride) for n in size))


@pytest.mark.parametrize(("fuse", "scale"), [("sum", 1.0), ("avg", 0.5)])
def test_coarse_levels_are_added_to_fine_ones(fuse: str, scale: float) -> None:
    pyramid = PyramidBackbone(tiny.model(tiny.detector()), 6, fuse=fuse)
    fine, coarse = torch.randn(1, 8, 4, 4), torch.randn(1, 16, 2, 2)
    levels = pyramid.top_down([fine, coarse])
    top = pyramid.get_submodule("fpn_lateral3")(coarse)
    below = pyramid.get_submodule("fpn_lateral2")(fine)
    below = (below + F.interpolate(top, scale_factor=2.0)) * scale
    torch.testing.assert_close(levels["p3"], pyramid.get_submodule("fpn_output3")(top))
    torch.testing.assert_close(levels["p2"], pyramid.get_submodule("fpn_output2")(below))
    assert torch.equal(levels["p4"], levels["p3"][:, :, ::2, ::2])


def test_odd_levels_are_doubled_and_cut() -> None:
    pyramid = PyramidBackbone(tiny.model(tiny.detector()), 6)
    fine, coarse = torch.zeros(1, 8, 5, 7), torch.randn(1, 16, 3, 4)
    nn.init.zeros_(pyramid.get_parameter("fpn_lateral2.bias"))
    doubled = F.interpolate(pyramid.get_submodule("fpn_lateral3")(coarse), scale_factor=2.0)[:, :, :5, :7]
    expected = pyramid.get_submodule("fpn_output2")(doubled)
    torch.testing.assert_close(pyramid.top_down([fine, coarse])["p2"], expected)


def test_chosen_stages_keep_their_numbers() -> None:
    pyramid = PyramidBackbone(tiny.model(tiny.detector()), 6, stages=(-1,))
    assert list(pyramid(torch.randn(1, 3, 64, 64))) == ["p3", "p4"]
    assert {name.split(".")[0] for name, _ in pyramid.named_parameters()} == {
        "bottom_up",
        "fpn_lateral3",
        "fpn_output3",
    }


def test_norm_is_over_channels_and_replaces_the_bias() -> None:
    conv = NormedConv(3, 5, 1, "LN")
    assert conv.bias is None and isinstance(conv.norm, nn.LayerNorm) and conv.norm.eps == 1e-6
    y = conv(torch.randn(2, 3, 4, 6))
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 4, 6), atol=1e-5, rtol=0)
    assert NormedConv(3, 5, 3, "").bias is not None


def test_unknown_words() -> None:
    with pytest.raises(ValueError, match="fuse='max' is none of 'sum', 'avg'"):
        PyramidBackbone(tiny.model(tiny.detector()), 6, fuse="max")
    with pytest.raises(ValueError, match="norm='BN' of the pyramid is neither '' nor 'LN'"):
        NormedConv(3, 5, 1, "BN")
