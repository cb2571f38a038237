"""The file of what was recorded: outputs by case, and where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from goldens.machines import Bytes

FILE = Path(__file__).resolve().parents[1] / "goldens_h100.npz"

_WORD = 4


@dataclass(frozen=True)
class Recording:
    """What a machine computed.

    Attributes:
        header: GPU, driver, date; under "cases" the digest of every case's text.
        outputs: bytes by case name.
    """

    header: dict[str, Any]
    outputs: dict[str, Bytes]


def write(file: Path, recorded: Recording) -> None:
    """Writes a recording, compressed."""
    arrays = {name: _planes(output) for name, output in recorded.outputs.items()}
    header = np.frombuffer(json.dumps(recorded.header).encode(), dtype=np.uint8)
    np.savez_compressed(file, header=header, **arrays)  # type: ignore[arg-type]


def read(file: Path) -> Recording:
    """Reads a recording."""
    with np.load(file) as arrays:
        header = json.loads(bytes(arrays["header"]))
        outputs = {
            name: np.ascontiguousarray(arrays[name].T).reshape(-1)
            for name in arrays.files
            if name != "header"
        }
    return Recording(header, outputs)


def difference(computed: Bytes, recorded: Bytes) -> str:
    """Empty if equal, else how many words differ, and the first of them."""
    if computed.shape != recorded.shape:
        return f"{computed.size} bytes, recorded are {recorded.size}"
    words, expected = computed.view("<u4"), recorded.view("<u4")
    different = np.flatnonzero(words != expected)
    if not different.size:
        return ""
    i = int(different[0])
    return (
        f"{different.size} of {words.size} words, first word {i}:"
        f" computed {words[i]:#010x}, recorded {expected[i]:#010x}"
    )


def _planes(output: Bytes) -> Bytes:
    """[4, words]: all first bytes of the words, then all second ones. Compresses far better."""
    return np.ascontiguousarray(output.reshape(-1, _WORD).T)
