"""Pillow without a word: damaged pictures become errors, so what its parts print or warn of meanwhile is noise."""

import ctypes
import functools
import logging
import os
import threading
import warnings
from pathlib import Path
from types import TracebackType

from PIL import Image


class Quiet:
    """Holds warnings back while any thread is inside; ``warnings.catch_warnings`` alone is not safe between threads.

    What Pillow warns of (damaged EXIF, odd palettes, sizes) is harmless or becomes an error in the reader.
    """

    def __init__(self) -> None:
        self._start()
        if hasattr(os, "register_at_fork"):  # a loader's worker may be forked while a thread is inside
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._caught.__exit__(kind, error, trace)


@functools.cache
def silence_decoders() -> None:
    """Keep Pillow's log lines and libtiff's messages off stderr, once per process.

    libtiff writes hundreds of lines for one damaged file by a handler of its own that Pillow leaves in place. Where
    the library is not found beside Pillow (it is in its wheels for Linux and macOS) it goes on doing so.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    package = Path(Image.__file__).parent
    for library in (*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")):
        handler = ctypes.CDLL(str(library)).TIFFSetErrorHandler
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        handler(None)
