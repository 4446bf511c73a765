"""MaskFeat: what is hidden, what is to be told, and the model that tells it."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from mvitv2.core.config import MViTConfig, schedule
from mvitv2.core.masked import MaskedMViT, nearest, pretraining, token_stride
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.tasks.hog import hog, hog_targets, num_targets
from mvitv2.train.masking import cube_mask
from mvitv2.variants import VARIANTS
from mvitv2.weights.load import load_into, load_model
from mvitv2.weights.masked import load_masked, save_masked
from mvitv2.weights.rename import DialectError
from tests import tiny

BLOCKS = stages(
    depths=(1, 1, 2), embed_dim=8, kernel=(3, 3, 3), q_stride=(1, 2, 2), kv_stride=(1, 4, 4), expand_in="mlp"
)


def encoder(rank: int = 3) -> MViTConfig:
    """Three stages whose tokens end at 8 pixels: one cell."""
    if rank == 2:
        return pretraining(tiny.image())
    return pretraining(tiny.clip(blocks=BLOCKS))


def masked_model(rank: int = 3) -> MaskedMViT:
    torch.manual_seed(0)
    config = encoder(rank)
    return MaskedMViT(config, num_targets(config)).eval()


def test_histograms_are_those_of_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own cells, bins and norm; with Sobel's filters, and the direction counted from the vertical axis."""
    feature = pytest.importorskip("skimage.feature", reason="an independent HOG: scikit-image, of the extra dev")
    ndimage = pytest.importorskip("scipy.ndimage", reason="comes with scikit-image")

    def swapped(channel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(ndimage.sobel(channel, axis=axis, mode="mirror") for axis in (1, 0))

    monkeypatch.setattr("skimage.feature._hog._hog_channel_gradient", swapped)
    pixels = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    ours = hog(pixels)
    assert ours.shape == (2, 3, 9, 4, 6)
    for picture, histograms in zip(pixels.flatten(0, 1), ours.flatten(0, 1), strict=True):
        theirs = feature.hog(
            picture.numpy(), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(1, 1), block_norm="L2"
        )
        whole = torch.from_numpy(theirs.reshape(4, 6, 9)).permute(2, 0, 1)
        torch.testing.assert_close(histograms, whole, rtol=0, atol=1e-7)  # theirs adds 1e-5 to lengths


@pytest.mark.parametrize("horizontal, bin", [(True, 4), (False, 0)])
def test_a_slope_has_one_direction(horizontal: bool, bin: int) -> None:
    """Brightness that grows to the right changes across the vertical axis: half way round."""
    slope = torch.arange(64.0).expand(1, 1, 64, 64)
    cells = hog(slope if horizontal else slope.transpose(2, 3))[0, 0, :, 2:-2, 2:-2]
    expected = torch.zeros(9, 4, 4)
    expected[bin] = 1
    torch.testing.assert_close(cells, expected)


def test_what_stands_still_has_no_direction_and_contrast_does_not_matter() -> None:
    assert not hog(torch.full((1, 3, 16, 16), 0.3)).any()
    pixels = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(hog(pixels), hog((pixels - 0.45) / 0.225))
    assert hog(pixels).norm(dim=2).allclose(torch.ones(1, dtype=torch.float64))


def test_a_token_is_told_the_cells_it_covers() -> None:
    config = pretraining(VARIANTS["maskfeat_s_16x4"])
    assert token_stride(config) == (2, 16, 16)
    assert num_targets(config) == 108
    clip = torch.randn(2, 3, 4, 32, 48)
    targets = hog_targets(clip, config).unflatten(1, (2, 2, 3))
    cells = hog(clip[:, :, 2])
    # second pair of frames, second row, third column of tokens; colours, bins, then the four cells row by row
    here = targets[1, 1, 1, 2].view(3, 9, 2, 2)
    torch.testing.assert_close(here, cells[1, :, :, 2:4, 4:6])
    with pytest.raises(ValueError, match=r"pictures of \(40, 48\) pixels are no whole number of tokens"):
        hog_targets(torch.randn(1, 3, 2, 40, 48), config)
    with pytest.raises(ValueError, match="a token covers 4 x 4 pixels"):
        num_targets(pretraining(tiny.clip()))


def test_images_are_told_likewise() -> None:
    config = encoder(2)
    targets = hog_targets(torch.randn(2, 3, 32, 48), config)
    assert targets.shape == (2, 4 * 6, num_targets(config))


def test_cubes_hide_the_share_that_is_asked_for() -> None:
    counts = []
    for seed in range(60):
        mask = cube_mask((8, 7, 7), 0.4, Random(seed))
        assert mask.shape == (8, 7, 7)
        assert (mask == cube_mask((8, 7, 7), 0.4, Random(seed))).all()
        counts.append(int(mask.sum()))
    assert max(counts) == 157  # round(0.4 * 392), SlowFast's comment
    assert min(counts) >= 140
    assert cube_mask((14, 14), 0.4, Random(0)).shape == (14, 14)
    assert not cube_mask((8, 7, 7), 0.0, Random(0)).any()


def test_masks_on_other_grids_repeat_cells() -> None:
    mask = torch.rand(2, 8, 7, 7) < 0.4
    fine = nearest(mask, (8, 56, 56))
    assert torch.equal(fine[:, :, ::8, ::8], mask)
    assert torch.equal(fine.unflatten(3, (7, 8)).any(dim=4), fine.unflatten(3, (7, 8)).all(dim=4))


@pytest.mark.parametrize("rank", [2, 3])
def test_hidden_patches_are_not_seen(rank: int) -> None:
    """All hidden, two different inputs are told the same; with nothing hidden they are not."""
    model = masked_model(rank)
    a, b = tiny.pixels(model.config, batch=1), tiny.pixels(model.config, batch=1)
    grid = (1,) * rank
    hidden, open_ = torch.ones(1, *grid, dtype=torch.bool), torch.zeros(1, *grid, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(model(a, hidden), model(b, hidden))
        assert not torch.equal(model(a, open_), model(b, open_))
        assert model(a, open_).shape == hog_targets(a, model.config).shape
        assert model(a).shape == (1, model.config.num_features)


def test_the_encoder_of_pretraining() -> None:
    """Tokens of 16 pixels to the end, keys pooled as in the stage before; tables of 27 rows where 13 are needed."""
    for name in ("maskfeat_s_16x4", "maskfeat_l_16x4"):
        last = schedule(pretraining(VARIANTS[name]))[-1]
        assert (last.q_grid, last.kv_grid, last.dim_out) == (
            (8, 14, 14),
            (8, 7, 7),
            VARIANTS[name].blocks[-1].dim_out,
        )
    with pytest.raises(ValueError, match=r"num_classes=5.*use pretraining\(config\)"):
        MaskedMViT(tiny.clip(), 108)


def test_the_mask_token_learns_with_the_stem_and_does_not_decay() -> None:
    from mvitv2.train.optim import parameter_groups

    groups = parameter_groups(masked_model(), weight_decay=0.1, layer_decay=0.5)
    found = next(group for group in groups if "mask_token" in group.names)
    assert (found.depth, found.weight_decay) == (0, 0.0)
    head = next(group for group in groups if "pred_head.projections.0.weight" in group.names)
    assert head.lr_scale == 1.0


@pytest.mark.parametrize("dialect", ["mvitv2", "slowfast"])
def test_written_and_read_again(tmp_path: Path, dialect: str) -> None:
    model = masked_model()
    path = save_masked(model, tmp_path / "pretrained.pyth", dialect=dialect)
    again = load_masked(path)
    pixels, mask = tiny.pixels(model.config), torch.rand(2, 2, 3, 3) < 0.4
    with torch.no_grad():
        torch.testing.assert_close(again(pixels, mask), model(pixels, mask))
    plain = load_model(path)
    assert isinstance(plain, MViT)
    assert any("left out 5 tensors" in note or "left out 7 tensors" in note for note in plain.card["loading"])
    with torch.no_grad():
        torch.testing.assert_close(plain.forward_features(pixels), model.forward_features(pixels))


def test_released_names(tmp_path: Path) -> None:
    from mvitv2.weights import files

    names = files.read(save_masked(masked_model(), tmp_path / "x.pyth", dialect="slowfast")).tensors
    new = {n for n in names if not n.startswith(("blocks.", "patch_embed.", "cls_token"))}
    assert new == {
        "mask_token",
        "pred_head.transforms.0.0.weight",
        "pred_head.transforms.0.0.bias",
        "pred_head.projections.0.weight",
        "pred_head.projections.0.bias",
        "hogs.0.weight_x",
        "hogs.0.weight_y",
    }
    with pytest.raises(ValueError, match="dialect='timm' has no names for mask token and head"):
        save_masked(masked_model(), tmp_path / "x.pth", dialect="timm")


def test_published_files_are_known_without_their_settings() -> None:
    from mvitv2.weights.opened import open_weights

    for name in ("maskfeat_s_16x4", "maskfeat_l_16x4"):
        config = pretraining(VARIANTS[name])
        with torch.device("meta"):
            state = MaskedMViT(config, 108).state_dict()
        assert open_weights(state).config == config


def test_a_classifier_starts_from_the_encoder(tmp_path: Path) -> None:
    """The last stage's tables become shorter, the last norm and the classifier start fresh, the rest is carried."""
    masked = masked_model()
    path = save_masked(masked, tmp_path / "pretrained.pyth", dialect="slowfast")
    model = load_into(MViT(tiny.clip(blocks=BLOCKS, readout="mean_norm")), path)
    said = " ".join(model.card["loading"])
    for part in ("relative position tables resampled", "norm before the classifier starts fresh", "a new one of 5"):
        assert part in said
    after, before = model.state_dict(), masked.state_dict()
    assert torch.equal(after["norm.weight"], torch.ones(32))
    assert torch.equal(after["blocks.2.attn.qkv.weight"], before["blocks.2.attn.qkv.weight"])


@pytest.mark.parametrize("rank", [2, 3])
def test_the_loss_falls(rank: int) -> None:
    """Stripes are the same all over a picture, so that what is hidden follows from what is seen."""
    pytest.importorskip("av", reason="the module of the job reads clips: the extra video")
    from mvitv2.data.samples import Batch
    from mvitv2.train.maskfeat import MaskFeat, Masks
    from mvitv2.train.recipe import Recipe

    model = masked_model(rank).train()
    recipe = Recipe(seed=1, warmup_epochs=0.0, mask_window=(2, 4, 4)[3 - rank :])
    objective = MaskFeat(Masks(recipe, model.config))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(30):
        torch.manual_seed(step)
        stripes = torch.sin(torch.arange(48.0) * 1.3 + 6 * torch.rand(8, 1, 1, 1)).expand(8, 3, 48, 48)
        pictures = torch.where(torch.rand(8, 1, 1, 1) < 0.5, stripes, stripes.transpose(2, 3))
        pixels = pictures[..., : tiny.image().input_size[0], :] if rank == 2 else pictures[:, :, None, :32, :32]
        pixels = pixels if rank == 2 else pixels.expand(-1, -1, 4, -1, -1)
        loss = objective(model, Batch(pixels, torch.zeros(8, dtype=torch.int64), ()), step)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        losses.append(loss.total.item() / loss.count)
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert loss.count == 8


def test_masks_follow_from_seed_and_place() -> None:
    pytest.importorskip("av", reason="the module of the job reads clips: the extra video")
    from mvitv2.train.maskfeat import Masks, usual_window
    from mvitv2.train.recipe import Recipe

    config, cpu = pretraining(VARIANTS["maskfeat_s_16x4"]), torch.device("cpu")
    assert usual_window(config) == (8, 7, 7)
    assert usual_window(pretraining(VARIANTS["mvitv2_s"])) == (14, 14)
    masks = Masks(Recipe(seed=3), config)
    assert torch.equal(masks(2, 5, cpu), masks(2, 5, cpu))
    assert not torch.equal(masks(2, 5, cpu), masks(2, 6, cpu))
    with pytest.raises(ValueError, match="needs 3 numbers, one per axis"):
        Masks(Recipe(mask_window=(7, 7)), config)


def test_what_is_no_pretraining_is_refused() -> None:
    with pytest.raises(DialectError, match="expected mask_token and pred_head"):
        load_masked(tiny.model(tiny.clip()).state_dict())
