"""Graphs: compiled whole, exported with any size left open, and without a copy between host and device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.export import Dim, export
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mvitv2.core.config import MViTConfig, Reversible
from mvitv2.core.model import MViT
from mvitv2.core.stages import detection, stages
from tests import tiny

ONE_BLOCK = stages(depths=(1,), embed_dim=8, q_stride=((2, 2),))
"""Strided queries, so that every part of a block is there."""
WINDOW_AND_GLOBAL = detection(stages(depths=(1, 1), embed_dim=8, kv_stride=(2, 2)), 8)
CLIP_BLOCK = stages(depths=(1,), embed_dim=8, kernel=(3, 3, 3), q_stride=((1, 2, 2),), kv_stride=(1, 4, 4))
SMALLEST: dict[str, MViTConfig] = {
    "image": tiny.image(blocks=ONE_BLOCK, input_size=(64, 64)),
    "clip with class token": tiny.clip(blocks=CLIP_BLOCK, input_size=(4, 64, 64), abs_pos="separable"),
    "windows": tiny.detector(blocks=WINDOW_AND_GLOBAL, window_padding="masked"),
    "reversible": tiny.reversible(
        blocks=tiny.reversible().blocks[2:5],
        reversible=Reversible(transitions=(1,), pre_q_fusion="avg"),
        input_size=(64, 64),
        abs_pos="joint",
    ),
}
each_form = pytest.mark.parametrize("config", SMALLEST.values(), ids=SMALLEST)


@pytest.fixture(autouse=True)
def forgotten_graphs() -> Iterator[None]:
    yield
    torch.compiler.reset()


def sample(config: MViTConfig, batch: int = 2, *, size: tuple[int, ...] | None = None) -> Tensor:
    return torch.randn(batch, config.in_channels, *(size or config.input_size))


@each_form
def test_one_graph(config: MViTConfig) -> None:
    """``fullgraph=True`` is an error where the graph breaks."""
    model, x = tiny.model(config), sample(config)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("name", ["masked", "folded"])
def test_one_graph_with_other_backends(name: str) -> None:
    model, x = tiny.model(SMALLEST["image"], name=name), sample(SMALLEST["image"])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_no_break_is_explained() -> None:
    explained = torch._dynamo.explain(tiny.model(SMALLEST["image"]))(sample(SMALLEST["image"]))
    assert explained.graph_break_count == 0 and explained.graph_count == 1


@pytest.mark.parametrize("config", [SMALLEST["image"], SMALLEST["reversible"]], ids=["image", "reversible"])
def test_training_is_one_graph_too(config: MViTConfig) -> None:
    model, x = tiny.model(config, dtype=torch.float64).train(), sample(config).double()
    model.zero_grad()
    model(x).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = None
    torch.compile(model, fullgraph=True, backend="aot_eager")(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and expected[name] is not None
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-7, atol=1e-9)


def test_sizes_do_not_compile_anew_forever() -> None:
    """After the second size the graph holds for all."""
    counter = CompileCounter()
    model = tiny.model(SMALLEST["image"])
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for size in ((64, 64), (96, 80), (72, 100), (60, 132)):
        x = sample(SMALLEST["image"], size=size)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    assert counter.frame_count <= 3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["image", "clip with class token"])
def test_inductor(form: str) -> None:
    model, x = tiny.model(SMALLEST[form]), sample(SMALLEST[form])
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x), rtol=1e-3, atol=1e-4)


def agree(exported: Callable[[Tensor], Tensor], model: MViT, x: Tensor) -> None:
    torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-4)


@each_form
def test_export_of_one_size(config: MViTConfig) -> None:
    model, x = tiny.model(config), sample(config)
    agree(export(model, (x,)).module(), model, x)


@each_form
def test_export_of_any_size(config: MViTConfig) -> None:
    """Batch, height, width and time by name; three sizes of images that were never seen."""
    model, x = tiny.model(config), sample(config)
    names = "thw"[-config.rank :]
    least = {"t": 3, "h": 33, "w": 33}
    open_sizes = {2 + i: Dim(name, min=least[name], max=512) for i, name in enumerate(names)}
    exported = export(model, (x,), dynamic_shapes=({0: Dim("b", min=1, max=64), **open_sizes},)).module()
    for batch, size in ((2, (4, 64, 64)), (1, (7, 72, 49)), (3, (6, 33, 130))):
        agree(exported, model, sample(config, batch, size=size[-config.rank :]))


@pytest.mark.parametrize("name", ["reference", "folded", "auto"])
def test_export_of_a_fixed_batch_of_any_size(name: str) -> None:
    """torch.export cannot name sizes beside a fixed batch, but leaves them open."""
    config = SMALLEST["image"]
    model, x = tiny.model(config, name=name), sample(config)
    exported = export(model, (x,), dynamic_shapes=({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)).module()
    agree(exported, model, sample(config, size=(80, 51)))


@pytest.mark.parametrize("rule", ["anchored", "first_rows"])
def test_export_with_other_rules_for_tables(rule: Any) -> None:
    config = tiny.image(blocks=ONE_BLOCK, input_size=(64, 64), table_resampling=rule)
    model, x = tiny.model(config), sample(config)
    exported = export(model, (x,), dynamic_shapes=({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)).module()
    agree(exported, model, sample(config, size=(60, 40)))


class OnlyOn(TorchDispatchMode):
    """An error where an operation makes a tensor on another device."""

    def __init__(self, device: str):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.device.type != self.device:
                raise AssertionError(f"{func} made a tensor on {value.device}")
        return result


@contextmanager
def nothing_on_the_host() -> Iterator[None]:
    with OnlyOn("meta"):
        yield


@pytest.mark.parametrize("name", ["reference", "masked", "folded", "auto"])
@each_form
def test_no_copies_between_host_and_device(config: MViTConfig, name: str) -> None:
    """Everything a forward pass makes, it makes where the pixels are, at sizes seen for the first time."""
    model = tiny.model(config, name=name).to("meta")
    for size in (config.input_size, tuple(n + 4 for n in config.input_size)):
        x = sample(config, size=size).to("meta")
        with nothing_on_the_host():
            assert model(x).device.type == "meta"
            assert all(level.device.type == "meta" for level, _ in model.trunk(x))


def test_the_watch_notices_a_table_made_on_the_host() -> None:
    with pytest.raises(AssertionError, match="made a tensor on cpu"), nothing_on_the_host():
        torch.arange(2).to("meta")


@each_form
def test_index_tables_are_made_once(config: MViTConfig) -> None:
    if any(block.window for block in config.blocks):
        pytest.skip("not measured for windows")
    model, x = tiny.model(config), sample(config)
    model.trunk(x)
    with torch.profiler.profile() as profile:
        model.trunk(x)
    made = {event.key for event in profile.key_averages() if "arange" in event.key}
    assert not made


@pytest.mark.gpu
@each_form
def test_no_synchronisation_on_a_gpu(config: MViTConfig) -> None:
    model, x = tiny.model(config, name="folded").cuda(), sample(config).cuda()
    model(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(x)
        model(x[..., 4:])
    finally:
        torch.cuda.set_sync_debug_mode("default")
