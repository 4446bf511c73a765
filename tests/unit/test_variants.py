"""Published architectures: the parameter counts and operations that their authors report, and their conventions."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig, schedule
from mvitv2.core.reversible import build
from mvitv2.core.stages import stages
from mvitv2.models import model_config
from mvitv2.variants import VARIANTS
from mvitv2.weights.peers.slowfast import slowfast_config

# counted on the authors' own models
PARAMETERS = {
    "mvitv2_t": 24_173_320,
    "mvitv2_s": 34_870_216,
    "mvitv2_b": 51_472_744,
    "mvitv2_l": 217_992_952,
    "mvitv2_s_cls": 34_870_312,
    "mvitv2_b_cls": 51_472_840,
    "mvitv2_l_cls": 213_635_512,
    "mvitv2_h_cls": 666_879_912,
    "mvitv2_b_cls_21k": 65_444_032,
    "mvitv2_l_cls_21k": 234_583_216,
    "mvitv2_h_cls_21k": 694_804_128,
    "mvitv2_s_16x4": 34_537_744,
    "mvitv2_b_32x3": 51_230_128,
    "mvitv2_l_40x3": 213_390_112,
    "maskfeat_s_16x4": 36_475_120,
    "maskfeat_l_16x4": 217_578_064,
    "mvitv1_b": 36_982_600,
    "mvitv1_b_16x4": 36_610_672,
    "rev_mvit_b": 39_689_320,
}
GIGA_OPERATIONS = {
    "mvitv2_t": 4.7,
    "mvitv2_s": 7.0,
    "mvitv2_b": 10.2,
    "mvitv2_l": 43.87,
    "mvitv2_l_cls": 42.17,
    "mvitv2_h_cls": 120.6,
    "mvitv2_s_16x4": 64.2,
    "mvitv1_b_16x4": 70.5,
    "rev_mvit_b": 8.7,
}
"""Multiplications and additions as one, in milliards; the numbers of the papers and of timm and torchvision."""


def on_meta(config: MViTConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return build(config, reference).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    assert sum(p.numel() for p in on_meta(VARIANTS[name]).parameters()) == PARAMETERS[name]


def test_first_version_of_24_blocks_is_what_slowfast_builds() -> None:
    """``configs/Kinetics/MVIT_B_32x3_CONV.yaml``: kernels follow from strides; 53.1 million weights."""
    doubled = [[2, 2.0], [5, 2.0], [21, 2.0]]
    cfg: dict[str, Any] = {
        "MVIT": {
            "PATCH_PADDING": [1, 3, 3],
            "SEP_POS_EMBED": True,
            "DEPTH": 24,
            "DROPPATH_RATE": 0.3,
            "DIM_MUL": doubled,
            "HEAD_MUL": doubled,
            "POOL_Q_STRIDE": [[2, 1, 2, 2], [5, 1, 2, 2], [21, 1, 2, 2]],
            "POOL_KV_STRIDE_ADAPTIVE": [1, 8, 8],
        },
        "MODEL": {"NUM_CLASSES": 400, "HEAD_ACT": "none"},
        "DATA": {"NUM_FRAMES": 32, "TRAIN_CROP_SIZE": 224},
    }
    config = VARIANTS["mvitv1_b24_32x3"]
    assert config == slowfast_config(cfg)
    assert sum(p.numel() for p in on_meta(config).parameters()) == pytest.approx(53.1e6, rel=1e-3)
    assert len(config.blocks) == 24 and config.blocks[0].kv_kernel == (1, 9, 9)


@pytest.mark.parametrize("name", GIGA_OPERATIONS)
def test_operations(name: str) -> None:
    """torch counts products of matrices and convolutions; the authors' counter adds a little more."""
    config = VARIANTS[name]
    model = on_meta(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, config.in_channels, *config.input_size, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(GIGA_OPERATIONS[name], rel=0.02)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_runs_at_its_size(name: str) -> None:
    config = VARIANTS[name]
    model = on_meta(config)
    y = model(torch.empty(1, config.in_channels, *config.input_size, device="meta"))
    assert y.shape == (1, config.num_classes or config.num_features)


@pytest.mark.parametrize("name", VARIANTS)
def test_head_width_is_constant(name: str) -> None:
    widths = {spec.head_dim for spec in schedule(VARIANTS[name])}
    assert widths == ({72} if "_l" in name else {64} if "_h" in name else {96})


STAGE_STARTS = {"t": (1, 3, 8), "s": (1, 3, 14), "b": (2, 5, 21), "l": (2, 8, 44), "h": (4, 12, 72)}


@pytest.mark.parametrize("name", [n for n in VARIANTS if n.startswith("mvitv2")])
def test_where_stages_start(name: str) -> None:
    blocks = VARIANTS[name].blocks
    starts = tuple(i for i, b in enumerate(blocks) if max(b.q_stride) > 1)
    assert starts == STAGE_STARTS[name.split("_")[1]]
    assert all(b.q_kernel and b.kv_kernel and set(b.kv_kernel) == {3} for b in blocks)


CONVENTIONS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "image": (
        ["mvitv2_t", "mvitv2_s", "mvitv2_b", "mvitv2_l"],
        {"class_token": False, "readout": "norm_mean", "abs_pos": "none", "init": "image", "residual_pooling": "grid"},
    ),
    "class token": (
        ["mvitv2_s_cls", "mvitv2_b_cls_21k", "mvitv2_l_cls_21k", "mvitv2_h_cls_21k"],
        {"class_token": True, "readout": "class_token", "position_scale": "code"},
    ),
    "video": (
        ["mvitv2_s_16x4", "mvitv2_b_32x3", "mvitv2_l_40x3"],
        {"class_token": True, "position_axes": "thw", "init": "video", "head_dropout": 0.5, "num_classes": 400},
    ),
    "MaskFeat": (
        ["maskfeat_s_16x4", "maskfeat_l_16x4"],
        {"readout": "mean_norm", "head_init_scale": 0.001, "head_dropout": 0.0, "class_token": True},
    ),
    "first version": (
        ["mvitv1_b", "mvitv1_b_16x4", "mvitv1_b_32x3", "mvitv1_b24_32x3"],
        {"position_axes": "", "residual_pooling": "none", "class_token": True},
    ),
    "reversible": (
        ["rev_mvit_b", "rev_mvit_b_16x4"],
        {"class_token": False, "readout": "norm_mean", "num_features": 1536, "position_axes": ""},
    ),
    "detection": (
        ["mvitv2_t_det", "mvitv2_s_det", "mvitv2_b_det", "mvitv2_l_det", "mvitv2_h_det"],
        {"num_classes": 0, "final_norm": False, "output_norms": (0, 1, 2, 3), "window_padding": "attended"},
    ),
}


@pytest.mark.parametrize(("names", "fields"), CONVENTIONS.values(), ids=CONVENTIONS)
def test_conventions(names: list[str], fields: dict[str, Any]) -> None:
    for name in names:
        assert {field: getattr(VARIANTS[name], field) for field in fields} == fields, name


def test_where_channels_double() -> None:
    """In the MLP for the L of ImageNet-1K, MaskFeat and the first version, in attention everywhere else."""
    in_mlp = {name for name, c in VARIANTS.items() if any(b.dim_out != b.dim_attn for b in c.blocks)}
    first = {name for name in VARIANTS if name.startswith("mvitv1")}
    assert in_mlp == {"mvitv2_l", "maskfeat_s_16x4", "maskfeat_l_16x4", *first}


def test_positions_of_the_first_version() -> None:
    kinds = {name: VARIANTS[name].abs_pos for name in VARIANTS if VARIANTS[name].abs_pos != "none"}
    joint = {"mvitv1_b", "rev_mvit_b"}
    separable = {"mvitv1_b_16x4", "mvitv1_b_32x3", "mvitv1_b24_32x3", "rev_mvit_b_16x4"}
    assert kinds == {**dict.fromkeys(joint, "joint"), **dict.fromkeys(separable, "separable")}


DROP_PATH = {
    "mvitv2_t": 0.1,
    "mvitv2_s": 0.1,
    "mvitv2_b": 0.3,
    "mvitv2_l": 0.5,
    "mvitv2_s_16x4": 0.2,
    "mvitv2_b_32x3": 0.3,
    "mvitv2_l_40x3": 0.75,
    "mvitv1_b": 0.1,
    "mvitv1_b_16x4": 0.2,
    "rev_mvit_b": 0.1,
    "rev_mvit_b_16x4": 0.05,
    "mvitv2_t_det": 0.2,
    "mvitv2_b_det": 0.4,
    "mvitv2_h_det": 0.6,
}


def test_stochastic_depth_of_the_recipes() -> None:
    assert {name: VARIANTS[name].drop_path for name in DROP_PATH} == DROP_PATH


def test_reversible_transitions() -> None:
    for name in ("rev_mvit_b", "rev_mvit_b_16x4"):
        form = VARIANTS[name].reversible
        assert form is not None and form.transitions == (1, 3, 14) and form.path_fusion == "concat"


def test_a_variant_is_a_few_numbers() -> None:
    assert VARIANTS["mvitv2_t"] == MViTConfig(blocks=stages(depths=(1, 2, 5, 2)), drop_path=0.1)
    assert model_config("mvitv2_tiny", drop_path_rate=0.0) == MViTConfig(blocks=stages(depths=(1, 2, 5, 2)))
