"""What holds for whole models: images are clips of one frame, a batch is its samples, and any size runs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mvitv2.core.config import MViTConfig
from mvitv2.core.grid import Grid
from mvitv2.core.stages import stages
from tests import tiny

ONE_FRAME: dict[str, Any] = {
    "blocks": stages(depths=(1, 2, 1), embed_dim=8, kernel=(1, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 4, 4)),
    "input_size": (1, 32, 48),
    "patch_kernel": (1, 7, 7),
    "patch_stride": (1, 4, 4),
    "patch_padding": (0, 3, 3),
}
CONVENTIONS: dict[str, dict[str, Any]] = {
    "released": {},
    "class token, absolute positions": {**tiny.CLASS_TOKEN, "abs_pos": "joint"},
    "max pooling": {"pool_mode": "max"},
    "average pooling, pooled first": {"pool_mode": "avg", "pool_first": True},
    "unshared": {"pool_mode": "conv_unshared", "pool_first": True},
    "dense, separate": {"pool_mode": "conv_dense", "separate_qkv": True},
    "batch norm": {"norm": "batch", "final_norm": False},
    "paper, layer scale, norm after patches": {"position_scale": "paper", "layer_scale": 0.5, "norm_stem": True},
}


def with_time_axis(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """An image model's weights in the shapes of a clip model's; where time has a table, it has one row, of zeros."""
    found = {name: value.unsqueeze(2) if value.ndim == 4 else value for name, value in state.items()}
    return {name: found[name] if name in found else torch.zeros_like(value) for name, value in like.items()}


@pytest.mark.parametrize("changes", CONVENTIONS.values(), ids=CONVENTIONS)
def test_image_is_a_clip_of_one_frame(changes: dict[str, Any]) -> None:
    image, clip = tiny.model(tiny.image(**changes)), tiny.model(tiny.image(**{**ONE_FRAME, **changes}))
    clip.load_state_dict(with_time_axis(image.state_dict(), clip.state_dict()))
    # joint tables of clips are resampled trilinearly, those of images bicubically, each as the peers do
    for size in ((32, 48),) if "abs_pos" in changes else ((32, 48), (40, 36)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(clip(x[:, :, None]), image(x), rtol=0, atol=0)
        maps, frames = image.forward_intermediates(x)[1], clip.forward_intermediates(x[:, :, None])[1]
        for image_map, clip_map in zip(maps, frames, strict=True):
            torch.testing.assert_close(clip_map[:, :, 0], image_map, rtol=0, atol=0)


@pytest.mark.parametrize("form", tiny.FORMS)
def test_batch_of_two_is_two_batches_of_one(form: str) -> None:
    config = tiny.FORMS[form]()
    model, x = tiny.model(config, dtype=torch.float64), tiny.pixels(config, 2, dtype=torch.float64)
    both = model.forward_features(x)
    one_by_one = torch.cat([model.forward_features(sample[None]) for sample in x])
    torch.testing.assert_close(both, one_by_one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", tiny.FORMS)
def test_samples_do_not_see_each_other(form: str) -> None:
    config = tiny.FORMS[form]()
    model, x = tiny.model(config), tiny.pixels(config, 2).requires_grad_()
    model.forward_features(x)[0].square().sum().backward()
    assert x.grad is not None and x.grad[0].any() and not x.grad[1].any()


@pytest.mark.parametrize("form", tiny.FORMS)
def test_empty_batch(form: str) -> None:
    config = tiny.FORMS[form]()
    assert tiny.model(config)(tiny.pixels(config, 0)).shape[0] == 0


IMAGE_SIZES = [(32, 48), (64, 64), (1, 1), (4, 4), (5, 200), (37, 29), (33, 31), (96, 7)]
CLIP_SIZES = [(4, 32, 32), (1, 32, 32), (9, 24, 40), (3, 17, 33), (2, 1, 1), (16, 64, 64)]
POSITIONS: dict[str, tuple[MViTConfig, list[Grid]]] = {
    "relative": (tiny.image(), IMAGE_SIZES),
    "relative, anchored": (tiny.image(table_resampling="anchored"), IMAGE_SIZES),
    "joint": (tiny.image(abs_pos="joint", rel_pos_spatial=False), IMAGE_SIZES),
    "joint with class token": (tiny.image(abs_pos="joint", **tiny.CLASS_TOKEN), IMAGE_SIZES),
    "none": (tiny.image(rel_pos_spatial=False), IMAGE_SIZES),
    "clip": (tiny.clip(), CLIP_SIZES),
    "clip, joint": (tiny.clip(abs_pos="joint"), CLIP_SIZES),
    "clip, separable": (tiny.clip(abs_pos="separable", rel_pos_spatial=False, rel_pos_temporal=False), CLIP_SIZES),
    "windows": (tiny.detector(), [(64, 64), (40, 100), (33, 17), (1, 1), (96, 128)]),
    "masked windows": (tiny.detector(window_padding="masked"), [(64, 64), (40, 100), (33, 17), (1, 1)]),
    "reversible": (tiny.reversible(abs_pos="joint"), [(32, 48), (64, 20), (5, 5), (37, 51)]),
}


@pytest.mark.parametrize(("config", "sizes"), POSITIONS.values(), ids=POSITIONS)
def test_one_model_runs_at_any_size(config: MViTConfig, sizes: list[Grid]) -> None:
    model = tiny.model(config)
    for size in sizes:
        x = torch.randn(1, 3, *size, requires_grad=True)
        y = model.forward_features(x)
        assert y.isfinite().all()
        grid, prefix = model.trunk(x)[-1][1], int(config.class_token)
        assert y.shape[1] == prefix + torch.Size(grid).numel()
        y.square().mean().backward()
        assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()


@pytest.mark.parametrize(("config", "sizes"), POSITIONS.values(), ids=POSITIONS)
def test_another_size_in_between_leaves_no_trace(config: MViTConfig, sizes: list[Grid]) -> None:
    model = tiny.model(config)
    x = torch.randn(1, 3, *sizes[0])
    before = model(x)
    model(torch.randn(1, 3, *sizes[1]))
    assert torch.equal(model(x), before)
