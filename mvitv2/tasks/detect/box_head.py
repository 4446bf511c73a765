"""From the map of a proposal to its class and its box."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvitv2.tasks.detect.boxes import decoded
from mvitv2.tasks.detect.config import DetectorConfig
from mvitv2.tasks.detect.layers import Conv
from mvitv2.tasks.detect.losses import exclusive_loss, federated, separate_loss, steps_loss

MAP_SIDE = 7


class BoxHead(nn.Sequential):
    """Convolutions, then linear layers: ``(N, C, 7, 7) -> (N, D)``."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        channels = config.pyramid_channels
        for number, width in enumerate(config.box_convs, start=1):
            self.add_module(f"conv{number}", Conv(channels, width, config.head_norm))
            channels = width
        self.add_module("flatten", nn.Flatten())
        features = channels * MAP_SIDE**2
        for number, width in enumerate(config.box_layers, start=1):
            self.add_module(f"fc{number}", nn.Linear(features, width))
            self.add_module(f"fc_relu{number}", nn.ReLU())
            features = width


class BoxPredictor(nn.Module):
    """Class logits and steps to the box (detectron2 ``FastRCNNOutputLayers``).

    Args:
        config: Of the detector.
        weights: Of this stage's steps.
    """

    fed_loss_cls_weights: Tensor

    def __init__(self, config: DetectorConfig, weights: Sequence[float]):
        super().__init__()
        self.weights, self.scoring, self.num_classes = tuple(weights), config.scoring, config.num_classes
        self.federated_classes = config.federated_classes
        width = config.box_layers[-1]
        self.cls_score = nn.Linear(width, config.num_classes + 1)
        self.bbox_pred = nn.Linear(width, 4 if config.class_agnostic else 4 * config.num_classes)
        if config.federated_classes:
            self.register_buffer("fed_loss_cls_weights", torch.ones(config.num_classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, D)`` to logits ``(N, classes + 1)``, background last, and steps ``(N, 4)`` or ``(N, 4 classes)``."""
        return self.cls_score(x), self.bbox_pred(x)

    def probabilities(self, logits: Tensor) -> Tensor:
        """``(N, classes + 1)``; the last column means nothing where classes are asked one by one."""
        return logits.sigmoid() if self.scoring == "sigmoid" else logits.softmax(dim=1)

    def boxes(self, deltas: Tensor, starts: Tensor) -> Tensor:
        """Where the steps lead, ``(N, 4)`` or ``(N, 4 classes)``."""
        return decoded(deltas, starts, self.weights)

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See ``losses``."""
        if self.scoring == "softmax":
            return exclusive_loss(logits, labels)
        asked = None
        if self.federated_classes and labels.numel():
            asked = federated(labels, self.fed_loss_cls_weights, self.federated_classes)
        return separate_loss(logits, labels, asked)

    def box_loss(self, deltas: Tensor, starts: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """L1 of the steps of objects, over the number of all rows."""
        objects = (labels < self.num_classes).nonzero().flatten()
        steps = deltas[objects]
        if steps.shape[1] != len(self.weights):
            steps = steps.unflatten(1, (-1, 4))[torch.arange(len(objects), device=steps.device), labels[objects]]
        return steps_loss(steps, starts[objects], targets[objects], self.weights) / max(labels.numel(), 1)
