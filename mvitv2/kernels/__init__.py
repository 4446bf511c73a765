"""The same numbers, faster: backends that compute what :func:`mvitv2.core.attend.reference` defines.

``"auto"`` takes, per call: :func:`~mvitv2.kernels.sdpa.masked` without gradients on a CPU (1.2 to 1.4 times the
reference there, less in training), the reference where gradients are needed on a CPU, and
:func:`~mvitv2.kernels.sdpa.folded` elsewhere.
"""

from mvitv2.core.attend import Attend, reference

from .auto import auto
from .sdpa import folded, masked

BACKENDS: dict[str, Attend] = {"auto": auto, "reference": reference, "masked": masked, "folded": folded}


def backend(name: str) -> Attend:
    """An attention backend by name.

    Raises:
        ValueError: There is none of that name; those there are, are listed.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is none of {', '.join(BACKENDS)}")
    return BACKENDS[name]
