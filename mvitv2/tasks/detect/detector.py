"""The whole detector: images in, boxes, classes and masks out; with targets, the losses of training.

>>> model = Detector(DETECTORS["cascade_mask_rcnn_mvitv2_t"])          # doctest: +SKIP
>>> losses = model.train()(images, targets)                            # a dict; their sum is what training minimises
>>> found = model.eval()(images, sizes=[(480, 640)])                   # a list of Detections, one per image

``images`` is a list of ``(3, H, W)`` tensors, red, green, blue of 0..255, of mixed sizes, not normalised. ``targets``
is a list of :class:`~mvitv2.data.instances.Instances`, in the coordinates of these images. ``sizes`` says in which
height and width each image's detections are wanted, its own if not given: a data set that shrinks an image passes the
size it had.
"""

from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from mvitv2.core.attend import Attend, reference
from mvitv2.core.pyramid import PyramidBackbone
from mvitv2.core.reversible import build
from mvitv2.data.instances import Instances
from mvitv2.tasks.detect.boxes import Size
from mvitv2.tasks.detect.config import DetectorConfig, Selection
from mvitv2.tasks.detect.initial import init_detector
from mvitv2.tasks.detect.matching import Order, random_order
from mvitv2.tasks.detect.pasting import pasted, rescaled
from mvitv2.tasks.detect.preparing import prepared
from mvitv2.tasks.detect.roi_heads import RoIHeads
from mvitv2.tasks.detect.rpn import ProposalGenerator
from mvitv2.tasks.detect.selecting import Detections

Losses = dict[str, Tensor]


class Detector(nn.Module):
    """MViTv2, a feature pyramid, an RPN, and box and mask heads; parameters have detectron2's names.

    Args:
        config: What the detector is.
        attend: Attention backend of the backbone.
    """

    def __init__(self, config: DetectorConfig, attend: Attend = reference):
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        bottom_up = build(config.backbone, attend)
        self.backbone = PyramidBackbone(bottom_up, config.pyramid_channels, norm=config.pyramid_norm)
        self.proposal_generator = ProposalGenerator(config)
        self.roi_heads = RoIHeads(config)
        init_detector(self)

    @overload
    def forward(self, images: Sequence[Tensor], targets: Sequence[Instances], sizes: None = None) -> Losses: ...
    @overload
    def forward(
        self,
        images: Sequence[Tensor],
        targets: None = None,
        sizes: Sequence[Size] | None = None,
        selection: Selection | None = None,
    ) -> list[Detections]: ...
    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Instances] | None = None,
        sizes: Sequence[Size] | None = None,
        selection: Selection | None = None,
    ) -> Losses | list[Detections]:
        """Losses where there are targets, detections where there are none.

        Args:
            images: ``(3, H, W)`` each, red, green, blue of 0..255.
            targets: Objects of every image.
            sizes: Height and width that detections are wanted in; the images' own if not given.
            selection: Other thresholds than the configuration's.

        Raises:
            ValueError: A detector in training mode was given no targets, or lists have other lengths.
        """
        if targets is not None:
            return self.losses(images, targets)
        if self.training:
            raise ValueError("a detector in training mode needs targets; call eval() for detections")
        return self.detections(images, sizes, selection)

    def losses(self, images: Sequence[Tensor], targets: Sequence[Instances], *, order: Order = random_order) -> Losses:
        """All losses by name, to be summed.

        Args:
            images: As for :meth:`forward`.
            targets: Likewise.
            order: Which anchors and proposals are sampled first; random in training.
        """
        if len(images) != len(targets):
            raise ValueError(
                f"{len(images)} images and {len(targets)} targets; an image without objects has empty ones"
            )
        batch, sizes = prepared(images, self.config, self.like)
        levels = list(self.backbone(batch).values())
        guesses = self.proposal_generator(levels)
        proposals = self.proposal_generator.proposals(guesses, sizes, training=self.training)
        boxes = [found.boxes for found in proposals]
        of_boxes = self.roi_heads.losses(levels, boxes, targets, sizes, order=order)
        return {**of_boxes, **self.proposal_generator.losses(guesses, targets, order=order)}

    @torch.no_grad()
    def detections(
        self,
        images: Sequence[Tensor],
        sizes: Sequence[Size] | None = None,
        selection: Selection | None = None,
    ) -> list[Detections]:
        """What is in the images; see :meth:`forward`."""
        batch, own = prepared(images, self.config, self.like)
        wanted = own if sizes is None else list(sizes)
        if len(wanted) != len(own):
            raise ValueError(f"{len(own)} images and {len(wanted)} sizes")
        levels = list(self.backbone(batch).values())
        guesses = self.proposal_generator(levels)
        boxes = [found.boxes for found in self.proposal_generator.proposals(guesses, own)]
        found = self.roi_heads(levels, boxes, own, selection or self.config.selection)
        masks = self.roi_heads.masks(levels, [f.boxes for f in found], [f.labels for f in found])
        split = [None] * len(found) if masks is None else masks.split([len(f.boxes) for f in found])
        results = []
        for one, mask, size, target in zip(found, split, own, wanted, strict=True):
            moved, kept = rescaled(one.boxes, size, target)
            drawn = None if mask is None else pasted(mask[kept], moved, target)
            results.append(Detections(moved, one.scores[kept], one.labels[kept], drawn))
        return results

    @property
    def like(self) -> Tensor:
        """A parameter whose device and type the pixels take."""
        return next(self.backbone.parameters())

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Depth groups of the backbone (:meth:`mvitv2.core.model.MViT.group_matcher`); the rest is the head."""
        inner, place = self.backbone.bottom_up.group_matcher(coarse), r"^backbone\.bottom_up\."
        blocks = [(pattern.replace("^", place, 1), member) for pattern, member in inner["blocks"]]
        return {"stem": inner["stem"].replace("^", place, 1), "blocks": blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: keep no activations inside the backbone's blocks."""
        self.backbone.bottom_up.set_grad_checkpointing(enable)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """What training minimises: the sum of all losses, each with weight 1."""
    return torch.stack([loss.float() for loss in losses.values()]).sum()
