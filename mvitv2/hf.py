"""MViTv2 as a backbone of Hugging Face transformers, for DETR, Mask2Former and all that takes an ``AutoBackbone``.

>>> from transformers import DetrConfig, DetrForObjectDetection            # doctest: +SKIP
>>> config = DetrConfig(backbone_config=backbone_config("mvitv2_t_det"), num_labels=3)
>>> model = DetrForObjectDetection(config)

Their images are normalised by their processors. Needs the extra ``hf``.
"""

from functools import lru_cache
from typing import Any

from torch import Tensor

from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig
from mvitv2.core.features import FeatureInfo
from mvitv2.core.model import MViT
from mvitv2.core.reversible import build
from mvitv2.extras import required
from mvitv2.models import model_config

MODEL_TYPE = "mvitv2"


def backbone_config(model: str | MViTConfig, **options: Any) -> Any:
    """A configuration that transformers makes a backbone of, also inside that of a detector.

    Args:
        model: A name of :func:`mvitv2.list_models`, or a configuration.
        **options: ``out_features`` (``["stage2", "stage4"]``) or ``out_indices`` from 0; all stages if neither is
            given. For a name also the changes of :func:`mvitv2.create_model`.

    Raises:
        mvitv2.extras.MissingExtra: transformers is not installed.
    """
    chosen = {name: options.pop(name) for name in ("out_features", "out_indices") if name in options}
    config = model_config(model, **options) if isinstance(model, str) else model
    return registered()[0](mvit=config.to_dict(), **(chosen or {"out_indices": list(range(config.num_stages))}))


def with_weights(model: MViT, **options: Any) -> Any:
    """A backbone of transformers that holds the weights of a model of ours; they are shared, not copied.

    Args:
        model: For images.
        **options: As for :func:`backbone_config`.
    """
    theirs = registered()[1](backbone_config(model.config, **options))
    theirs.mvit = model
    return theirs


@lru_cache(maxsize=1)
def registered() -> tuple[type[Any], type[Any]]:
    """The classes of configuration and backbone, which transformers' automatic classes know from now on.

    They are made here and not on import, because their parents come with an extra.
    """
    transformers: Any = required("transformers", extra="hf")
    utils: Any = required("transformers.backbone_utils", extra="hf")
    outputs: Any = required("transformers.modeling_outputs", extra="hf")

    class MViTBackboneConfig(utils.BackboneConfigMixin, transformers.PreTrainedConfig):
        """Ours as JSON, and the stages that are asked for."""

        model_type = MODEL_TYPE
        mvit: dict | None = None
        _out_features: list | None = None
        _out_indices: list | None = None

        def __post_init__(self, **given: Any) -> None:
            config = MViTConfig.from_dict(self.mvit) if self.mvit else model_config("mvitv2_t_det")
            self.mvit = config.to_dict()
            self.stage_names = [f"stage{number}" for number in range(1, config.num_stages + 1)]
            self.set_output_features_output_indices(given.pop("out_features", None), given.pop("out_indices", None))
            super().__post_init__(**given)

    class MViTBackbone(utils.BackboneMixin, transformers.PreTrainedModel):
        """An MViT whose maps transformers' heads take."""

        config_class = MViTBackboneConfig
        base_model_prefix = "mvit"
        main_input_name = "pixel_values"
        has_attentions = False

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            ours = MViTConfig.from_dict(config.mvit)
            self.num_features = FeatureInfo.of(ours).channels()
            self.mvit = build(ours, reference)
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            """Nothing: an MViT draws its own initial values."""

        def forward(self, pixel_values: Tensor, **_options: Any) -> Any:
            """``(B, C, H, W)``, normalised, to the maps of the chosen stages."""
            return outputs.BackboneOutput(feature_maps=tuple(self.mvit.maps(pixel_values, self.out_indices)))

    transformers.AutoConfig.register(MODEL_TYPE, MViTBackboneConfig)
    transformers.AutoBackbone.register(MViTBackboneConfig, MViTBackbone)
    return MViTBackboneConfig, MViTBackbone
