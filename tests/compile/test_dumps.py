"""The code of a real kernel, written where knobs ask for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.jit.build import build, forget_builds
from deep_gemm.jit.codegen import generate
from tests.compile.sass import find_nvdisasm


def test_ptx_and_sass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_nvdisasm() is None:
        pytest.skip("needs nvdisasm on PATH or in a wheel (nvidia-cuda-nvdisasm)")
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DG_JIT_DUMP_ASM", "1")
    forget_builds()
    kernel = build(generate(select(GemmProblem(64, 256, 512)).config, "90a"))
    forget_builds()
    (ptx,) = tmp_path.glob(f"dump/{kernel.name}/*/kernel.ptx")
    (sass,) = tmp_path.glob(f"dump/{kernel.name}/*/kernel.sass")
    assert ptx.read_text() == kernel.ptx
    assert sass.parent == ptx.parent
    assert "QGMMA" in sass.read_text()
    # The entry itself never changes, and is found in its place.
    (cubin,) = tmp_path.glob(f"cache/{kernel.name}/{ptx.parent.name}/kernel.cubin")
    assert cubin.read_bytes() == kernel.cubin
