"""Kernels compiled side by side for a benchmark."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from benchmarks.compiling import chosen_configs, compile_kernels, summarise
from benchmarks.problems import Problem


def test_kernels_are_built_into_the_cache(tmp_path: Path) -> None:
    env = {"DG_JIT_CACHE_DIR": str(tmp_path)}
    (config,) = chosen_configs([Problem(16, 64, 256), Problem(16, 64, 384)], num_sms=132)
    broken = dataclasses.replace(config, block_n=20)
    good, bad = sorted(compile_kernels([config, broken], 2, env), key=lambda row: "error" in row)
    assert (good["config"], good["cached"], good["spill_bytes"]) == (config.name, False, 0)
    assert 0 < good["compile_s"] <= good["build_s"]
    assert bad["config"] == broken.name
    assert bad["error"]
    assert summarise([good, bad]).startswith("2 kernels, 1 failed, 1 compiled: median ")
    (again,) = compile_kernels([config], 1, env)
    assert again["cached"]
