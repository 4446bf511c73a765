"""The heads that look at one proposal at a time: classes and boxes, stage after stage, and masks.

A cascade (Cai and Vasconcelos 2018; detectron2 ``cascade_rcnn.py``) starts every stage from the boxes of the one
before it. Mask R-CNN is the cascade of one stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvitv2.data.instances import Instances
from mvitv2.tasks.detect import box_head, mask_head
from mvitv2.tasks.detect.boxes import Size, clipped, precise, with_area
from mvitv2.tasks.detect.config import DetectorConfig, Selection
from mvitv2.tasks.detect.mask_targets import mask_targets
from mvitv2.tasks.detect.matching import POSITIVE, Order, matched, random_order, sampled
from mvitv2.tasks.detect.pooling import pooled
from mvitv2.tasks.detect.selecting import Selected, selected

Levels = Sequence[Tensor]
"""Maps ``(B, C, H, W)`` of strides 4, 8, 16, 32, ..."""


@dataclass(frozen=True)
class Regions:
    """Boxes of one image and what they stand for in training."""

    boxes: Tensor
    """``(N, 4)``."""
    labels: Tensor
    """``(N,)``, the number of classes for background."""
    objects: Tensor
    """``(N,)``, which object each overlaps most; 0 where the image has none."""
    aims: Tensor
    """``(N, 4)``, that object's box; the box itself where the image has none."""


class RoIHeads(nn.Module):
    """Box heads and predictors of every stage, and the mask head, under detectron2's names."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config = config
        heads = [box_head.BoxHead(config) for _ in config.stages]
        predictors = [box_head.BoxPredictor(config, stage.box_weights) for stage in config.stages]
        alone = config.family == "mask_rcnn"
        self.box_head = heads[0] if alone else nn.ModuleList(heads)
        self.box_predictor = predictors[0] if alone else nn.ModuleList(predictors)
        self.mask_head = mask_head.MaskHead(config) if config.masks else None

    def heads(self) -> list[tuple[nn.Module, box_head.BoxPredictor]]:
        """Box head and predictor of every stage."""
        heads = [self.box_head] if len(self.config.stages) == 1 else list(self.box_head.children())
        predictors = [m for m in self.box_predictor.modules() if isinstance(m, box_head.BoxPredictor)]
        return list(zip(heads, predictors, strict=True))

    def stage(self, number: int, levels: Levels, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and steps of one stage, for boxes per image; see :class:`~.box_head.BoxPredictor`."""
        head, predictor = self.heads()[number]
        maps = pooled(levels[: self.config.backbone.num_stages], boxes, box_head.MAP_SIDE)
        if self.training and len(self.config.stages) > 1:
            maps = ScaledGradient.apply(maps, 1 / len(self.config.stages))
        return predictor(head(maps))

    def next_boxes(self, number: int, deltas: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Where a stage moves its boxes, per image; they may leave the image."""
        predictor = self.heads()[number][1]
        moved = predictor.boxes(deltas, torch.cat(list(boxes)))
        return list(moved.split([one.shape[0] for one in boxes]))

    def forward(
        self, levels: Levels, proposals: Sequence[Tensor], sizes: Sequence[Size], selection: Selection
    ) -> list[Selected]:
        """Detections of every image from boxes ``(N, 4)`` per image: scores are the mean over the stages."""
        scores, moved = self.scored(levels, proposals, sizes)
        split = scores.split([one.shape[0] for one in proposals])
        return [selected(b, s, size, selection) for b, s, size in zip(moved, split, sizes, strict=True)]

    def scored(self, levels: Levels, proposals: Sequence[Tensor], sizes: Sequence[Size]) -> tuple[Tensor, list[Tensor]]:
        """Probabilities of all proposals ``(sum N, classes + 1)``, and the last stage's boxes per image."""
        starts, moved, total = list(proposals), list(proposals), None
        for number, (_, predictor) in enumerate(self.heads()):
            if number:
                starts = [clipped(one, size) for one, size in zip(moved, sizes, strict=True)]
            logits, deltas = self.stage(number, levels, starts)
            moved = self.next_boxes(number, deltas, starts)
            scores = predictor.probabilities(precise(logits))
            total = scores if total is None else total + scores
        if total is None:
            raise ValueError("a detector without stages gives no scores")
        return total * (1 / len(self.config.stages)), moved

    def masks(self, levels: Levels, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor | None:
        """Mask probabilities ``(sum N, 28, 28)`` of boxes and their classes; ``None`` without a mask head."""
        if self.mask_head is None:
            return None
        maps = pooled(levels[: self.config.backbone.num_stages], boxes, mask_head.MAP_SIDE)
        return mask_head.of_classes(precise(self.mask_head(maps)), torch.cat(list(labels))).sigmoid()

    def losses(
        self,
        levels: Levels,
        proposals: Sequence[Tensor],
        targets: Sequence[Instances],
        sizes: Sequence[Size],
        *,
        order: Order = random_order,
    ) -> Mapping[str, Tensor]:
        """Class and box losses of every stage, and the mask loss, for sampled proposals of every image."""
        first = [self.sampled(one, target, order) for one, target in zip(proposals, targets, strict=True)]
        regions, losses = first, {}
        for number, (_, predictor) in enumerate(self.heads()):
            boxes, labels, aims = (torch.cat([getattr(r, n) for r in regions]) for n in ("boxes", "labels", "aims"))
            logits, deltas = self.stage(number, levels, [r.boxes for r in regions])
            suffix = "" if self.config.family == "mask_rcnn" else f"_stage{number}"
            losses[f"loss_cls{suffix}"] = predictor.class_loss(logits, labels)
            losses[f"loss_box_reg{suffix}"] = predictor.box_loss(deltas, boxes, labels, aims)
            if number + 1 < len(self.config.stages):
                regions = self.moved_regions(number, deltas, regions, targets, sizes)
        return losses if self.mask_head is None else {**losses, "loss_mask": self.mask_loss(levels, first, targets)}

    @torch.no_grad()
    def sampled(self, proposals: Tensor, target: Instances, order: Order) -> Regions:
        """Proposals of an image, and its objects as proposals too: as many as the recipe says, objects first."""
        config = self.config
        objects = target.boxes.to(proposals)
        boxes = torch.cat((proposals, objects)) if config.add_objects else proposals
        all_regions = self.regions(boxes, target, config.stages[0].iou)
        background = all_regions.labels == config.num_classes
        count, fraction = config.batch_per_image, config.positive_fraction
        chosen = torch.cat(sampled(~background, background, count=count, fraction=fraction, order=order))
        return Regions(*(getattr(all_regions, name)[chosen] for name in ("boxes", "labels", "objects", "aims")))

    def regions(self, boxes: Tensor, target: Instances, iou: float) -> Regions:
        """What boxes stand for: the object each overlaps most, if by at least ``iou``, else background."""
        objects, labels = target.boxes.to(boxes), target.labels.to(boxes.device)
        index, enough = matched(objects, boxes, negative=iou, positive=iou)
        if not len(target):
            return Regions(boxes, torch.full_like(index, self.config.num_classes), index, boxes)
        classes = torch.where(enough == POSITIVE, labels[index], self.config.num_classes)
        return Regions(boxes, classes, index, objects[index])

    @torch.no_grad()
    def moved_regions(
        self,
        number: int,
        deltas: Tensor,
        regions: Sequence[Regions],
        targets: Sequence[Instances],
        sizes: Sequence[Size],
    ) -> list[Regions]:
        """Regions of the next stage: a stage's boxes, clipped, those without area dropped, and matched anew."""
        moved = self.next_boxes(number, deltas.detach(), [r.boxes for r in regions])
        inside = [clipped(one, size) for one, size in zip(moved, sizes, strict=True)]
        kept = [one[with_area(one)] for one in inside]
        iou = self.config.stages[number + 1].iou
        return [self.regions(one, target, iou) for one, target in zip(kept, targets, strict=True)]

    def mask_loss(self, levels: Levels, regions: Sequence[Regions], targets: Sequence[Instances]) -> Tensor:
        """The loss of the masks of all sampled proposals that stand for an object."""
        truth, boxes, labels = [], [], []
        for region, target in zip(regions, targets, strict=True):
            rows = region.labels < self.config.num_classes
            boxes.append(region.boxes[rows])
            labels.append(region.labels[rows])
            truth.append(mask_targets(target, region.objects[rows], boxes[-1], mask_head.MASK_SIDE))
        if self.mask_head is None:
            raise ValueError("this detector has no mask head")
        logits = self.mask_head(pooled(levels[: self.config.backbone.num_stages], boxes, mask_head.MAP_SIDE))
        return mask_head.mask_loss(logits, torch.cat(labels), torch.cat(truth))


class ScaledGradient(torch.autograd.Function):
    """The identity whose gradient is scaled: all stages of a cascade together pull at the features as one would."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: float) -> Tensor:
        """``x`` as it is."""
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient times the scale."""
        return gradients[0] * ctx.scale, None
