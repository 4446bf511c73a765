"""MViTv2 as a backbone of transformers; images are normalised by the processors of the models around it."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from mvitv2.core.attend import reference
from mvitv2.core.config import MViTConfig
from mvitv2.core.features import FeatureInfo
from mvitv2.core.model import MViT
from mvitv2.core.reversible import build
from mvitv2.extras import required
from mvitv2.hf.config import MViTv2Config
from mvitv2.models import model_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.backbone_utils import BackboneMixin
    from transformers.modeling_outputs import BackboneOutput
else:
    PreTrainedModel = required("transformers", extra="hf").PreTrainedModel
    BackboneMixin = required("transformers.backbone_utils", extra="hf").BackboneMixin
    BackboneOutput = required("transformers.modeling_outputs", extra="hf").BackboneOutput


class MViTv2Backbone(BackboneMixin, PreTrainedModel):
    """An MViT whose maps transformers' heads take.

    Args:
        config: Of a model for images, with the stages that are asked for.
    """

    config_class = MViTv2Config
    base_model_prefix = "mvit"
    main_input_name = "pixel_values"
    has_attentions = False

    def __init__(self, config: MViTv2Config):
        super().__init__(config)
        ours = config.ours()
        self.num_features = FeatureInfo.of(ours).channels()
        self.mvit = build(ours, reference)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Nothing: an MViT draws its own initial values."""

    def forward(self, pixel_values: Tensor, **_: Any) -> "BackboneOutput":
        """``(B, C, H, W)``, normalised, to the maps of the chosen stages."""
        maps: Any = tuple(self.mvit.maps(pixel_values, self.out_indices))  # they say a tuple of one
        return BackboneOutput(feature_maps=maps)


def backbone_config(model: str | MViTConfig, **options: Any) -> MViTv2Config:
    """A configuration that transformers makes a backbone of, also inside that of a detector.

    Args:
        model: A name of :func:`mvitv2.list_models`, or a configuration.
        **options: ``out_features`` (``["stage2", "stage4"]``) or ``out_indices`` from 0; all stages if neither is
            given. For a name also the changes of :func:`mvitv2.create_model`.
    """
    chosen = {name: options.pop(name) for name in ("out_features", "out_indices") if name in options}
    config = model_config(model, **options) if isinstance(model, str) else model
    return MViTv2Config(mvit=config.to_dict(), **(chosen or {"out_indices": list(range(config.num_stages))}))


def with_weights(model: MViT, **options: Any) -> MViTv2Backbone:
    """A backbone of transformers that holds the weights of a model of ours; they are shared, not copied.

    Args:
        model: For images.
        **options: As for :func:`backbone_config`.
    """
    theirs = MViTv2Backbone(backbone_config(model.config, **options))
    theirs.mvit = model
    return theirs
