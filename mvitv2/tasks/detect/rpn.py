"""The region proposal network: where objects may be (Ren et al. 2015; detectron2 ``proposal_generator/rpn.py``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvitv2.data.instances import Instances
from mvitv2.tasks.detect.anchors import level_anchors
from mvitv2.tasks.detect.boxes import Size, clipped, decoded, precise, suppressed, with_area
from mvitv2.tasks.detect.config import DetectorConfig, ProposalConfig
from mvitv2.tasks.detect.layers import Conv
from mvitv2.tasks.detect.losses import steps_loss
from mvitv2.tasks.detect.matching import NEGATIVE, POSITIVE, Order, matched, random_order, sampled

WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Guesses:
    """What the RPN says of all anchors: per level, finest first."""

    logits: list[Tensor]
    """``(B, N)`` objectness."""
    deltas: list[Tensor]
    """``(B, N, 4)``, steps from anchors to objects."""
    anchors: list[Tensor]
    """``(N, 4)``."""


@dataclass(frozen=True)
class Proposals:
    """Boxes of one image that may hold objects, best first."""

    boxes: Tensor
    """``(N, 4)``, inside the image."""
    logits: Tensor
    """``(N,)`` objectness."""


class RPNHead(nn.Module):
    """Convolutions, then objectness and steps per anchor; one head for all levels."""

    def __init__(self, channels: int, convs: int, num_anchors: int):
        super().__init__()
        layers = [Conv(channels, channels) for _ in range(convs)]
        named = nn.Sequential()
        for number, layer in enumerate(layers):
            named.add_module(f"conv{number}", layer)
        self.conv = layers[0] if convs == 1 else named
        self.objectness_logits = nn.Conv2d(channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * num_anchors, 1)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` to objectness ``(B, A, H, W)`` and steps ``(B, 4 A, H, W)``, one anchor after another."""
        x = self.conv(level)
        return self.objectness_logits(x), self.anchor_deltas(x)


class ProposalGenerator(nn.Module):
    """From a pyramid to proposals, and the two losses of the RPN."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config: ProposalConfig = config.proposals
        self.strides = config.strides
        num_anchors = len(self.config.aspect_ratios)
        self.rpn_head = RPNHead(config.pyramid_channels, self.config.convs, num_anchors)

    def forward(self, levels: Sequence[Tensor]) -> Guesses:
        """Levels ``(B, C, H, W)``, finest first, to guesses about all anchors; those on padding included."""
        logits, deltas, anchors = [], [], []
        for level, stride, size in zip(levels, self.strides, self.config.anchor_sizes, strict=True):
            objectness, steps = self.rpn_head(level)
            logits.append(precise(objectness).permute(0, 2, 3, 1).flatten(1))
            deltas.append(precise(steps).unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3))
            grid, like = (level.shape[2], level.shape[3]), logits[-1]
            anchors.append(level_anchors(grid, stride, size, self.config.aspect_ratios, like.dtype, like.device))
        return Guesses(logits, deltas, anchors)

    @torch.no_grad()
    def proposals(self, guesses: Guesses, sizes: Sequence[Size], *, training: bool = False) -> list[Proposals]:
        """The best boxes of every image; no gradient goes through them.

        Args:
            guesses: Of :meth:`forward`.
            sizes: Of the images before padding.
            training: Take the numbers for training, and refuse guesses that are not finite.
        """
        boxes, logits, places = [], [], []
        most = self.config.best_per_level[0 if training else 1]
        for number, level in enumerate(zip(guesses.logits, guesses.deltas, guesses.anchors, strict=True)):
            best, index = level[0].topk(min(most, level[0].shape[1]), dim=1)
            steps = level[1].gather(1, index[:, :, None].expand(-1, -1, 4))
            boxes.append(decoded(steps.flatten(0, 1), level[2][index.flatten()], WEIGHTS).unflatten(0, index.shape))
            logits.append(best)
            places.append(torch.full_like(index[0], number))
        level_of = torch.cat(places)
        images = zip(torch.cat(boxes, dim=1), torch.cat(logits, dim=1), sizes, strict=True)
        return [self.chosen(found, scores, level_of, size, training) for found, scores, size in images]

    def chosen(self, boxes: Tensor, logits: Tensor, level_of: Tensor, size: Size, training: bool) -> Proposals:
        """What is left of one image's candidates after clipping and suppression within every level."""
        finite = boxes.isfinite().all(dim=1) & logits.isfinite()
        if training and not finite.all():
            raise FloatingPointError(
                f"{int((~finite).sum())} of {len(finite)} proposals are not finite: training has diverged; "
                "lower the learning rate, or train in float32"
            )
        boxes, logits, level_of = boxes[finite], logits[finite], level_of[finite]
        boxes = clipped(boxes, size)
        sides = with_area(boxes, self.config.min_side)
        boxes, logits, level_of = boxes[sides], logits[sides], level_of[sides]
        kept = suppressed(boxes, logits, level_of, self.config.nms_iou)
        kept = kept[: self.config.best_per_image[0 if training else 1]]
        return Proposals(boxes[kept], logits[kept])

    def losses(
        self, guesses: Guesses, targets: Sequence[Instances], *, order: Order = random_order
    ) -> Mapping[str, Tensor]:
        """Objectness of the sampled anchors, and steps of those that stand for an object."""
        anchors = torch.cat(guesses.anchors)
        logits, deltas = torch.cat(guesses.logits, dim=1), torch.cat(guesses.deltas, dim=1)
        divisor = self.config.batch_per_image * len(targets)
        scores, steps = logits.new_zeros(()), logits.new_zeros(())
        for image, target in enumerate(targets):
            objects = target.boxes.to(anchors)
            index, positive, negative = self.anchors_asked(objects, anchors, order)
            asked = torch.cat((positive, negative))
            truth = (torch.arange(asked.shape[0], device=asked.device) < positive.shape[0]).to(logits.dtype)
            scores = scores + F.binary_cross_entropy_with_logits(logits[image, asked], truth, reduction="sum")
            aims = objects[index[positive]]
            steps = steps + steps_loss(deltas[image, positive], anchors[positive], aims, WEIGHTS)
        return {"loss_rpn_cls": scores / divisor, "loss_rpn_loc": steps / divisor}

    @torch.no_grad()
    def anchors_asked(self, objects: Tensor, anchors: Tensor, order: Order) -> tuple[Tensor, Tensor, Tensor]:
        """The object of every anchor ``(N,)``, and the indices of the anchors sampled as objects and as background."""
        config = self.config
        index, labels = matched(
            objects, anchors, negative=config.negative_iou, positive=config.positive_iou, best_too=True
        )
        count, fraction = config.batch_per_image, config.positive_fraction
        chosen = sampled(labels == POSITIVE, labels == NEGATIVE, count=count, fraction=fraction, order=order)
        return index, *chosen
