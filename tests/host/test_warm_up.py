"""`precompile`: every kernel once, several at a time; what it reports, and how it fails."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deep_gemm import MqaProblem, Precompiled, ProblemRange, precompile, problems_of_model
from deep_gemm import warm_up as warm_up_module
from deep_gemm.cli import main
from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.errors import ArgumentError, CompilationError
from deep_gemm.jit import build as build_module
from deep_gemm.jit.build import build, forbid_compilation, forget_builds
from deep_gemm.jit.bundle import unpack
from deep_gemm.warm_up import sources_of
from tests.host.fake_compiler import CountingCompiler

FEW = [ProblemRange(GemmProblem(1, 576, 7168), 512)]
GRADIENTS = GemmProblem(
    *(512, 512, 512), grouping=Grouping.K_GROUPED, num_groups=2, gran_n=1, d_bytes=4
)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingCompiler]:
    compiler = CountingCompiler(tmp_path / "compiled")
    for module in (build_module, warm_up_module):
        monkeypatch.setattr(module, "select_compiler", lambda: compiler)
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "kernels"))
    forget_builds()
    yield compiler
    forget_builds()


def test_every_kernel_is_compiled_once(compiler: CountingCompiler) -> None:
    seen: list[tuple[int, int]] = []
    first = precompile([*FEW, *FEW], jobs=2, progress=lambda *numbers: seen.append(numbers))
    number = first.num_kernels
    assert 3 <= number == first.num_compiled == len(compiler.compiled())
    assert seen == [(done, number) for done in range(1, number + 1)]
    with forbid_compilation():
        assert precompile(FEW, jobs=2).num_compiled == 0
        forget_builds()
        again = precompile(FEW)
    assert again == Precompiled(number, 0, again.seconds) and again.seconds > 0


def test_kernels_are_compiled_side_by_side(compiler: CountingCompiler) -> None:
    # Each of the three compiles waits for the others: one after the other, none would end.
    compiler.meeting = threading.Barrier(3, timeout=60)
    assert precompile([ProblemRange(GRADIENTS, GRADIENTS.m)], jobs=3).num_compiled == 3


def test_k_grouped_products_have_a_kernel_for_their_maps(compiler: CountingCompiler) -> None:
    precompile([ProblemRange(GRADIENTS, GRADIENTS.m)])
    assert compiler.compiled().count("sm90_k_group_maps") == 1
    blackwell = replace(GRADIENTS, arch="100a", mn_major=(True, True))
    names = [source.name for source in sources_of([ProblemRange(blackwell, GRADIENTS.m)])]
    packs = ["pack_fp32_into_ue8m0", "k_grouped_pack_fp32_into_ue8m0"]
    assert names[1:] == [*packs, "sm100_k_group_maps"]


def test_an_indexer_has_kernels_for_prefill_and_for_decoding() -> None:
    for arch, family in (("90a", "sm90"), ("100a", "sm100")):
        problems = problems_of_model("deepseek-v3.2", tp=[8], ep=[64], max_m=64, arch=arch)
        logits = [problem for problem in problems if isinstance(problem, MqaProblem)]
        assert {problem.arch for problem in logits} == {arch}
        sources = list(sources_of([*logits, *logits]))
        assert [source.name for source in sources] == [
            f"{family}_mqa_logits_h64_d128_t4_matrix_fp32",
            f"{family}_mqa_logits_h64_d128_t1_page64_fp32",
            f"{family}_mqa_logits_h64_d128_t2_page64_fp32",
            "paged_key_shares",
        ]
        assert {source.arch for source in sources} == {arch}


def test_every_architecture_has_its_own(compiler: CountingCompiler) -> None:
    blackwell = ProblemRange(GemmProblem(1, 576, 7168, "100a", 148, gran_n=1), 512)
    sources = list(sources_of([blackwell, *FEW]))
    assert {source.arch for source in sources} == {"90a", "100a"}
    assert {source.arch for source in sources if source.name.startswith("sm100_")} == {"100a"}


def test_a_failure_ends_it(compiler: CountingCompiler) -> None:
    compiler.failure = "no luck"
    with pytest.raises(CompilationError, match="no luck"):
        precompile(FEW, jobs=1)
    assert len(compiler.compiled()) < len(list(sources_of(FEW)))


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5])
def test_jobs_must_be_positive(jobs: object) -> None:
    with pytest.raises(ArgumentError, match="jobs: must be a positive int, got"):
        precompile(FEW, jobs=jobs)  # type: ignore[arg-type]


def test_a_bundle_holds_all_of_them(
    compiler: CountingCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "kernels.tar"
    number = precompile(FEW, bundle=bundle).num_kernels
    assert unpack(bundle, tmp_path / "layer") == number
    monkeypatch.setenv("DG_JIT_CACHE_DIR", f"{tmp_path / 'empty'}:{tmp_path / 'layer'}")
    forget_builds()
    with forbid_compilation():
        assert all(build(source).from_cache for source in sources_of(FEW))


def test_the_verb_says_what_it_did(
    compiler: CountingCompiler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"m": [1, 512], "n": 576, "k": 7168}\n')
    bundle = tmp_path / "kernels.tar"
    arguments = ["precompile", "--problems", str(problems), "--jobs", "2", "--bundle", str(bundle)]
    number = len(list(sources_of(FEW)))
    assert main.main(arguments) == 0
    said = f"{number} kernels are ready: {number} compiled, 0 from the cache, "
    assert capsys.readouterr().out.startswith(said)
    assert main.main(arguments) == 0
    assert f": 0 compiled, {number} from the cache, " in capsys.readouterr().out
    assert unpack(bundle, tmp_path / "layer") == number


def test_the_verb_takes_models(
    compiler: CountingCompiler, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tp", "8", "--ep", "64", "--max-m", "64", "--num-sms", "78", "--alignment", "64"]
    assert main.main(["precompile", "--model", "deepseek-v3", *options]) == 0
    expected = sources_of(
        problems_of_model("deepseek-v3", tp=[8], ep=[64], max_m=64, num_sms=78, alignment=64)
    )
    assert len(compiler.compiled()) == len(list(expected))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model or --problems must be given"),
        (["--model", "gpt-2"], "model: must be one of deepseek-r1, .*, got 'gpt-2'"),
        (["--problems", "gone.jsonl"], "path: gone.jsonl cannot be read"),
        (
            ["--model", "glm-4.5-air", "--bundle", "gone/x.tar"],
            "--bundle: the folder gone must exist",
        ),
    ],
)
def test_the_verb_refuses(
    compiler: CountingCompiler,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["precompile", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and re.search(f"^error: .*{message}", err)
