"""Where to compute: a device by name, with a sentence where there is none of that name."""

import torch

from mvitv2.tasks.processes import Processes


def device_named(name: str) -> torch.device:
    """A device by name, ``"auto"`` for the first GPU or else the CPU.

    Raises:
        ValueError: There is no such device here; those there are, are listed.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); here are {', '.join(here)}, or auto") from error
    return device


def own_device(name: str, processes: Processes) -> torch.device:
    """The device of this process: of several on one machine, each takes a GPU of its own.

    Raises:
        ValueError: There is no such device, or not one for each process.
    """
    device = device_named(name)
    if processes.count == 1 or device.type != "cuda":
        return device
    here, wanted = torch.cuda.device_count(), processes.local_rank
    if device.index is not None:
        raise ValueError(f"device {name!r} is one GPU for {processes.count} processes; use --device cuda")
    if wanted >= here > 1:
        raise ValueError(f"process {wanted} of this machine has no GPU, there are {here}; start as many processes")
    device = torch.device("cuda", wanted % here)  # of one GPU, where the launcher shows each process its own
    torch.cuda.set_device(device)
    return device
