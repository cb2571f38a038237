"""Children that tests pretend: modules that start fast, since they never import torch."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

import deep_gemm

# `import deep_gemm` would import torch; this package has the same modules and nothing else.
_PREAMBLE = f"""
import sys, types

package = types.ModuleType("deep_gemm")
package.__path__ = {list(deep_gemm.__path__)!r}
sys.modules["deep_gemm"] = package
"""


def write_modules(folder: Path, texts: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes modules that children find by name; they may use deep_gemm.tuning.children."""
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(_PREAMBLE + textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
