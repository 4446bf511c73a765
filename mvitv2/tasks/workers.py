"""How a process that loads images behaves: one thread, and signals are the main process's business."""

import signal
from types import FrameType

import torch

GRACE = 60
"""Seconds that a loading process lives on after a first SIGTERM."""


def quiet_worker(_worker: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``.

    Ctrl-C and a first SIGTERM do not end a worker: sent to all processes of a group, they would take the images away
    from a step that the main process still wants to finish. A second SIGTERM does, and so does time.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _heed_the_next)
    torch.set_num_threads(1)


def _heed_the_next(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    if hasattr(signal, "alarm"):
        signal.alarm(GRACE)
