"""Optional libraries, imported where they are used; a missing one says how to get it."""

from importlib import import_module
from types import ModuleType


class MissingExtra(ImportError):
    """A library is missing that comes with an extra of this package."""


def required(module: str, *, extra: str) -> ModuleType:
    """Import a library of an extra.

    Args:
        module: As in ``import``.
        extra: The extra of this package that brings it.

    Raises:
        MissingExtra: It cannot be imported; the message has the command that installs it, and the reason.
    """
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch dies with RuntimeError
        package = module.partition(".")[0]
        raise MissingExtra(
            f"{package} is needed here and cannot be imported ({error}); pip install 'mvitv2[{extra}]'"
        ) from error
