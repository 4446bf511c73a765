"""Run a detector fixture through the package and collect every tensor that the fixture names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from mvitv2.data.instances import Instances
from mvitv2.tasks.detect import roi_heads
from mvitv2.tasks.detect.boxes import Size
from mvitv2.tasks.detect.detector import Detector, total
from mvitv2.tasks.detect.matching import given_order
from mvitv2.tasks.detect.preparing import prepared
from mvitv2.tasks.detect.selecting import Detections, Selected

Taps = dict[str, Tensor]


@contextmanager
def module_taps(model: Detector) -> Iterator[Taps]:
    """What modules see and give, under the fixtures' names."""
    found: Taps = {}
    hooks: list[tuple[nn.Module, Callable[..., None]]] = [
        (model.backbone, _backbone(found)),
        (model.proposal_generator.rpn_head, _rpn(found)),
        (model.proposal_generator, _anchors(found)),
    ]
    hooks += [
        (model.backbone.get_submodule(f"fpn_lateral{n}"), _input(found, f"bottom_up.scale{n}")) for n in range(2, 6)
    ]
    for number, (head, predictor) in enumerate(model.roi_heads.heads()):
        hooks += [(head, _pooled(found, f"stage{number}.")), (predictor, _predicted(found, f"stage{number}."))]
    if model.roi_heads.mask_head is not None:
        hooks.append((model.roi_heads.mask_head, _masks(found)))
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        with next_boxes_taps(model, found):
            yield found
    finally:
        for handle in handles:
            handle.remove()


def _backbone(found: Taps) -> Callable[..., None]:
    def record(_module: nn.Module, inputs: Any, output: dict[str, Tensor]) -> None:
        found.update(output, images=inputs[0])

    return record


def _input(found: Taps, name: str) -> Callable[..., None]:
    def record(_module: nn.Module, inputs: Any, _output: Any) -> None:
        found[name] = inputs[0]

    return record


def _rpn(found: Taps) -> Callable[..., None]:
    def record(_module: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        level = f"rpn.p{2 + sum(name.endswith('.objectness') for name in found)}"
        found[f"{level}.objectness"], found[f"{level}.deltas"] = output

    return record


def _anchors(found: Taps) -> Callable[..., None]:
    def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.update({f"anchors.p{number + 2}": level for number, level in enumerate(output.anchors)})

    return record


def _pooled(found: Taps, stage: str) -> Callable[..., None]:
    def record(_module: nn.Module, inputs: Any, output: Tensor) -> None:
        found[stage + "pooled"], found[stage + "features"] = inputs[0], output

    return record


def _predicted(found: Taps, stage: str) -> Callable[..., None]:
    def record(_module: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        found[stage + "logits"], found[stage + "deltas"] = output

    return record


def _masks(found: Taps) -> Callable[..., None]:
    def record(_module: nn.Module, inputs: Any, output: Tensor) -> None:
        found["mask.pooled"], found["mask.logits"] = inputs[0], output

    return record


@contextmanager
def next_boxes_taps(model: Detector, found: Taps) -> Iterator[None]:
    """Boxes that go into a stage and come out of it; scores and masks at the end."""
    heads = model.roi_heads
    next_boxes, scored, masks = heads.next_boxes, heads.scored, heads.masks

    def moved(number: int, deltas: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        result = next_boxes(number, deltas, boxes)
        found[f"stage{number}.proposal_boxes"] = torch.cat(list(boxes))
        found[f"stage{number}.boxes"] = torch.cat(result)
        return result

    def scores(*args: Any) -> tuple[Tensor, list[Tensor]]:
        result = scored(*args)
        found["scores"] = result[0]
        return result

    def drawn(*args: Any) -> Tensor | None:
        result = masks(*args)
        if result is not None:
            found["mask.probs"] = result
        return result

    with patch.multiple(heads, next_boxes=moved, scored=scores, masks=drawn):
        yield


@contextmanager
def results_of(owner: Any, name: str) -> Iterator[list[Any]]:
    """Everything that a function returns while the context lasts."""
    original, found = getattr(owner, name), []

    def recorded(*args: Any, **options: Any) -> Any:
        found.append(original(*args, **options))
        return found[-1]

    with patch.object(owner, name, recorded):
        yield found


class Inference:
    """One run of a fixture's images."""

    def __init__(self, model: Detector, batch: Sequence[dict[str, Any]]):
        self.model, self.images = model, [torch.from_numpy(one["image"]) for one in batch]
        self.wanted: list[Size] = [(one["height"], one["width"]) for one in batch]
        generator, heads = model.proposal_generator, model.roi_heads
        with (
            module_taps(model) as self.taps,
            results_of(generator, "proposals") as proposals,
            results_of(heads, "forward") as found,
        ):
            self.detections: list[Detections] = model(self.images, sizes=self.wanted)
        self.proposals = proposals[0]
        self.selected: list[Selected] = found[0]

    @torch.no_grad()
    def given_proposals(self, proposals: Sequence[Tensor]) -> Taps:
        """The heads alone, on boxes of an order that is fixed."""
        model, sizes = self.model, prepared(self.images, self.model.config, self.model.like)[1]
        with module_taps(model) as found:
            chosen = model.roi_heads(self.levels, proposals, sizes, model.config.selection)
            model.roi_heads.masks(self.levels, [c.boxes for c in chosen], [c.labels for c in chosen])
        return found

    @torch.no_grad()
    def given_detections(self, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Taps:
        """The mask head alone, on boxes of an order that is fixed."""
        with module_taps(self.model) as found:
            self.model.roi_heads.masks(self.levels, boxes, labels)
        return found

    @property
    def levels(self) -> list[Tensor]:
        """The pyramid of the run."""
        return [self.taps[f"p{n}"] for n in range(2, 7)]


class Training:
    """One step of a fixture with targets: losses, what was sampled, and gradients."""

    def __init__(self, model: Detector, batch: Sequence[dict[str, Any]], targets: Sequence[Instances]):
        images = [torch.from_numpy(one["image"]) for one in batch]
        generator, heads = model.proposal_generator, model.roi_heads
        model.train()
        with (
            module_taps(model) as self.taps,
            results_of(generator, "proposals") as proposals,
            results_of(generator, "anchors_asked") as self.anchors,
            results_of(heads, "sampled") as self.sampled,
            results_of(heads, "moved_regions") as moved,
            results_of(roi_heads, "mask_targets") as self.masks,
        ):
            self.losses = model.losses(images, targets, order=given_order)
        self.proposals = proposals[0]
        self.stages = [self.sampled, *moved]
        sum(self.losses.values(), start=self.losses["loss_rpn_cls"].new_zeros(())).backward()
        self.total = total(self.losses)
        self.gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
