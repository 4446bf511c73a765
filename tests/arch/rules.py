"""The architecture as rules: each takes sources, and gives one sentence for every place that breaks it.

Sources are texts by path, so that every rule can also be shown a broken example and asked whether it notices.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

Sources = dict[str, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Which parts of the package a part may import. A part is a module or a folder directly under mvitv2/.
ANYWHERE_BUT_CORE = {"_version", "extras"}
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "extras": set(),
    "core": set(),
    "preprocessing": set(),
    "variants": {"core", "preprocessing"},
    "aliases": {"variants"},
    "kernels": {"core"},
    "models": {"aliases", "core", "kernels", "preprocessing", "tasks", "variants", "weights"},
    "weights": {"aliases", "core", "kernels", "preprocessing", "tasks", "variants"},  # a file becomes a model
    "catalogue": {"aliases", "models", "variants", "weights"},
    "hf": {"core", "data", "kernels", "models", "preprocessing", "variants", "weights"},
    "data": {"preprocessing"},
    "explain": {"core"},
    "tasks": {"core", "data", "preprocessing", "variants"},
    "train": {"core", "data", "kernels", "models", "preprocessing", "tasks", "variants", "weights"},
    "report": {"_version", "core", "data", "explain", "tasks", "train", "weights"},  # a report is on a run
    "demo": {"core", "data", "models", "report", "tasks", "train", "weights"},
}
ALL_BUT_CLI = set(MAY_IMPORT)
MAY_IMPORT["__init__"] = ALL_BUT_CLI
MAY_IMPORT["cli"] = ALL_BUT_CLI | {""}  # `import mvitv2` as a user would
MAY_IMPORT["__main__"] = {"cli"}


def part_of(path: str) -> str:
    """``mvitv2/weights/files.py`` is of the part ``weights``; ``mvitv2/variants.py`` of ``variants``."""
    return PurePosixPath(path).with_suffix("").parts[1]


def imports(path: str, text: str) -> Iterator[tuple[ast.stmt, str, bool]]:
    """Every import of a file: the statement, the absolute name of what it imports, and whether it runs on import.

    ``from .core import grid`` in ``mvitv2/x.py`` gives ``mvitv2.core.grid``: the name may be a module or in one.
    """
    package = PurePosixPath(path).parent.parts
    for node, at_import in statements(ast.parse(text).body, at_import=True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name, at_import
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else ())))
            for alias in node.names:
                yield node, f"{base}.{alias.name}", at_import


def statements(body: list[ast.stmt], *, at_import: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement below ``body``, and whether importing the file runs it."""
    for node in body:
        yield node, at_import
        inner = isinstance(node, Function)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            for child in getattr(node, name, []):
                blocks = [child] if isinstance(child, ast.stmt) else child.body
                yield from statements(blocks, at_import=at_import and not inner and not typing_only)


def wrong_directions(sources: Sources) -> list[str]:
    """Imports between parts that the table does not allow, and parts that it does not know."""
    found = []
    for path, text in sources.items():
        part = part_of(path)
        if part not in MAY_IMPORT:
            found.append(f"{path}: the part {part!r} has no row in MAY_IMPORT")
            continue
        allowed = MAY_IMPORT[part] | {part} | (ANYWHERE_BUT_CORE if part != "core" else set())
        for node, name, _ in imports(path, text):
            root, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if root == "mvitv2" and other not in allowed:
                found.append(f"{path}:{node.lineno}: {part} may not import {other or 'the whole package'}")
    return found


def foreign_libraries(sources: Sources, *, base: set[str], declared: set[str]) -> list[str]:
    """Libraries that are not declared, or loaded on import without being in the base, or used by core beside torch."""
    found = []
    for path, text in sources.items():
        for node, name, at_import in imports(path, text):
            root = name.split(".")[0]
            if root in sys.stdlib_module_names or root == "mvitv2":
                continue
            if part_of(path) == "core" and root != "torch":
                found.append(f"{path}:{node.lineno}: core imports {root}; it may import torch only")
            elif root not in declared:
                found.append(f"{path}:{node.lineno}: {root} is no dependency in pyproject.toml")
            elif at_import and root not in base:
                found.append(f"{path}:{node.lineno}: {root} comes with an extra; import it inside the function")
    return found


def wrong_extras(sources: Sources, extras: dict[str, set[str]]) -> list[str]:
    """Calls of ``required(library, extra=...)`` where that extra does not bring that library."""
    found = []
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Call(
                    func=ast.Name(id="required"),
                    args=[ast.Constant(value=str(library))],
                    keywords=[ast.keyword(arg="extra", value=ast.Constant(value=str(extra)))],
                ) if library.split(".")[0] not in extras.get(extra, set()):
                    found.append(f"{path}:{node.lineno}: the extra {extra!r} does not bring {library}")
    return found


def too_long(sources: Sources, *, file_lines: int = 300, function_lines: int = 40) -> list[str]:
    """Files and functions longer than a reader keeps in mind; a function's docstring does not count."""
    found = []
    for path, text in sources.items():
        if (lines := text.count("\n")) > file_lines:
            found.append(f"{path}: {lines} lines, at most {file_lines}")
        for node in functions(text):
            if (lines := code_lines(node)) > function_lines:
                found.append(f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {function_lines}")
    return found


def functions(text: str) -> list[Function]:
    """Every function and method of a file."""
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]


def code_lines(function: Function) -> int:
    """Lines from ``def`` to the last, without those of the docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        first = function.body[0]
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def bad_manners(sources: Sources) -> list[str]:
    """Swallowed errors, prints, checks that ``python -O`` drops, half-loaded weights, unfinished work."""
    found = []
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if fault := fault_of(node, in_cli=part_of(path) == "cli"):
                found.append(f"{path}:{getattr(node, 'lineno', 0)}: {fault}")
        for number, line in enumerate(text.splitlines(), start=1):
            if mark := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                found.append(f"{path}:{number}: {mark[0]} says that something is not finished")
    return found


def fault_of(node: ast.AST, *, in_cli: bool) -> str | None:
    """What is wrong with this one piece of syntax, if anything."""
    fault = None
    match node:
        case ast.ExceptHandler(type=None):
            fault = "a bare except catches everything"
        case ast.ExceptHandler(type=ast.expr() as caught) if names_of(caught) & {"Exception", "BaseException"}:
            fault = f"except {ast.unparse(caught)} catches what nobody expected"
        case ast.Assert():
            fault = "assert is dropped by python -O; raise an error with the values"
        case ast.Call(func=ast.Name(id="print")) if not in_cli:
            fault = "the library prints; return, raise or warn"
        case ast.Call(func=function, keywords=given) if says_strict_false(given) and ast.unparse(function) != "zip":
            fault = "strict=False hides what does not match; name what is ignored"
        case ast.Attribute(value=ast.Name(id="torch"), attr="jit"):
            fault = "torch.jit is not supported (docs/decisions/0005)"
    return fault


def says_strict_false(given: list[ast.keyword]) -> bool:
    """Whether a call is asked to overlook what does not match."""
    return any(word.arg == "strict" and getattr(word.value, "value", None) is False for word in given)


def names_of(caught: ast.expr) -> set[str]:
    """The exception classes that an ``except`` clause names."""
    return {node.id for node in ast.walk(caught) if isinstance(node, ast.Name)}


# Folders of one machine, and the addresses of package registries: a project that names them works there alone.
LOCAL = re.compile(
    r"(?<![\w.])/(?:work|root|tmp/dev|opt/wheels|opt/pypi|home/[a-z]|Users/[A-Za-z])[\w-]*/"
    r"|\b(?:pypi\.org|pytho[n]hosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com|conda\.anaconda\.org"
    r"|deb\.debian\.org|download\.pytorch\.org/whl)\b"
)


def machine_traces(texts: Sources) -> list[str]:
    """Lines of tracked files that name a folder of one machine or the address of a package registry."""
    return [
        f"{path}:{number}: {trace[0]}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if (trace := LOCAL.search(line))
    ]
