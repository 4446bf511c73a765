"""Levels of the pyramid: their data, the stages one may ask for, and maps without the class token."""

from typing import Any

import pytest
import torch

from mvitv2.core.features import as_maps, chosen_stages
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import Features
from tests import tiny


@pytest.mark.parametrize(
    ("wanted", "stages"),
    [
        (None, (0, 1, 2, 3)),
        (1, (3,)),
        (2, (2, 3)),
        ((0, -1), (0, 3)),
        ([2], (2,)),
        ((3, 1), (3, 1)),
        (range(2), (0, 1)),
    ],
)
def test_stages_one_may_ask_for(wanted: Any, stages: tuple[int, ...]) -> None:
    assert chosen_stages(wanted, 4) == stages


@pytest.mark.parametrize("wanted", [0, 5, (4,), (-5,), (), (0, 7)])
def test_stages_that_do_not_exist(wanted: Any) -> None:
    with pytest.raises(ValueError, match=r"must name stages of 4: 0 to 3, or negative from the end"):
        chosen_stages(wanted, 4)


def test_maps_leave_the_class_token_out() -> None:
    x = torch.arange(14.0).reshape(1, 7, 2)
    assert as_maps(x, (2, 3))[0, 0].tolist() == [[2, 4, 6], [8, 10, 12]]
    assert torch.equal(as_maps(x[:, 1:], (2, 3)), as_maps(x, (2, 3)))


def intermediates(model: MViT, x: torch.Tensor, **options: Any) -> Any:
    return model.forward_intermediates(x, **options)


@pytest.mark.parametrize("form", tiny.FORMS)
def test_data_are_what_maps_are(form: str) -> None:
    model = tiny.model(tiny.FORMS[form]())
    info, x = model.feature_info, torch.randn(1, 3, *model.config.input_size[:-2], 64, 64)
    maps = intermediates(model, x, intermediates_only=True)
    assert [m.shape[1] for m in maps] == info.channels()
    assert [64 // m.shape[-1] for m in maps] == info.reduction()
    assert [64 // m.shape[-2] for m in maps] == info.reduction()
    assert len(maps) == len(info) == model.config.num_stages
    modules = dict(model.named_modules())
    assert all(name in modules for name in info.module_name())
    assert info[0] == {"num_chs": info.channels()[0], "reduction": 4, "module": info.module_name()[0]}


@pytest.mark.parametrize("readout", ["norm_mean", "mean_norm", "class_token"])
def test_intermediates(readout: Any) -> None:
    model = tiny.model(tiny.image(class_token=True, readout=readout))
    x = tiny.pixels(model.config)
    tokens, maps = intermediates(model, x)
    assert torch.equal(tokens, model.forward_features(x)) and len(maps) == 3
    last, grid = model.trunk(x)[-1]
    assert torch.equal(maps[-1], as_maps(last, grid))
    only = intermediates(model, x, indices=(-1, 0), norm=True, intermediates_only=True)
    assert torch.equal(only[0], as_maps(model.norm(last), grid)) and torch.equal(only[1], maps[0])
    assert [m.shape for m in intermediates(model, x, indices=1)[1]] == [maps[-1].shape]
    with pytest.raises(ValueError, match="out_indices"):
        intermediates(model, x, indices=(3,))


@pytest.mark.parametrize("form", tiny.FORMS)
def test_backbone_as_a_list_of_maps(form: str) -> None:
    config = tiny.FORMS[form]()
    model = tiny.model(config)
    x = tiny.pixels(config)
    expected = intermediates(model, x, intermediates_only=True)
    features = Features(model, (-1, 0))
    found = features(x)
    assert torch.equal(found[0], expected[-1]) and torch.equal(found[1], expected[0])
    assert features.feature_info.channels() == [m.shape[1] for m in found]
    assert features.feature_info.out_indices == (config.num_stages - 1, 0)
    assert not [name for name, _ in features.named_parameters() if name.startswith(("model.norm.", "model.head"))]
