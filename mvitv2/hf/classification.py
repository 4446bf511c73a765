"""A classifier of images as a model of transformers; its logits are those of the MViT inside."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mvitv2.core.attend import reference
from mvitv2.core.model import MViT
from mvitv2.core.reversible import build
from mvitv2.extras import required
from mvitv2.hf.config import MViTv2Config
from mvitv2.kernels import use

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import ImageClassifierOutput
else:
    PreTrainedModel = required("transformers", extra="hf").PreTrainedModel
    ImageClassifierOutput = required("transformers.modeling_outputs", extra="hf").ImageClassifierOutput


class MViTv2ForImageClassification(PreTrainedModel):
    """An MViT with what transformers expects around it.

    Args:
        config: Of a classifier of images.

    Raises:
        ValueError: It is of a model for clips, or without classes.
    """

    config_class = MViTv2Config
    base_model_prefix = "mvit"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: MViTv2Config):
        super().__init__(config)
        ours = config.classifier()
        if ours.rank != len("hw") or not ours.num_classes:
            kind = "takes clips" if ours.rank != len("hw") else "has no classifier"
            raise ValueError(f"this model {kind}; {type(self).__name__} is for classifiers of images")
        self.mvit = use(build(ours, reference), "auto")
        self.mvit.card = dict(config.card or {})
        self.post_init()

    @classmethod
    def of(cls, model: MViT) -> "MViTv2ForImageClassification":
        """A model of ours, with its own parameters, in the same mode."""
        made = cls(MViTv2Config.of(model))
        made.mvit = model
        return made.train(model.training)

    def _init_weights(self, module: nn.Module) -> None:
        """Parameters that no file holds: an MViT draws its own as it is built, a new classifier is drawn here."""
        if isinstance(module, nn.Linear):
            super()._init_weights(module)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = None, every_n_layers: int = 1
    ) -> None:
        """transformers' switch for our own, which has its own function and is for all blocks or none.

        Raises:
            ValueError: Only some of the blocks are meant.
        """
        if every_n_layers != 1:
            raise ValueError(
                f"every_n_layers={every_n_layers}: an MViT keeps the activations of all its blocks or of none"
            )
        self.mvit.set_grad_checkpointing(enable)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> "ImageClassifierOutput | tuple[Any, ...]":
        """``(B, C, H, W)`` to logits ``(B, num_labels)``, and the loss where there are labels.

        Args:
            pixel_values: What the image processor gives.
            labels: ``(B,)``, or ``(B, num_labels)`` for several classes a picture.
            output_hidden_states: The feature map of every stage as well, ``(B, C', H', W')`` each.
            return_dict: ``False``: a tuple.
        """
        maps: tuple[Tensor, ...] | None = None
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if wanted:
            tokens, found = self.mvit.forward_intermediates(pixel_values)
            logits, maps = self.mvit.forward_head(tokens), tuple(found)
        else:
            logits = self.mvit(pixel_values)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return tuple(value for value in (loss, logits, maps) if value is not None)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=maps)
