"""The dense table's rows, its result file, and how the README shows it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import torch

from benchmarks import chart, compiling, monitor, results, table
from benchmarks.__main__ import main
from benchmarks.monitor import Sample, parse_smi, summarise
from benchmarks.problems import DENSE, Problem, choose
from benchmarks.results import Report
from deep_gemm import fp8_gemm_nt, gemm
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.config.tuned_file import slug

H100_FLOORS = {"1x2112x7168": 5.1, "16x576x7168": 1.4, "4096x7168x16384": 601.3}


def dense_row(m: int, ours: float | None, reference: float | None) -> dict[str, object]:
    row = {"table": "dense", "m": m, "n": 2112, "k": 7168, "floor_us": 5.0, "spread": {}}
    return {**row, "ours_us": ours, "reference_us": reference}


def document(*rows: dict[str, object]) -> dict[str, object]:
    header = {"gpu": "NVIDIA H100", "driver": "580", "date": "2026-11-22", "commit": "abc"}
    return {**header, "versions": {"torch": "2.11"}, "method": "profiler", "rows": list(rows)}


def test_the_table_has_its_42_rows_and_their_floors() -> None:
    assert len(set(DENSE)) == 42
    for name, us in H100_FLOORS.items():
        assert Problem.parse(name) in DENSE
        assert Problem.parse(name).floor_us == pytest.approx(us, abs=0.05)


def test_rows_are_chosen_by_pattern() -> None:
    assert choose([]) == DENSE
    assert len(choose(["16x*x*", "16x576x7168"])) == 7
    assert choose(["3x48x80"]) == (Problem(3, 48, 80),)


@pytest.mark.parametrize("pattern", ["16x576", "axbxc", "17x*x*"])
def test_a_pattern_that_names_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern.replace("*", r"\*")):
        choose([pattern])


class Asked(Exception):
    """A call has come as far as the choice of its kernel."""


def asked_by_call(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> GemmProblem:
    """What the public call asks selection for."""

    def chosen(asked: GemmProblem) -> None:
        raise Asked(asked)

    monkeypatch.setattr(gemm, "chosen", chosen)
    m, n, k = problem.m, problem.n, problem.k
    a, b = (torch.empty(rows, k, dtype=torch.float8_e4m3fn) for rows in (m, n))
    sfa, sfb = (torch.empty(rows, -(-k // 128)) for rows in (m, -(-n // 128)))
    with pytest.raises(Asked) as caught:
        fp8_gemm_nt((a, sfa), (b, sfb), torch.empty(m, n, dtype=torch.bfloat16))
    asked: GemmProblem = caught.value.args[0]
    return asked


@pytest.mark.parametrize("few_kernels", ["0", "1"])
@pytest.mark.parametrize(("name", "splits_k"), [("16x576x7168", True), ("512x4096x7168", False)])
def test_a_row_names_the_kernel_that_its_call_selects(
    name: str, splits_k: bool, few_kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DG_EMULATOR_ARCH", raising=False)
    monkeypatch.setenv("DG_FEW_KERNELS", few_kernels)
    problem = Problem.parse(name)
    asked = asked_by_call(problem, monkeypatch)
    config = compiling.chosen_config(problem, asked.num_sms)
    assert config == select(asked).config
    assert (config.cluster_k > 1) == splits_k


def test_a_row_is_the_median_of_passes_with_their_spread() -> None:
    report = Report()
    report.extra["dense", "16x2112x7168"].update(config="c", cublaslt_us=None)
    for us in (10.0, 12.0, 11.0):
        report.add("dense", "16x2112x7168", {"ours": us, "reference": 20.0})
    report.add("host", "16x2112x7168", {"ours": 9.0})
    dense, host = report.document()["rows"]
    assert (dense["ours_us"], dense["reference_us"], dense["cublaslt_us"]) == (11.0, 20.0, None)
    assert (dense["config"], dense["floor_us"]) == ("c", pytest.approx(5.1, abs=0.1))
    assert dense["spread"] == {"ours": pytest.approx(2 / 11, abs=1e-4), "reference": 0}
    assert (host["table"], host["ours_us"], "floor_us" in host) == ("host", 9.0, False)


def test_a_row_that_was_never_timed_is_there_all_the_same() -> None:
    report = Report()
    report.extra["dense", "16x2112x7168"].update(ours_us=None, errors={"ours": "hung"})
    (row,) = report.document()["rows"]
    assert (row["ours_us"], row["errors"], row["m"]) == (None, {"ours": "hung"}, 16)


def test_old_results_stay(tmp_path: Path) -> None:
    names = []
    for number in range(3):
        path = results.new_file(tmp_path / "results", "dense-h100", ".json")
        results.write(path, {"number": number})
        names.append(path.name)
    assert names == ["dense-h100.json", "dense-h100-2.json", "dense-h100-3.json"]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(names)
    assert table.load(tmp_path / "results" / names[1]) == {"number": 1}


def test_a_gpu_name_becomes_part_of_a_file_name() -> None:
    assert slug("NVIDIA H100 80GB HBM3") == "h100-80gb-hbm3"


def test_clocks_are_those_of_a_busy_gpu() -> None:
    samples = [Sample(345, 70, 0), Sample(1700, 600, 90), Sample(1800, 650, 40)]
    assert summarise(samples) == (1750, 625)
    assert summarise(samples[:1]) == (345, 70)
    assert summarise([]) == (None, None)
    assert parse_smi("1980, 311.25, 87") == Sample(1980, 311.25, 87)


def test_only_readings_taken_within_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000, 1000000))
    read = lambda: Sample(next(clock), 500, 50)  # noqa: E731
    monkeypatch.setattr(monitor, "_reader", lambda uuid: (read, 0.001))
    watched = monitor.Monitor()
    watched.start("GPU-0")
    taken = []
    for _ in range(2):
        with watched.sampling() as samples:
            time.sleep(0.05)
        taken.append(list(samples))
    assert min(map(len, taken)) > 2
    assert taken[0][-1].clock_mhz < taken[1][0].clock_mhz
    assert len(watched.samples) <= sum(map(len, taken)) + 2


def test_the_table_shows_times_and_ratios() -> None:
    text = table.render(document(dense_row(16, 8.0, 12.0), dense_row(64, None, 12.0)))
    assert "| 16 | 2112 | 7168 | 8.0 | 12.0 | 5.0 | 1.50 | 0.62 |" in text
    assert "| 64 | 2112 | 7168 | - | 12.0 | 5.0 | - | - |" in text
    assert "cuBLASLt" not in text, "a column without any time"


def test_the_summary_has_means_and_the_slower_rows() -> None:
    rows = [dense_row(16, 8.0, 16.0), dense_row(16, 8.0, 4.0), dense_row(64, 5.0, 20.0)]
    failed = {**dense_row(64, None, 9.0), "errors": {"ours": "hung"}}
    compiled = [{"table": "compile", "compile_s": seconds} for seconds in (0.2, 0.5, 0.3)]
    text = "\n".join(table.summary(document(*rows, failed, *compiled)))
    mean = math.exp(math.log(2 * 0.5 * 4) / 3)
    assert f"3 rows: **{mean:.2f}** (M = 16: 1.00, M = 64: 4.00)" in text
    assert "slower than the reference: 16x2112x7168 (0.500)" in text
    assert "+ 2.5 us, and the reference): 1 of 3" in text
    assert "failed: 64x2112x7168: hung" in text
    assert "3 kernels of this table, cold: median 0.30 s, at most 0.50 s" in text


def grouped_row(table: str, ours: float | None, reference: float | None) -> dict[str, object]:
    row = dense_row(801, ours, reference)
    return {**row, "table": table, "groups": 4, "num_kernels": {"ours": 1, "reference": 1}}


def test_the_grouped_tables_show_their_groups() -> None:
    two = {"num_kernels": {"ours": 1, "reference": 3, "cublaslt": 2}}
    missing = {**grouped_row("k_grouped", 8.0, None), "errors": {"reference": "no k_grouped"}}
    rows = [grouped_row("masked", 8.0, 12.0), {**grouped_row("wgrad", 8.0, 4.0), **two}, missing]
    sustained = {**grouped_row("sustained", 9.0, 18.0), "of": "contiguous"}
    text = table.render(document(*rows, sustained))
    assert "| table | groups | M | N | K | ours | reference | kernels | floor |" in text
    assert "| masked | 4 | 801 | 2112 | 7168 | 8.0 | 12.0 | - | 5.0 | 1.50 | 0.62 |" in text
    assert "| wgrad | 4 | 801 | 2112 | 7168 | 8.0 | 4.0 | 1 / 3 | 5.0 | 0.50 | 0.62 |" in text
    assert "| contiguous | 4 | 801 | 2112 | 7168 | 9.0 | 18.0 | 5.0 | 2.00 | 0.56 |" in text
    assert "of 2 rows: **0.87** (masked: 1.50, wgrad: 0.50)" in text
    assert "slower than the reference: wgrad 4x801x2112x7168 (0.500)" in text
    assert "does not compute: k_grouped 4x801x2112x7168: no k_grouped." in text


def test_each_result_file_has_its_document() -> None:
    assert table.home(document(dense_row(16, 8.0, 12.0))) == "README.md"
    home = table.home(document(grouped_row("masked", 8.0, 12.0)))
    for path in ("README.md", home):
        text = (table.ROOT / path).read_text()
        assert (text.count(BEGIN), text.count(END)) == (1, 1)
    assert home == "docs/speed.md"


def test_a_run_without_the_reference_still_renders() -> None:
    text = table.render(document(dense_row(16, 8.0, None)))
    assert "| 16 | 2112 | 7168 | 8.0 | 5.0 | 0.62 |" in text
    assert "Speed-up over" not in text


BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def test_the_readme_is_changed_between_its_markers_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    table.write_between(readme, "new\n")
    table.write_between(readme, "newer\n")
    assert readme.read_text() == f"above\n{BEGIN}\nnewer\n{END}\nbelow\n"


@pytest.mark.parametrize("text", ["", BEGIN, END + BEGIN, BEGIN * 2])
def test_a_readme_without_its_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="<!-- benchmarks -->"):
        table.write_between(readme, "new\n")
    assert readme.read_text() == text


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [dense_row(16, 8.0, 12.0), dense_row(64, 8.0, 7.0), dense_row(64, None, 7.0)]
    paths = [chart.draw(document(*rows), tmp_path / f"{name}.svg") for name in "ab"]
    texts = [path.read_text() for path in paths if path is not None]
    assert texts[0] == texts[1]
    assert [f">{text}<" in texts[0] for text in ("M = 16", "M = 64", "slower")] == [True] * 3
    assert chart.draw(document(dense_row(64, None, 7.0)), tmp_path / "none.svg") is None


def test_the_command_line_renders_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dense.json"
    path.write_text(json.dumps(document(dense_row(16, 8.0, 12.0))))
    assert main(["table", str(path)]) == 0
    assert "| 16 | 2112 | 7168 | 8.0 |" in capsys.readouterr().out


def test_measuring_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 1
    assert main(["grouped"]) == 1
    assert main(["sweep"]) == 1
    assert capsys.readouterr().err.count("needs an NVIDIA GPU") == 3
