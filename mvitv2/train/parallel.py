"""How several processes train one model: a copy in each (DDP), or a part of every block in each (FSDP2).

Both sum gradients over processes; the mean over images is in the loss already, which is divided by the images of the
whole step. So it does not matter that processes have different numbers of images.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mvitv2.core.model import MultiScaleBlock, MViT
from mvitv2.core.reversible import ReversibleMViT
from mvitv2.tasks.processes import Processes


class Called:
    """What a forward pass of training calls: the model itself, as one process does.

    Args:
        module: The model, or what stands before it.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.moving = [b for m in module.modules() if isinstance(m, _BatchNorm) for b in m.buffers()]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, gradients add up in this process; those of a pass outside are summed over processes, with them."""
        yield

    def settle(self) -> None:
        """After a step, let batch norms have seen the same: what those of the first process have."""
        for buffer in self.moving if dist.is_available() and dist.is_initialized() else ():
            dist.broadcast(buffer, 0)


class Copies(Called):
    """A copy in each process: DDP, with a sum where it would take a mean."""

    def __init__(self, model: MViT):
        parallel = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        # of the depthwise pools, whose gradients come with channels last: copied, and the same numbers
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        parallel.register_comm_hook(None, _summed)
        super().__init__(parallel)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, gradients add up in this process."""
        with self.module.no_sync():  # type: ignore[operator]
            yield


class Parts(Called):
    """A part of every block in each process: FSDP2."""

    def __init__(self, model: MViT):
        super().__init__(model)
        sharded(model)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, gradients add up in this process."""
        module: Any = self.module
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)


def called(model: MViT, kind: str, processes: Processes) -> Called:
    """Prepare a model for training by several processes; by one alone it stays as it is.

    Args:
        model: On its device; with ``"fsdp"`` its parameters become parts of themselves.
        kind: ``"ddp"`` or ``"fsdp"``.
        processes: Those that train.

    Raises:
        ValueError: FSDP is asked for where there is no group, or of a model it cannot train.
    """
    alone = not (dist.is_available() and dist.is_initialized())
    if kind == "fsdp" and alone:
        raise ValueError("--parallel fsdp needs processes to share the model; start it with torchrun or srun")
    if kind == "fsdp" and isinstance(model, ReversibleMViT):
        raise ValueError("--parallel fsdp cannot take a reversible model apart; use --parallel ddp")
    if kind == "fsdp":
        return Parts(model)
    return Called(model) if alone or processes.count == 1 else Copies(model)


def sharded(model: MViT) -> None:
    """Give each process a part of every parameter, block by block, so that one block at a time is whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    whole: list[nn.Module] = [module for module in model.modules() if isinstance(module, MultiScaleBlock)]
    for module in (*whole, model):
        part: Any = fully_shard(module, mesh=mesh)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)


def is_sharded(model: nn.Module) -> bool:
    """Whether processes have parts of the model only."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors; every process of a sharded model must ask, and the first one gets it."""
    if not is_sharded(model):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    found: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return found


def whole(value: Tensor) -> Tensor:
    """A tensor of which processes may have parts, as one; every one of them must ask."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def own(value: Tensor) -> Tensor:
    """The part of a tensor that this process has: all of it, where nothing is shared out."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def _summed(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # pyright: ignore
    """The sum of a bucket over all processes; DDP's own hook divides it by their number."""
    work: Any = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])
