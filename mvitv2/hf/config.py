"""A model's configuration as one of transformers: ours is a field of it, and so is the card."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mvitv2.core.config import MViTConfig
from mvitv2.core.model import MViT
from mvitv2.extras import required
from mvitv2.variants import VARIANTS
from mvitv2.weights.folders import MODEL_TYPE, as_stated
from mvitv2.weights.plain import stored_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.backbone_utils import BackboneConfigMixin
else:
    BackboneConfigMixin = required("transformers.backbone_utils", extra="hf").BackboneConfigMixin
    PreTrainedConfig = required("transformers", extra="hf").PreTrainedConfig

DEFAULT = "mvitv2_t"


class MViTv2Config(BackboneConfigMixin, PreTrainedConfig):
    """What ``config.json`` states.

    ``num_labels`` and ``id2label`` are transformers' own, and have the last word on a classifier's number of classes;
    ``out_features`` and ``out_indices`` say which stages a backbone gives, ``stage1`` or 0 first.
    """

    model_type = MODEL_TYPE

    mvit: dict[str, Any] | None = None
    """:meth:`mvitv2.MViTConfig.to_dict`; ``None``: that of ``mvitv2_t``."""
    card: dict[str, Any] | None = None
    """What travels with the weights: classes, preprocessing, provenance."""

    _out_features: list | None = None
    _out_indices: list | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the default model, its stages, and the classes where none are named."""
        config = VARIANTS[DEFAULT] if self.mvit is None else self.ours()
        self.mvit = json.loads(json.dumps(config.to_dict()))
        self.stage_names = [f"stage{number}" for number in range(1, config.num_stages + 1)]
        self.set_output_features_output_indices(kwargs.pop("out_features", None), kwargs.pop("out_indices", None))
        if self.id2label is None and kwargs.get("num_labels") is None:
            kwargs["num_labels"] = config.num_classes
        super().__post_init__(**kwargs)

    @classmethod
    def of(cls, model: MViT) -> "MViTv2Config":
        """The configuration of a model of ours."""
        stated = as_stated(model)
        names = {int(number): name for number, name in stated["id2label"].items()}
        given: dict[str, Any] = {"mvit": stated["mvit"], "card": stated["card"], "label2id": stated["label2id"]}
        return cls(id2label=names, **given)

    def ours(self) -> MViTConfig:
        """The configuration inside.

        Raises:
            DialectError: It makes no model; every offending field is named.
        """
        return stored_config(json.loads(json.dumps(self.mvit)))

    def classifier(self) -> MViTConfig:
        """The same with transformers' number of classes."""
        return replace(self.ours(), num_classes=self.num_labels)
