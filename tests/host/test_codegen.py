"""The generated translation unit: golden text, operand lists, static asserts, names."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from deep_gemm.config.gemm_config import BLOCK_SLOT_BYTES, GemmConfig, Grouping
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.sm90 import BLOCK_N
from deep_gemm.jit.codegen import generate, generate_k_group_maps, wgmma_specialisation
from deep_gemm.jit.source import include_root, included_headers
from deep_gemm.kernels.arguments import GemmArguments, KGroupMapsArguments

GOLDEN = Path(__file__).parent / "golden"
CONFIG = GemmConfig(128, 32, 4, 2, 2, 1)


def legal_configs() -> list[GemmConfig]:
    shapes = [(16, 1), (32, 1), (64, 1), (128, 2), (256, 2)]
    configs = [
        GemmConfig(block_m, block_n, num_stages, num_math_warpgroups, *cluster)
        for (block_m, num_math_warpgroups), block_n in product(shapes, BLOCK_N)
        for num_stages, cluster in product((2, 3, 7), ((1, 1), (2, 1), (1, 2)))
    ]
    kinds = product(Grouping, (1, 128), (2, 4))
    variants = [
        replace(config, grouping=grouping, gran_n=gran_n, d_bytes=d_bytes)
        for config, (grouping, gran_n, d_bytes) in product(configs, kinds)
    ]
    return [config for config in variants if not broken_rules(config)]


def test_the_text_is_the_golden_one(tmp_path: Path) -> None:
    text = generate(CONFIG, "90a").text
    golden = GOLDEN / f"{CONFIG.name}.cu"
    if text != golden.read_text():
        changed = tmp_path / golden.name
        changed.write_text(text)
        pytest.fail(f"if the change is meant: cp {changed} {golden}")


@pytest.mark.parametrize("k", [32, 64, 128])
@pytest.mark.parametrize("n", BLOCK_N)
def test_the_wgmma_wrapper_lists_each_register_once_a_statement(n: int, k: int) -> None:
    text = wgmma_specialisation(n, k)
    count, steps = n // 2, k // 32
    assert text.startswith(f"template <>\nstruct deep_gemm::ptx::WgmmaFp8<{n}> {{")
    assert text.count(f"(float (&d)[{count}]") == 2
    # Accumulators, the two descriptors, then scale-d and the two signs.
    operands = ", ".join(f"%{i}" for i in range(count))
    instruction = f'"wgmma.mma_async.sync.aligned.m64n{n}k32.f32.e4m3.e4m3 {{{operands}}}, '
    found = re.findall(re.escape(instruction) + r'%(\d+), %(\d+), (\w+), 1, 1;\\n"', text)
    assert found == [
        (str(count + 2 * i), str(count + 2 * i + 1), "adds" if i else "sets") for i in range(steps)
    ]
    assert "setp.ne.b32 sets, 0, 0;" in text and "setp.eq.b32 adds, 0, 0;" in text
    descriptors = re.findall(r'"l"\((\w)\.at\(\w_bytes \+ (\d+)\)\)', text)
    assert descriptors == [(name, str(32 * i)) for i in range(steps) for name in "ab"]
    outputs = re.findall(r'"\+f"\(d\[(\d+)\]\)', text)
    assert outputs == [str(i) for i in range(count)] * 2


@pytest.mark.parametrize("config", legal_configs()[::101], ids=lambda config: config.name)
def test_both_languages_are_held_together(config: GemmConfig) -> None:
    text = generate(config, "90a").text
    asserted = dict(re.findall(r"static_assert\((.*) == (\d+)\);", text))
    assert asserted["sizeof(deep_gemm::SharedStorage<kConfig>)"] == str(config.smem_bytes)
    assert asserted["sizeof(deep_gemm::GemmArguments)"] == str(GemmArguments.cxx_size())
    assert asserted["sizeof(deep_gemm::BlockSlot)"] == str(BLOCK_SLOT_BYTES)
    for name in ("num_accumulators", "num_threads", "d_swizzle_bytes"):
        assert asserted[f"kConfig.{name}()"] == str(getattr(config, name))


def test_it_has_one_entry_with_the_launch_bounds_of_the_config() -> None:
    for config in legal_configs()[::47]:
        source = generate(config, "90a")
        assert source.arch == "90a"
        entry = rf"__launch_bounds__\({config.num_threads}, 1\)\s+{source.entry}\("
        assert len(re.findall(entry, source.text)) == 1
        assert source.text.count('extern "C" __global__') == 1
        assert f"WgmmaFp8<{config.block_n}>" in source.text
        assert f"GemmConfig kConfig{config.initialiser()};" in source.text


def test_different_configs_have_different_names_and_texts() -> None:
    configs = legal_configs()[::3]
    assert {(c.grouping, c.gran_n, c.d_bytes) for c in configs} == set(
        product(Grouping, (1, 128), (2, 4))
    )
    sources = [generate(config, "90a") for config in configs]
    assert len(configs) > 300
    assert len({source.name for source in sources}) == len(configs)
    assert len({source.text for source in sources}) == len(configs)


def test_the_same_config_has_the_same_text() -> None:
    assert generate(CONFIG, "90a") == generate(replace(CONFIG), "90a")


def test_the_initialiser_has_the_fields_of_the_struct_in_order() -> None:
    header = (include_root() / "config.cuh").read_text()
    _, _, body = header.partition("struct GemmConfig {")
    fields = re.findall(r"^    (?:int|bool|Grouping) (\w+);", body, re.MULTILINE)
    assert re.findall(r"\.(\w+) = ", CONFIG.initialiser()) == fields
    assert len(fields) >= 6


def test_its_headers_are_ours_and_cover_all_roles() -> None:
    names = set(included_headers(generate(CONFIG, "90a").text))
    folders = {name.partition("/")[0] for name in names}
    assert {"common", "ptx", "layout", "pipeline", "scheduler", "mainloop", "epilogue"} <= folders
    assert "config.cuh" in names


def test_the_maker_of_group_maps_is_held_to_its_arguments() -> None:
    source = generate_k_group_maps("90a")
    size = KGroupMapsArguments.cxx_size()
    assert f"static_assert(sizeof(deep_gemm::KGroupMapsArguments) == {size});" in source.text
    # One warp, as the kernel's shuffles and the launch have it.
    assert re.search(rf"__launch_bounds__\(32\)\s+{source.entry}\(", source.text)
    assert included_headers(source.text)
