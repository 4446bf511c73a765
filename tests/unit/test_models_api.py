"""Models by name, and the methods that users of timm and torchvision have in their fingers."""

from typing import Any

import pytest
import torch
from torch import nn

import mvitv2
from mvitv2 import is_model, model_info
from mvitv2.aliases import ALIASES, variant_name
from mvitv2.core.model import MViT
from mvitv2.core.pyramid import Features
from mvitv2.core.reversible import ReversibleMViT
from mvitv2.models import backbone, create_model, list_models, model_config, task_of
from mvitv2.variants import VARIANTS
from tests import tiny


def on_meta(name: str, **changes: Any) -> MViT:
    """A model of the full size that takes neither memory nor time."""
    with torch.device("meta"):
        model = create_model(name, **changes)
    assert isinstance(model, MViT)
    return model.eval()


def run(model: nn.Module, *size: int) -> Any:
    return model(torch.empty(2, *size, device="meta"))


def test_names() -> None:
    names = list_models()
    assert names == list(VARIANTS) and len(names) == 27
    assert list_models("mvitv2_?") == ["mvitv2_t", "mvitv2_s", "mvitv2_b", "mvitv2_l"]
    assert list_models("*cls_21k") == ["mvitv2_b_cls_21k", "mvitv2_l_cls_21k", "mvitv2_h_cls_21k"]
    assert list_models("nothing*") == []
    assert set(list_models(aliases=True)) == {*VARIANTS, *ALIASES}
    assert "mvit_v2_s" in list_models("mvit_v*", aliases=True) and "mvit_v2_s" not in list_models("mvit_v*")


def test_patterns_match_tasks_too() -> None:
    assert set(list_models("*video*")) == {n for n in VARIANTS if n.endswith(("16x4", "32x3", "40x3"))}
    assert set(list_models("*det*")) == {n for n in VARIANTS if n.endswith("_det")}
    assert set(list_models("*image*")) == set(VARIANTS) - set(list_models("*video*")) - set(list_models("*det*"))
    for task in ("image", "video", "detection"):
        assert list_models(task=task) == [n for n in VARIANTS if task_of(VARIANTS[n]) == task]


def test_what_is_known_of_a_model() -> None:
    found = model_info("mvitv2_t")
    assert (found.name, found.task, found.input_size, found.num_classes) == ("mvitv2_t", "image", (224, 224), 1000)
    assert found.parameters == sum(p.numel() for p in on_meta("mvitv2_t").parameters())
    assert "mvitv2_tiny" in found.aliases and "mvitv2_small" not in found.aliases
    assert found.top1 == 82.3 and found.source is not None and "facebookresearch/mvit" in found.source
    assert {entry.dialect for entry in found.releases} == {"official", "timm", "mmpretrain"}
    by_timm = model_info("mvitv2_tiny")  # another codebase's name means its own file and its own figures
    assert by_timm.pretrained is not None and by_timm.pretrained.dialect == "timm" and by_timm.top1 == 82.408


def test_a_model_that_nobody_published_says_so() -> None:
    alone = sorted({*list_models()} - {*list_models(pretrained=True)})
    found = model_info(alone[0])
    assert found.pretrained is found.top1 is found.source is None and not any(r.url or r.hub for r in found.releases)
    assert "mvitv2_tiny" in list_models("mvitv2_t*", aliases=True, pretrained=True)


def test_which_names_are_models() -> None:
    assert is_model("mvitv2_t") and is_model("mvit_v2_s") and not is_model("mvitv2_tinny")
    with pytest.raises(ValueError, match="did you mean"):
        model_info("mvitv2_tinny")


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_is_a_model(alias: str) -> None:
    assert variant_name(alias) in VARIANTS and alias not in VARIANTS
    assert model_config(alias) == VARIANTS[ALIASES[alias]]


@pytest.mark.parametrize(
    ("name", "offered"),
    [("mvitv2_tinny", "mvitv2_tiny"), ("mvit_v2_t", "mvit_v2_s"), ("MViTv2-T", "MViTv2_T"), ("mvitv2_s_16x5", "16x4")],
)
def test_near_names_are_offered(name: str, offered: str) -> None:
    with pytest.raises(ValueError, match=f"there is no model '{name}'; did you mean .*{offered}"):
        create_model(name)


def test_nothing_near() -> None:
    with pytest.raises(ValueError, match=r"there is no model 'resnet50'; mvitv2.list_models\(\) names them all"):
        create_model("resnet50")


def test_arguments() -> None:
    model = on_meta(
        "mvitv2_tiny", num_classes=7, in_chans=5, img_size=(96, 64), drop_path_rate=0.25, drop_rate=0.5, norm_stem=True
    )
    config = model.config
    assert (config.num_classes, config.in_channels, config.input_size) == (7, 5, (96, 64))
    assert (config.drop_path, config.head_dropout, config.norm_stem) == (0.25, 0.5, True)
    assert run(model, 5, 96, 64).shape == (2, 7)
    clip = on_meta("mvit_v2_s", img_size=112, num_frames=8)
    assert clip.config.input_size == (8, 112, 112) and run(clip, 3, 8, 112, 112).shape == (2, 400)


def test_a_new_size_has_tables_of_its_own() -> None:
    assert model_config("mvitv2_l_40x3").blocks[0].table_rows is not None
    assert model_config("mvitv2_l_40x3", img_size=312) == VARIANTS["mvitv2_l_40x3"]
    assert {b.table_rows for b in model_config("mvitv2_l_40x3", img_size=224).blocks} == {None}
    tables = on_meta("mvitv2_t", img_size=256).blocks[0]
    assert {n: tuple(p.shape) for n, p in tables.named_parameters() if "rel_pos" in n} == {
        "attn.rel_pos_h": (127, 96),
        "attn.rel_pos_w": (127, 96),
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_frames": 8}, ValueError, "mvitv2_t is a model for images; num_frames=8 needs one for clips"),
        ({"out_indices": (1,)}, ValueError, r"out_indices=\(1,\) needs features_only=True"),
        ({"backend": "flash"}, ValueError, "backend='flash' is none of auto, reference"),
        ({"num_class": 3, "colour": 1}, TypeError, r"\['colour', 'num_class'\] are neither arguments of create_model"),
        ({"drop_path_rate": 1.5}, ValueError, "drop_path=1.5 must be at least 0 and below 1"),
        ({"readout": "class_token"}, ValueError, 'readout="class_token" needs class_token=True'),
        ({"img_size": (224, 224, 3, 1)}, ValueError, "input_size=.* needs 2 numbers"),
        ({"img_size": (4, 224, 224)}, ValueError, "one per axis of input_size"),
        ({"features_only": True, "out_indices": (9,)}, ValueError, "must name stages of 4"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), torch.device("meta"):
        create_model("mvitv2_t", **arguments)


def test_reversible_models_are_built_by_name() -> None:
    assert isinstance(on_meta("rev_mvit_b"), ReversibleMViT)
    assert run(on_meta("REV_MVIT_B_16x4_CONV"), 3, 16, 224, 224).shape == (2, 400)


def test_backbone_in_a_model() -> None:
    with torch.device("meta"):
        features = create_model("mvitv2_t", features_only=True)
    assert isinstance(backbone(features), MViT) and isinstance(backbone(nn.Sequential(features)), MViT)
    with pytest.raises(TypeError, match="Linear holds no MViT"):
        backbone(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "name", ["mvitv2_t", "mvitv2_b_cls", "mvitv2_s_16x4", "mvitv1_b", "rev_mvit_b", "mvitv2_t_det"]
)
def test_features_only(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, features_only=True, out_indices=(-1, 0))
    assert isinstance(model, Features)
    maps = run(model.eval(), 3, *model.model.config.input_size)
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert [224 // m.shape[-1] for m in maps] == model.feature_info.reduction() == [32, 4]


def test_pyramid_of_the_published_sizes() -> None:
    model = on_meta("mvitv2_t")
    assert model.feature_info.channels() == [96, 192, 384, 768] and model.feature_info.reduction() == [4, 8, 16, 32]
    assert model.feature_info.module_name() == ["blocks.0", "blocks.2", "blocks.7", "blocks.9"]


HEADS = {
    "mean": tiny.image(),
    "class token": tiny.image(**tiny.CLASS_TOKEN),
    "mean, then norm": tiny.image(class_token=True, readout="mean_norm"),
    "mean beside a class token": tiny.image(class_token=True),
    "clip": tiny.clip(head_activation="softmax"),
    "reversible": tiny.reversible(),
}


@pytest.mark.parametrize("config", HEADS.values(), ids=HEADS)
def test_forward_is_head_of_features(config: Any) -> None:
    model = tiny.model(config)
    x = tiny.pixels(config)
    tokens = model.forward_features(x)
    assert tokens.ndim == 3 and tokens.shape[2] == model.num_features
    assert torch.equal(model.forward_head(tokens), model(x))
    features = model.forward_head(tokens, pre_logits=True)
    assert features.shape == (2, model.num_features) and torch.equal(model.head(features), model(x))


@pytest.mark.parametrize("config", HEADS.values(), ids=HEADS)
def test_no_classes_give_features(config: Any) -> None:
    model = tiny.model(config)
    x = tiny.pixels(config)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity) and model.config.num_classes == 0
    assert torch.equal(model(x), features)
    assert tiny.model(type(config)(**{**vars(config), "num_classes": 0}))(x).shape == features.shape


def test_a_new_classifier() -> None:
    model = tiny.model(tiny.image(head_dropout=0.5, **tiny.CLASS_TOKEN), dtype=torch.float64)
    before = model.get_classifier()
    assert isinstance(before, nn.Linear) and before.out_features == 5
    model.reset_classifier(11)
    after = model.get_classifier()
    x = tiny.pixels(model.config, dtype=torch.float64)
    assert isinstance(after, nn.Linear) and after.weight.dtype == torch.float64
    assert model(x).shape == (2, 11) and model.config.num_classes == 11 and not model.head.training
    assert after.weight.std().item() == pytest.approx(0.02, rel=0.5) and not after.bias.any()
    assert torch.equal(model(x), model(x)), "no dropout in eval mode"
    assert model.train().head.training


@pytest.mark.parametrize(("pool", "shape"), [("avg", (2, 5)), ("token", (2, 5)), (None, (2, 5)), ("", (2, 7, 5))])
def test_another_readout(pool: str | None, shape: tuple[int, ...]) -> None:
    model = tiny.model(tiny.image(class_token=True))
    model.reset_classifier(5, global_pool=pool)
    assert model(tiny.pixels(model.config)).shape == shape
    assert model.config.readout == {"avg": "norm_mean", "token": "class_token", None: "norm_mean", "": "tokens"}[pool]


def test_readouts_that_cannot_be() -> None:
    model = tiny.model(tiny.image())
    with pytest.raises(ValueError, match="global_pool='max' is none of 'token', 'avg', ''"):
        model.reset_classifier(5, global_pool="max")
    with pytest.raises(ValueError, match='readout="class_token" needs class_token=True'):
        model.reset_classifier(5, global_pool="token")
    assert model(tiny.pixels(model.config)).shape == (2, 5), "an error changes nothing"


def test_a_new_classifier_without_memory() -> None:
    model = on_meta("mvitv2_t")
    model.reset_classifier(3)
    assert run(model, 3, 224, 224).shape == (2, 3)


def test_what_weight_decay_would_harm() -> None:
    model = tiny.model(tiny.clip(abs_pos="separable"))
    still = model.no_weight_decay()
    tables = {f"blocks.{i}.attn.rel_pos_{axis}" for i in range(3) for axis in "thw"}
    assert still == {*tables, "cls_token", "pos_embed_class", "pos_embed_spatial", "pos_embed_temporal"}


def ordinals(model: MViT, *, coarse: bool) -> dict[str, int]:
    """timm's layer of every parameter."""
    manipulate = pytest.importorskip("timm.models._manipulate", reason="timm is a development dependency")
    groups = manipulate.group_parameters(model, model.group_matcher(coarse=coarse))
    return {name: layer for layer, names in groups.items() for name in names}


@pytest.mark.parametrize("form", tiny.FORMS)
@pytest.mark.parametrize("coarse", [False, True])
def test_depth_groups_of_timm(form: str, coarse: bool) -> None:
    config = tiny.FORMS[form]()
    model = tiny.model(config)
    layers = ordinals(model, coarse=coarse)
    assert layers.keys() == {name for name, _ in model.named_parameters()}
    prefix = "rev_backbone.layers." if form == "reversible" else "blocks."
    depth = config.num_stages if coarse else len(config.blocks)
    for name, layer in layers.items():
        if name.startswith(prefix):
            index = int(name.removeprefix(prefix).split(".")[0])
            assert layer == 1 + (config.blocks[index].stage if coarse else index), name
        else:
            place = {"patch_embed": 0, "cls_token": 0, "norm": depth, "output_norms": depth, "head": depth + 1}
            assert layer == place[name.split(".")[0]], name


def test_public_names() -> None:
    assert all(hasattr(mvitv2, name) for name in mvitv2.__all__)
    assert set(mvitv2.__all__) <= set(dir(mvitv2))
    with pytest.raises(AttributeError, match="module 'mvitv2' has no attribute 'create'"):
        _ = mvitv2.create  # type: ignore[attr-defined]


def test_other_numbers_of_channels_train() -> None:
    config = tiny.image(in_channels=1)
    model = tiny.model(config).train()
    model(tiny.pixels(config)).square().mean().backward()
    gradient = model.get_parameter("patch_embed.proj.weight").grad
    assert gradient is not None and gradient.shape == (8, 1, 7, 7) and gradient.any()
