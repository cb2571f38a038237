"""What one entry of the kernel cache holds: a kernel as four files that are checked when read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from deep_gemm.jit.compiler import CompiledKernel

FILES = ("kernel.cu", "kernel.cubin", "kernel.ptx", "meta.json")
DIGEST = re.compile(r"[0-9a-f]{64}")

_CHECKED = ("kernel.cubin", "kernel.ptx")
_REPORT = ("entry", "arch", "registers", "spill_bytes", "static_smem_bytes", "compiler", "seconds")


class BrokenEntryError(Exception):
    """The entry is there, but is not what was written."""


def encode(kernel: CompiledKernel, digest: str, source_text: str) -> dict[str, bytes]:
    """The content of an entry's files, by file name."""
    content = {"kernel.cubin": kernel.cubin, "kernel.ptx": kernel.ptx.encode()}
    meta: dict[str, Any] = {field: getattr(kernel, field) for field in _REPORT}
    meta["digest"] = digest
    meta["sha256"] = {name: sha256(content[name]) for name in _CHECKED}
    return {
        "kernel.cu": source_text.encode(),
        **content,
        "meta.json": json.dumps(meta, indent=1).encode(),
    }


def decode(read: Callable[[str], bytes], name: str, digest: str) -> CompiledKernel:
    """The kernel of an entry. `kernel.cu` is for people and may be missing.

    Args:
        read: gives a file's content by its name, or raises FileNotFoundError.
        name: of the kernel.
        digest: of the entry.

    Raises:
        BrokenEntryError: a file is missing, or is not what was written.
    """
    try:
        meta = json.loads(read("meta.json"))
        if meta["digest"] != digest:
            raise BrokenEntryError(f"meta.json belongs to {meta['digest']!r}")
        content = {file_name: read(file_name) for file_name in _CHECKED}
        for file_name in _CHECKED:
            if sha256(content[file_name]) != meta["sha256"][file_name]:
                raise BrokenEntryError(f"{file_name} does not match its checksum")
        return CompiledKernel(
            name=name,
            cubin=content["kernel.cubin"],
            ptx=content["kernel.ptx"].decode(),
            from_cache=True,
            **{field: meta[field] for field in _REPORT},
        )
    except FileNotFoundError as error:
        raise BrokenEntryError(f"{error.filename} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenEntryError(f"meta.json: {error!r}") from error


def sha256(content: bytes) -> str:
    """The checksum that is written down, in hex."""
    return hashlib.sha256(content).hexdigest()
