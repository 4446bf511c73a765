"""The model that training starts from, for tasks whose weights may come from another task: images, pre-training."""

from collections.abc import Mapping
from inspect import signature
from typing import Any, cast

from mvitv2.core.config import BlockConfig, MViTConfig
from mvitv2.core.model import MViT
from mvitv2.core.stages import stages
from mvitv2.models import create_model, model_config
from mvitv2.train.recipe import Recipe
from mvitv2.train.values import near
from mvitv2.weights.adapt import Inflation
from mvitv2.weights.load import load_into, load_model
from mvitv2.weights.opened import open_weights


def started(recipe: Recipe, *, num_classes: int, channels: int, num_frames: int) -> tuple[MViT, dict[str, Any]]:
    """The clip model before the first step, and the card of the weights it starts from.

    Weights of a clip classifier bring their own architecture, at the recipe's size. Weights of images, of MaskFeat's
    pre-training and of models without a last norm are carried over into ``recipe.model``: kernels inflated in time by
    ``recipe.inflation``, tables resampled, a classifier drawn anew.

    Args:
        recipe: Model, weights, size, drop path.
        num_classes: 0 for none.
        channels: Of a frame.
        num_frames: Of a clip.

    Raises:
        ValueError: The model is none of clips, or other weights do not fit it.
    """
    size = (recipe.img_size, recipe.img_size)
    rate: dict[str, Any] = {} if recipe.drop_path is None else {"drop_path": recipe.drop_path}
    given: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels, "img_size": size}
    if recipe.weights not in (None, "pretrained"):
        config = open_weights(recipe.weights).config
        if is_clip_classifier(config):
            refuse_other_architecture(recipe)
            model = load_model(recipe.weights, num_frames=num_frames, **given, **rate)
            return clips_only(recipe, model)
    model = clip_model(recipe, num_frames=num_frames, **given, **rate)
    if recipe.weights == "pretrained":
        from mvitv2.weights.pretrained import load_pretrained

        load_pretrained(model, recipe.model)
    elif recipe.weights is not None:
        load_into(model, recipe.weights, inflation=cast("Inflation", recipe.inflation))
    return clips_only(recipe, model)


def is_clip_classifier(config: MViTConfig) -> bool:
    """Whether weights are of a model that tells clips apart, whole."""
    return config.rank == len("thw") and config.num_classes > 0 and config.final_norm


def refuse_other_architecture(recipe: Recipe) -> None:
    """Refuse an architecture beside weights that bring their own.

    Raises:
        ValueError: The recipe has one.
    """
    if recipe.stages or recipe.model_fields:
        raise ValueError(
            f"weights={recipe.weights!r} bring their own architecture; leave out stages={recipe.stages} and "
            f"model_fields={recipe.model_fields}"
        )


def blocks_of(shape: Mapping[str, Any]) -> tuple[BlockConfig, ...]:
    """The blocks of a recipe's ``stages``.

    Raises:
        ValueError: It has other fields than :func:`mvitv2.core.stages.stages`, or not all that are needed.
    """
    known = signature(stages).parameters
    wrong = [f"no field of stages: {name!r}{near(name, known)}" for name in shape if name not in known]
    wrong += [f"stages needs {name}" for name, one in known.items() if one.default is one.empty and name not in shape]
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}; there are {', '.join(known)}")
    return stages(**shape)


def named_config(recipe: Recipe, **given: Any) -> MViTConfig:
    """The configuration of ``recipe.model`` with the recipe's blocks and fields.

    Args:
        recipe: Model, stages, fields.
        **given: For :func:`mvitv2.models.model_config`.
    """
    blocks = {"blocks": blocks_of(recipe.stages)} if recipe.stages else {}
    return model_config(recipe.model, **{**given, **recipe.model_fields, **blocks})


def clip_model(recipe: Recipe, **given: Any) -> MViT:
    """A fresh model of :func:`named_config`.

    Raises:
        ValueError: ``recipe.model`` is no model of clips.
    """
    blocks = {"blocks": blocks_of(recipe.stages)} if recipe.stages else {}
    return clips_only(recipe, create_model(recipe.model, **{**given, **recipe.model_fields, **blocks}))[0]


def clips_only(recipe: Recipe, model: Any) -> tuple[MViT, dict[str, Any]]:
    """The model without its card, and the card.

    Raises:
        ValueError: It is none of clips.
    """
    if not isinstance(model, MViT) or model.config.rank != len("thw"):
        told = recipe.model if recipe.weights is None else f"{recipe.model} with weights {recipe.weights}"
        raise ValueError(f"task='video' trains models of clips, such as mvitv2_s_16x4; {told} is none")
    card, model.card = model.card, {}
    return model, card
