"""Compiled kernels in one file, to be unpacked as a read-only layer of a container image.

A bundle is a tar without compression: `manifest.json`, then `cache/<name>/<digest>/<file>` as in a
cache directory. The same kernels give the same bytes. Nothing of it is loaded from the tar itself:
it is unpacked once, by `unpack`, or by whatever else unpacks tars (`ADD` of a Dockerfile); each
entry has its own checksums, which every read looks at.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deep_gemm.errors import ArgumentError
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.jit.entry import FILES, BrokenEntryError, decode, encode, sha256
from deep_gemm.jit.trust import FILE_MODE

MANIFEST = "manifest.json"
FORMAT = 1

# The only places of a bundle: no path can lead elsewhere.
_PLACE = re.compile(
    rf"cache/([A-Za-z0-9_][A-Za-z0-9_.-]*)/([0-9a-f]{{64}})/({'|'.join(map(re.escape, FILES))})"
)

Entries = dict[tuple[str, str], dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """A kernel for a bundle.

    Attributes:
        kernel: as it was built.
        digest: its cache key.
        source_text: what it was compiled from.
    """

    kernel: CompiledKernel
    digest: str
    source_text: str


def write_bundle(entries: Iterable[BundleEntry], path: Path) -> int:
    """Write kernels into a bundle, which is there whole or not at all.

    Args:
        entries: each kernel is written once, however often it comes.
        path: of the bundle; what is there is replaced.

    Returns:
        The number of kernels in it.

    Raises:
        OSError: it cannot be written.
    """
    files: dict[str, bytes] = {}
    for entry in entries:
        folder = f"cache/{entry.kernel.name}/{entry.digest}"
        for name, content in encode(entry.kernel, entry.digest, entry.source_text).items():
            files[f"{folder}/{name}"] = content
    places = sorted(files)
    checksums = {place: sha256(files[place]) for place in places}
    manifest = json.dumps({"format": FORMAT, "sha256": checksums}, indent=1).encode()
    staging = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with tarfile.open(staging, "w:", format=tarfile.PAX_FORMAT) as tar:
            for place, content in [(MANIFEST, manifest), *((p, files[p]) for p in places)]:
                _add(tar, place, content)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return len(files) // len(FILES)


def _add(tar: tarfile.TarFile, place: str, content: bytes) -> None:
    # No user, group or time: what unpacks it owns it.
    member = tarfile.TarInfo(place)
    member.size, member.mode = len(content), FILE_MODE
    tar.addfile(member, io.BytesIO(content))


def unpack(bundle: Path, directory: Path) -> int:
    """Unpack a bundle into a cache directory. Entries that are there already stay as they are.

    Nothing is written before the whole bundle has been checked.

    Returns:
        The number of kernels in it.

    Raises:
        ArgumentError: it cannot be read, is no bundle, or not what was written.
        OSError: the directory cannot be written, or is not trusted.
    """
    entries = _read(bundle)
    cache = KernelCache(directory)
    for (name, digest), files in entries.items():
        cache.store(name, digest, files)
    return len(entries)


def _read(bundle: Path) -> Entries:
    """All entries of a bundle, checked."""
    try:
        with tarfile.open(bundle, "r:") as tar:
            files = _files(tar)
        _check_manifest(files.pop(MANIFEST, b"null"), files)
        entries: Entries = {}
        for place, content in files.items():
            _, name, digest, file_name = place.split("/")
            entries.setdefault((name, digest), {})[file_name] = content
        for (name, digest), entry in entries.items():
            decode(partial(_file_of, entry), name, digest)
    except (tarfile.TarError, OSError, ValueError, BrokenEntryError) as error:
        raise ArgumentError(f"bundle {bundle} is refused: {error}") from error
    return entries


def _files(tar: tarfile.TarFile) -> dict[str, bytes]:
    """Every file of a tar. Folders, which other tools add, say nothing; links are refused."""
    files: dict[str, bytes] = {}
    for member in tar:
        if member.isdir():
            continue
        if member.name != MANIFEST and not _PLACE.fullmatch(member.name):
            raise ValueError(f"{member.name!r} has no place in it")
        is_plain = member.isreg() and not member.issparse()
        content = tar.extractfile(member) if is_plain else None
        if content is None:
            raise ValueError(f"{member.name} must be a regular file")
        if member.name in files:
            raise ValueError(f"{member.name} is in it twice")
        files[member.name] = content.read()
    return files


def _check_manifest(text: bytes, files: dict[str, bytes]) -> None:
    manifest = json.loads(text)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{MANIFEST} is missing, or not of format {FORMAT}")
    if manifest.get("sha256") != {place: sha256(content) for place, content in files.items()}:
        raise ValueError(f"its files and the checksums in {MANIFEST} differ")


def _file_of(entry: dict[str, bytes], file_name: str) -> bytes:
    if file_name not in entry:
        raise FileNotFoundError(errno.ENOENT, "is missing", file_name)
    return entry[file_name]
