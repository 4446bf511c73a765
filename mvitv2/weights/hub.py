"""Whole models to and from folders and the Hugging Face hub: weights, configuration, preprocessing, and a page on them.

The functions are called as methods are in transformers and in ``huggingface_hub``'s mixin; the model itself, which
imports torch alone, knows nothing of them.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mvitv2.aliases import ALIASES
from mvitv2.core.model import MViT
from mvitv2.extras import required
from mvitv2.variants import VARIANTS
from mvitv2.weights import files
from mvitv2.weights.download import NotOnHub, fetch_hub
from mvitv2.weights.folders import (
    CARD,
    CONFIG,
    PICKLED,
    PIXELS,
    PROCESSOR,
    WEIGHTS,
    as_stated,
    model_of,
    stated_in,
    weights_in,
)
from mvitv2.weights.load import Whole, backbone_in
from mvitv2.weights.page import page
from mvitv2.weights.pretrained import describe_release, pretrained_file, pretrained_release
from mvitv2.weights.releases import RELEASES
from mvitv2.weights.save import save_weights

PREFIX = "hf-hub:"
"""What timm writes before a repository; taken off."""


class UploadError(OSError):
    """A model could not be put on the hub; the message says why, and what to do."""


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    mirror: str | None = None,
    **changes: Any,
) -> Whole:
    """A model in eval mode from wherever it lies, with its classes and its preprocessing in ``model.card``.

    Args:
        source: A weights file of any codebase; a folder that :func:`save_pretrained`, transformers or timm wrote, or
            that of a training run; the name of a published model; or a repository of the hub, ``user/name``.
        revision: Branch, tag or commit of a repository.
        cache_dir: As for :func:`mvitv2.weights.download.fetch`, likewise ``offline`` and ``mirror``.
        offline: See there.
        mirror: See there.
        **changes: For :func:`mvitv2.load_model`: ``num_classes``, ``in_chans``, ``img_size``, ``backend``, ...

    Raises:
        ValueError: There is nothing of that name, or the folder holds no weights.
        DownloadError: The hub does not give it; the message says what to do.
        DialectError: The weights are of no model of this package.
    """
    name, path = os.fspath(source), Path(source)
    options: dict[str, Any] = {"cache_dir": cache_dir, "offline": offline, "mirror": mirror}
    if path.exists() and not name.startswith(PREFIX):
        weights = weights_in(path) if path.is_dir() else path
        beside = path.is_dir() and weights.name in (WEIGHTS, PICKLED)
        return model_of(weights, stated_in(path / CONFIG) if beside else {}, **changes)
    if name in VARIANTS or name in ALIASES or name in RELEASES:
        release = pretrained_release(name)
        weights = pretrained_file(release.name, **options)
        model = model_of(weights, {}, **changes)
        describe_release(model, release)
        return model
    repository, _, at = name.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(
            f"{name!r} is neither a file, a folder nor a published model (mvitv2.list_models()), and no repository of "
            "the hub, which is called user/name"
        )
    return from_hub(repository, revision=revision or at or None, options=options, **changes)


def from_hub(repository: str, *, revision: str | None, options: dict[str, Any], **changes: Any) -> Whole:
    """A model of a repository, whoever's library wrote it; arguments as for :func:`from_pretrained`."""
    try:
        weights = fetch_hub(repository, WEIGHTS, revision=revision, **options)
    except NotOnHub:
        weights = fetch_hub(repository, PICKLED, revision=revision, **options)
    try:
        stated = stated_in(fetch_hub(repository, CONFIG, revision=revision, **options))
    except NotOnHub:
        stated = {}
    model = model_of(weights, stated, **changes)
    card = backbone_in(model).card
    card["provenance"] = {**(card.get("provenance") or {}), "hub": repository}
    return model


def save_pretrained(model: MViT, folder: str | os.PathLike[str]) -> Path:
    """Write a model as a folder that we, transformers (after ``import mvitv2.hf``) and the hub read.

    Args:
        model: An MViT of any task; its ``card`` tells classes and preprocessing.
        folder: Made where missing; files of the same names are replaced.

    Returns:
        The folder.

    Raises:
        TypeError: It is no MViT.
    """
    if not isinstance(model, MViT):
        raise TypeError(f"expected an MViT, got {type(model).__name__}; save_weights writes backbones with a pyramid")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS)
    texts = {CONFIG: as_json(as_stated(model)), CARD: page(model)}
    if record := model.card.get("preprocessing"):
        texts[PIXELS] = as_json({"image_processor_type": PROCESSOR, "preprocessing": record})
    for name, text in texts.items():
        with files.replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder


def as_json(values: dict[str, Any]) -> str:
    """Values as people read them."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def push_to_hub(
    model: MViT,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload a model of mvitv2",
    token: str | None = None,
) -> str:
    """Put a model on the hub, as :func:`save_pretrained` writes it; the repository is made where it is missing.

    Args:
        model: As for :func:`save_pretrained`.
        repository: ``user/name``.
        private: Of a new repository; ``None``: as the account has it.
        revision: Branch; ``None``: main.
        message: Of the commit.
        token: ``None``: that of ``hf auth login`` or ``HF_TOKEN``.

    Returns:
        The address of the commit.

    Raises:
        MissingExtra: ``huggingface_hub`` is not installed.
        UploadError: The hub refuses or does not answer.
    """
    hub: Any = required("huggingface_hub", extra="hub")
    errors: Any = required("huggingface_hub.errors", extra="hub")
    with TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        try:
            api = hub.HfApi(token=token)
            api.create_repo(repository, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repository, folder_path=folder, revision=revision, commit_message=message)
        except (errors.HfHubHTTPError, errors.HFValidationError, errors.HTTPError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UploadError(
                f"{repository} cannot be written: {why}. Log in with `hf auth login` as one who may write there"
            ) from error
    return str(done)
