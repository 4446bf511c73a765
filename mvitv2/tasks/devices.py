"""Where to compute: a device by name, with a sentence where there is none of that name."""

import torch


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
