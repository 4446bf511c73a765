"""Triton for the kernel files: the one place that loads it.

Files that define kernels need Triton at their top, and so they are imported only inside the functions that launch.
"""

from importlib import import_module
from typing import Any

triton: Any = import_module("triton")
tl: Any = import_module("triton.language")

# The kernels run in Triton's interpreter, on tensors of any device: TRITON_INTERPRET=1 when triton was imported.
INTERPRETED: Any = tl.constexpr(bool(triton.knobs.runtime.interpret))
