"""CUDA graphs for small batches: all kernels of a forward pass started by one call, where starting them is what costs.

Checked on CPUs as far as that goes; how much it saves on a GPU is not measured.
"""

import torch
from torch import Tensor, nn

WARM_UPS = 3


class Graphed:
    """A model in eval mode on a CUDA device, recorded for inputs of one shape; call it like the model.

    The weights are those of the model at the time of each call. Results are copies.

    Args:
        model: In eval mode, on a CUDA device.
        pixels: An input of the shape, precision and device of all that will come.

    Raises:
        ValueError: The model is in training mode, or the input is on no CUDA device.
    """

    def __init__(self, model: nn.Module, pixels: Tensor):
        if model.training:
            raise ValueError("the model is in training mode; CUDA graphs here are for inference, call model.eval()")
        if pixels.device.type != "cuda":
            raise ValueError(f"pixels are on {pixels.device}; CUDA graphs need a CUDA device")
        self.given = pixels.clone()
        self.graph = torch.cuda.CUDAGraph()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(beside):
            for _ in range(WARM_UPS):  # kernels are compiled and caches filled before anything is recorded
                model(self.given)
        torch.cuda.current_stream().wait_stream(beside)
        with torch.inference_mode(), torch.cuda.graph(self.graph):
            self.result: Tensor = model(self.given)

    def __call__(self, pixels: Tensor) -> Tensor:
        """The model's result for these pixels.

        Raises:
            ValueError: Shape, precision or device are not those recorded.
        """
        check_same(self.given, pixels)
        with torch.inference_mode():
            self.given.copy_(pixels)
            self.graph.replay()
            return self.result.clone()


def check_same(recorded: Tensor, given: Tensor) -> None:
    """Refuse an input the graph was not recorded for.

    Raises:
        ValueError: With both descriptions.
    """
    expected, found = ((tuple(x.shape), x.dtype, x.device) for x in (recorded, given))
    if expected != found:
        raise ValueError(f"the graph was recorded for {expected}, got {found}; record one for each shape")
