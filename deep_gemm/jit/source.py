"""A kernel's source text, and the headers of ours that it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from deep_gemm.errors import ArgumentError, CompilationError, MissingDependencyError

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_INCLUDE = re.compile(
    rb'^[ \t]*#[ \t]*include\b[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>|(.*))', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One translation unit with one kernel in it.

    Attributes:
        name: readable, and safe as a file name, e.g. `sm90_fp8_gemm_1d2d_128x128`.
        text: CUDA C++; its includes are written relative to `include_root()`.
        entry: the kernel's `extern "C"` name.
        arch: compute capability with its suffix, e.g. `90a`.
        config: what was chosen for it, as an error shows it; no part of what is compiled.

    Raises:
        ArgumentError: the name could leave its folder in the cache.
    """

    name: str
    text: str
    entry: str
    arch: str
    config: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not _FILE_NAME.fullmatch(self.name):
            raise ArgumentError(f"name: must match {_FILE_NAME.pattern}, got {self.name!r}")


class _Header(NamedTuple):
    content: bytes
    includes: tuple[str, ...]


def include_root() -> Path:
    """The folder that our CUDA headers are included from.

    Raises:
        MissingDependencyError: neither the wheel's copy nor a checkout's `csrc` exists.
    """
    package = Path(__file__).resolve().parent.parent
    places = (package / "csrc", package.parent / "csrc")
    for place in places:
        if place.is_dir():
            return place
    raise MissingDependencyError(
        f"CUDA headers: no folder {' or '.join(map(str, places))}; "
        "mend it with: pip install --force-reinstall deep_gemm"
    )


def included_headers(text: str) -> Mapping[str, bytes]:
    """The headers below `include_root()` that `text` reads, directly or through others.

    Both branches of an `#if` count, so the result holds what any compiler may read.
    A header is read from disk once per process.

    Returns:
        Name relative to the include root -> content, sorted by name.

    Raises:
        MissingDependencyError: a quoted include is not below the include root.
        CompilationError: an include's name is made by a macro, so it cannot be followed.
    """
    root = include_root()
    found: dict[str, bytes] = {}
    pending = list(_includes(text.encode(), "the kernel's source", root))
    while pending:
        name = pending.pop()
        if name not in found:
            header = _read(root, name)
            found[name] = header.content
            pending.extend(header.includes)
    return dict(sorted(found.items()))


def forget_headers() -> None:
    """Drop the headers read so far; for tests that change them within one process."""
    _read.cache_clear()
    _is_ours.cache_clear()


@cache
def _is_ours(root: Path, name: str) -> bool:
    return (root / name).is_file()


@cache
def _read(root: Path, name: str) -> _Header:
    content = (root / name).read_bytes()
    return _Header(content, _includes(content, name, root))


def _includes(code: bytes, includer: str, root: Path) -> tuple[str, ...]:
    names = []
    for quoted, angled, other in _INCLUDE.findall(code):
        if other:
            raise CompilationError(
                f'{includer}: an include must be "name" or <name>, got {other.decode()}'
            )
        name = (quoted or angled).decode()
        if _is_ours(root, name):
            names.append(name)
        elif quoted:
            raise MissingDependencyError(
                f'{includer}: #include "{name}" is not below the include root {root}'
            )
    return tuple(names)
