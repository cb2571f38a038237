"""Every kernel that selection can return: it compiles for sm_90a, spills nothing, fits the SM.

Which configurations are candidates depends on a problem's M, N and multiprocessors only through
thresholds, so a few problems have all of them; a sweep of selections shows that none is missing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import pytest

from deep_gemm.config.gemm_config import SF_GROUP, GemmConfig
from deep_gemm.config.legality import broken_rules, max_stages
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.config.sm90 import candidates
from deep_gemm.errors import CompilationError
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import CompiledKernel, select_compiler
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library
from tests.compile.sass import disassemble, main_loop, wgmmas
from tests.compile.test_compilers import label, nvrtc_libraries
from tests.problems import PROJECTIONS, ROWS

REGISTERS_OF_SM = 65536

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def all_configs() -> dict[tuple[int, int], list[GemmConfig]]:
    """Every configuration that selection can return, by block shape."""
    configs: dict[tuple[int, int], list[GemmConfig]] = {}
    for m in (16, 32, 8192):
        for config in candidates(GemmProblem(m, 8192, 8192)):
            configs.setdefault((config.block_m, config.block_n), []).append(config)
    return configs


CONFIGS = all_configs()


def widest_of_each_kind() -> list[GemmConfig]:
    """The widest configuration of each kind of main loop, and of each kind of cluster."""
    kinds: dict[object, GemmConfig] = {}
    for config in sorted(chain(*CONFIGS.values()), key=lambda config: config.block_n):
        cluster = (config.cluster_m, config.cluster_n)
        height = config.mma_rows if config.cluster_size == 1 else 0
        kinds[height, config.num_accumulators, cluster] = config
    return list(kinds.values())


each_widest = pytest.mark.parametrize(
    "config", widest_of_each_kind(), ids=lambda config: config.name
)


def check_registers(config: GemmConfig, kernel: CompiledKernel) -> None:
    """No spills, and the registers of all threads fit the SM before and after they are traded."""
    assert kernel.spill_bytes == 0
    share = REGISTERS_OF_SM // config.num_threads // 8 * 8
    assert kernel.registers <= min(255, share)
    traded = dict(re.findall(r"setmaxnreg\.(inc|dec)\.sync\.aligned\.u32 (\d+);", kernel.ptx))
    if config.num_math_warpgroups == 1:
        assert not traded
        return
    # A kernel that trades registers starts with an equal share of all of them.
    assert kernel.registers == share
    math, load = int(traded["inc"]), int(traded["dec"])
    assert load < share < math
    assert 128 * (config.num_math_warpgroups * math + load) <= REGISTERS_OF_SM


@pytest.mark.parametrize(
    "shape", CONFIGS, ids=lambda shape: f"block_m={shape[0]}-block_n={shape[1]}"
)
def test_every_candidate_compiles_without_spills(shape: tuple[int, int]) -> None:
    for config in CONFIGS[shape]:
        kernel = build(generate(config, "90a"))
        check_registers(config, kernel)
        assert kernel.static_smem_bytes == 0
        assert re.search(r"^\.target sm_90a$", kernel.ptx, re.MULTILINE)
        assert f".maxntid {config.num_threads}" in kernel.ptx
        assert f"wgmma.mma_async.sync.aligned.m64n{config.block_n}k32" in kernel.ptx
        assert ("multicast::cluster" in kernel.ptx) == (config.cluster_size == 2)


@pytest.mark.parametrize("parts", [2, 3, 4, 8])
def test_kernels_that_split_k_compile_without_spills(parts: int) -> None:
    for block_m, num_math_warpgroups in ((16, 1), (64, 1), (128, 2)):
        block_n = 144 // (16 * parts) * 16 * parts
        shape = GemmConfig(block_m, block_n, 3, num_math_warpgroups, cluster_k=parts)
        config = replace(shape, num_stages=max_stages(shape))
        kernel = build(generate(config, "90a"))
        assert not broken_rules(config)
        check_registers(config, kernel)
        assert kernel.ptx.count("st.async.shared::cluster") == block_n // 8
        assert "multicast::cluster" not in kernel.ptx


@pytest.mark.parametrize("num_sms", [1, 2, 77, 132])
def test_selection_returns_no_other(num_sms: int) -> None:
    compiled = {config for configs in CONFIGS.values() for config in configs}
    rows = ROWS if num_sms == 132 else ROWS[::5]
    for m, (n, k) in product(rows, PROJECTIONS):
        problem = GemmProblem(m, n, k, num_sms=num_sms)
        assert select(problem).config in compiled
        assert compiled.issuperset(candidates(problem))


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
@each_widest
def test_every_nvrtc_compiles_it_without_spills(library: Library, config: GemmConfig) -> None:
    check_registers(config, Nvrtc(library).compile(generate(config, "90a")))


@each_widest
def test_machine_code_is_as_meant(config: GemmConfig, tmp_path: Path) -> None:
    code = disassemble(build(generate(config, "90a")).cubin, tmp_path)
    assert not [line for line in code if re.search(r"\b(LDL|STL)\b", line)], "local memory"
    found = wgmmas(code)
    assert {wgmma.shape for wgmma in found} == {f"64x{config.block_n}x32"}
    # A k block is four instructions on one set of accumulators, which the first of them clears.
    groups = [found[i : i + 4] for i in range(0, len(found), 4)]
    for group in groups:
        assert [wgmma.starts_from_zero for wgmma in group] == [True, False, False, False]
        assert [wgmma.ends_group for wgmma in group] == [False, False, False, True]
        assert len({wgmma.accumulator for wgmma in group}) == 1
    assert len(groups) % config.num_waves == 0
    assert len({group[0].accumulator for group in groups}) == config.num_accumulators


@each_widest
def test_the_main_loop_never_stops_for_nothing(config: GemmConfig, tmp_path: Path) -> None:
    loop = main_loop(disassemble(build(generate(config, "90a")).cubin, tmp_path))
    # Unrolled by the sets of accumulators, or where there is but one by a group of scale factors.
    num_k_blocks = 2 if config.num_accumulators == 2 else SF_GROUP
    assert len(wgmmas(loop)) == 4 * config.num_waves * num_k_blocks
    # With two sets of accumulators, a wait leaves the next k block running.
    waits = {line.split()[-2] for line in loop if line.startswith("WARPGROUP.DEPBAR")}
    assert waits == {"0x1" if config.num_accumulators == 2 else "0x0"}
    # A release at cluster scope would put one into every k block.
    assert not [line for line in loop if "MEMBAR" in line and "GPU" in line]


@pytest.mark.parametrize(
    "expression",
    ["SharedStorage<kConfig>", "GemmArguments", "num_accumulators", "num_threads", "d_swizzle"],
)
def test_a_size_on_which_the_languages_differ_does_not_compile(
    expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = generate(CONFIGS[64, 16][0], "90a")
    pattern = rf"(static_assert\(.*{re.escape(expression)}.* == )(\d+)"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{int(match[2]) + 1}", source.text)
    assert count == 1
    with pytest.raises(CompilationError, match="static assertion failed"):
        select_compiler().compile(replace(source, text=text))
