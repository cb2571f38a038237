"""Which libnvrtc to use, and who it is, without loading it.

Loading takes 10 ms, or 2 s when its 110 MB are not in the page cache, and a process that finds all
its kernels on disk never needs it.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deep_gemm.errors import MissingDependencyError

_BUILTINS = re.compile(r"libnvrtc-builtins\.so\.(\d+)\.(\d+)")
_BUILD_ID = re.compile(rb"\x04\0\0\0(.)\0\0\0\x03\0\0\0GNU\0", re.DOTALL)
_PT_NOTE = 4
_KNOWN_MAJORS = (13, 12)


@dataclass(frozen=True, slots=True)
class Library:
    """A libnvrtc, and the builtins library beside it, whose file name carries the version."""

    path: Path
    builtins: Path
    version: tuple[int, int]

    @property
    def fingerprint(self) -> str:
        """Changes with the content of either file.

        It is the linker's build ID. Not the modification time, which differs between machines
        that share a cache; not a wheel's version, which an install from elsewhere does not have.
        """
        return f"{_content_id(self.path)}+{_content_id(self.builtins)}"

    def load(self) -> ctypes.CDLL:
        """Load it.

        Raises:
            MissingDependencyError: it does not load, or is not of the version in the file name.
        """
        try:
            # NVRTC 13 looks for its builtins by bare name, and a wheel's folder is on no search
            # path; a library that is already loaded is found anyway.
            ctypes.CDLL(str(self.builtins))
            library = ctypes.CDLL(str(self.path))
        except OSError as error:
            raise MissingDependencyError(f"NVRTC: {error}; {_mend(self.version)}") from error
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        if (major.value, minor.value) != self.version:
            raise MissingDependencyError(
                f"NVRTC: {self.path} is version {major.value}.{minor.value} but has "
                f"{self.builtins.name} beside it; {_mend(self.version)}"
            )
        return library


def find_library(toolkit: Path | None) -> Library:
    """The newest libnvrtc whose cubins the driver takes: of the wheels, else the system's.

    Args:
        toolkit: a CUDA toolkit's root, searched after the wheels.

    Raises:
        MissingDependencyError: none is installed.
    """
    limit = driver_version()
    refused: list[Library] = []
    for place in (in_wheels, lambda: in_toolkit(toolkit), by_loader):
        libraries = place()
        fitting = [library for library in libraries if not limit or library.version <= limit]
        if fitting:
            return max(fitting, key=lambda library: library.version)
        refused += libraries
    if refused:
        # A driver takes cubins of later minor versions of its own major version.
        return min(refused, key=lambda library: library.version)
    raise MissingDependencyError(f"NVRTC: libnvrtc.so was not found; {_mend(limit)}")


def driver_version() -> tuple[int, int] | None:
    """The CUDA version that the installed driver supports; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def in_wheels() -> list[Library]:
    """The libraries of installed `nvidia-cuda-nvrtc*` wheels."""
    # Through sys.path, not the `nvidia` package: some wheels make it a regular package, which
    # hides the other places.
    return _libraries(
        library
        for entry in sys.path
        for library in sorted(Path(entry).glob("nvidia/*/lib/libnvrtc.so.*"))
    )


def in_toolkit(root: Path | None) -> list[Library]:
    """The libraries of a CUDA toolkit."""
    return _libraries(root.glob("lib*/libnvrtc.so.*")) if root else []


def by_loader() -> list[Library]:
    """The libraries that the dynamic loader finds by itself. This loads them."""
    paths = []
    for major in _KNOWN_MAJORS:
        try:
            library = ctypes.CDLL(f"libnvrtc.so.{major}")
        except OSError:
            continue
        paths.append(_file_of(library))
    return _libraries(paths)


def _libraries(paths: Iterable[Path]) -> list[Library]:
    found = {}
    for path in paths:
        real = path.resolve()
        major = real.name.removeprefix("libnvrtc.so.").split(".")[0]
        for builtins in sorted(real.parent.glob(f"libnvrtc-builtins.so.{major}.*")):
            if match := _BUILTINS.match(builtins.name):
                version = int(match[1]), int(match[2])
                found[real] = Library(real, builtins.resolve(), version)
    return list(found.values())


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file_name", ctypes.c_char_p),
        ("file_base", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
        ("symbol_address", ctypes.c_void_p),
    )


def _file_of(library: ctypes.CDLL) -> Path:
    info = _DlInfo()
    address = ctypes.cast(library.nvrtcVersion, ctypes.c_void_p)
    ctypes.CDLL(None).dladdr(address, ctypes.byref(info))
    return Path(info.file_name.decode())


def _content_id(path: Path) -> str:
    return _build_id(path) or hashlib.sha256(path.read_bytes()).hexdigest()


def _build_id(path: Path) -> str | None:
    """The GNU build ID of a 64-bit ELF file: a hash of its content, made by the linker."""
    with path.open("rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            return None
        (table,) = struct.unpack_from("<Q", header, 32)
        entry_bytes, num_entries = struct.unpack_from("<HH", header, 54)
        file.seek(table)
        segments = file.read(entry_bytes * num_entries)
        for kind, _, offset, _, _, size, *_ in struct.iter_unpack("<IIQQQQQQ", segments):
            if kind == _PT_NOTE:
                file.seek(offset)
                notes = file.read(size)
                if match := _BUILD_ID.search(notes):
                    return notes[match.end() : match.end() + match[1][0]].hex()
    return None


def _mend(version: tuple[int, int] | None) -> str:
    suffix = "-cu12" if version and version[0] == 12 else ""
    return f"mend it with: pip install nvidia-cuda-nvrtc{suffix}"
