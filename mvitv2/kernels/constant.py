"""A mark for functions that ``torch.compile`` calls while it traces, and takes the answer of for good."""

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def constant(function: F) -> F:
    """Mark a function whose result never changes in a process.

    This is ``torch.compiler.assume_constant_result``, which sets this attribute and nothing else, but loads the whole
    compiler for it: seconds of every start, of those too that compile nothing.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
