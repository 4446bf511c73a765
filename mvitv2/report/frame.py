"""What all pages have in common: one file with its style inside, that loads nothing and runs nothing."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from mvitv2._version import __version__
from mvitv2.report.page import escape
from mvitv2.weights.files import replacing


def write_page(
    path: str | os.PathLike[str], title: str, body: Sequence[str], *, again_after: int | None = None
) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: Of the HTML file; its folder must exist.
        title: Of the window, as text.
        body: Sections of HTML; empty ones are left out.
        again_after: Seconds after which a browser reads the file again, for one that changes.
    """
    footer = f"<footer>Written by mvitv2 {__version__}. This file is complete: it loads nothing.</footer>"
    text = Template(files("mvitv2.report").joinpath("template.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        refresh="" if again_after is None else f'<meta http-equiv="refresh" content="{again_after}">',
        body="\n".join(part for part in [*body, footer] if part),
    )
    target = Path(path)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return target
