"""What people give as MODEL: a weights file of any codebase, a folder, a published name, or ``hf-hub:user/name``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvitv2.cli.failures import did_you_mean

if TYPE_CHECKING:
    from mvitv2.core.model import MViT
    from mvitv2.weights.load import Whole


def weights_path(model: str) -> Path:
    """The file that MODEL means; a published one is fetched if it is not in the cache.

    Raises:
        ValueError: There is neither such a file nor such a model, or the folder holds no weights.
    """
    if (path := local_path(model)) is not None:
        return path
    # only a name that is no file waits for the table of published ones
    from mvitv2.weights.pretrained import pretrained_file

    return pretrained_file(published_name(model))


def local_path(model: str) -> Path | None:
    """The file on this machine that MODEL means; ``None`` where there is nothing of that name.

    Raises:
        ValueError: It is a folder without weights.
    """
    path = Path(model)
    if path.is_dir():
        from mvitv2.weights.folders import weights_in

        return weights_in(path)
    return path if path.exists() or path.is_symlink() else None


def published_name(name: str) -> str:
    """The name itself, if it is that of a published file or of a model.

    Raises:
        ValueError: Nothing is called so, here or elsewhere.
    """
    from mvitv2.aliases import ALIASES
    from mvitv2.variants import VARIANTS
    from mvitv2.weights.releases import RELEASES

    known = [*VARIANTS, *ALIASES, *RELEASES]
    if name not in known:
        folder = Path(name).parent
        near = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        hint = did_you_mean(Path(name).name, [*near, *known], otherwise="`mvitv2 list` names the models")
        raise ValueError(f"there is neither a file nor a model {name!r}{hint}")
    return name


def opened(model: str, **changes: Any) -> "Whole":
    """MODEL as it is, or changed on the way.

    Args:
        model: As on the command line.
        **changes: For :func:`mvitv2.load_model`.
    """
    from mvitv2.weights.hub import PREFIX, from_pretrained
    from mvitv2.weights.load import load_model
    from mvitv2.weights.pretrained import describe_release, pretrained_file, pretrained_release

    if model.startswith(PREFIX) or local_path(model) is not None:
        return from_pretrained(model, **changes)
    release = pretrained_release(published_name(model))
    found = load_model(pretrained_file(release.name), **changes)
    describe_release(found, release)
    return found


def classifier(model: str) -> "MViT":
    """MODEL, ready to tell classes apart.

    Raises:
        ValueError: It is a detector, or the backbone of one.
    """
    from mvitv2.core.model import MViT

    found = opened(model)
    if not isinstance(found, MViT):
        raise ValueError(f"{model} is a detector, or the backbone of one; this command needs a classifier")
    return found
