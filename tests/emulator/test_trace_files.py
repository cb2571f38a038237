"""What becomes of a trace: the JSON, the picture, and the verb that writes both."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from deep_gemm.cli import main, trace
from deep_gemm.config.problem import GemmProblem
from deep_gemm.emulator.trace import chrome, picture
from tests.emulator.traces import PAIR, events_of, traced


def test_the_json_holds_every_event(tmp_path: Path) -> None:
    events = events_of(PAIR)
    chrome.write(tmp_path / "x.json", events, traced(PAIR)[0].records, {"times": picture.NOTE})
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["otherData"] == {"times": picture.NOTE}
    rows = document["traceEvents"]
    begun = [row for row in rows if row["ph"] == "b"]
    assert len(begun) == sum(row["ph"] == "e" for row in rows)
    assert sum(row["ph"] in ("X", "b", "i") for row in rows) == len(events)
    assert all(row.get("dur", 0) >= 0 and row.get("ts", 0) >= 0 for row in rows)
    names = {row["args"]["name"] for row in rows if row["ph"] == "M"}
    assert {"CTA 0", "CTA 1", "tensor cores", "warp 8: load warp 8 (TMA)"} <= names
    begun_loads = [row for row in begun if row["cat"] == "load"]
    loads = [row["args"] for row in begun_loads if "stage" in row["args"]]
    of_factors = {row["name"] for row in begun_loads if "stage" not in row["args"]}
    assert of_factors == {"TMA load, SF full 0", "TMA load, SF full 1"}
    assert {(load["stage"], load["k block"] % 3, load["bytes"]) for load in loads} == {
        (stage, stage, num_bytes) for stage in range(3) for num_bytes in (4096, 16384)
    }
    products = [row["args"] for row in rows if row.get("cat") == "wgmma"]
    assert {product["k block"] for product in products} == set(range(16))
    waits = {row["name"] for row in rows if row.get("cat") == "wait for a barrier"}
    assert {*(f"wait for {word} {i}" for word in ("full", "empty") for i in range(3))} <= waits
    assert {"wait for SF full 0", "wait for SF empty 0"} <= waits


def test_rows_of_the_picture() -> None:
    rows = picture.rows_of(events_of(PAIR), 1, lambda i: f"k {i}")
    assert [row.label for row in rows] == [
        "load warp 8 (TMA)",
        "SF warp 9 (TMA, cp.async)",
        *(f"stage {i}" for i in range(3)),
        "tensor cores",
        "math warpgroup 0",
        "math warpgroup 1",
        "TMA stores",
    ]
    shown = {key for row in rows for key, spans in row.spans.items() if spans}
    assert shown == set(picture.COLOURS)
    texts = [text for row in rows for _, text in row.texts]
    assert sorted(texts) == sorted(f"k {i}" for i in range(16))


def test_spans_are_joined_where_they_nearly_touch() -> None:
    spans = [(5.0, 6.0), (0.0, 1.0), (1.5, 2.0), (3.0, 3.0)]
    assert picture.joined(spans, 0.5) == [(0.0, 2.0), (5.0, 6.0)]


def test_the_same_trace_is_the_same_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        picture.draw(events_of(PAIR), "some title", tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(word in text for word in ("some title", picture.NOTE, "stage full", "CTA 1"))


def test_the_picture_of_the_guide_is_of_this_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "trace.svg").read_text(encoding="utf-8")
    assert picture.NOTE in text
    assert [key for key in picture.COLOURS if f">{key}</text>" not in text] == []


def test_the_verb_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    stem = tmp_path / "x.png"
    assert main.main(["trace", "128", "64", "256", "--out", str(stem)]) == 0
    out = capsys.readouterr().out
    assert "modelled, not measured" in out and str(stem) in out
    assert stem.read_bytes().startswith(b"\x89PNG")
    assert json.loads(stem.with_suffix(".json").read_text())["traceEvents"]


def test_the_verb_without_matplotlib_still_writes_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    config = "64x32_s4_w1_c1x1"
    out = str(tmp_path / "x")
    assert main.main(["trace", "64", "32", "512", "--config", config, "--out", out]) == 0
    assert "pip install" in capsys.readouterr().out
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["otherData"]["kernel"] == f"sm90_fp8_gemm_1d2d_{config}_r1"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_the_part_that_is_traced() -> None:
    config = trace.parse_config("128x128_s5_w2_c2x1")
    part = trace.part_of(GemmProblem(4096, 7168, 16384), config)
    assert (part.num_blocks, part.whole_num_blocks, part.num_clusters) == (3, 14, 66)
    assert (part.problem.m, part.problem.n, part.problem.k) == (768, 128, 2048)
    assert part.problem.num_sms == 2
    wide = trace.part_of(GemmProblem(200, 32768, 512), config)
    assert (wide.problem.m, wide.problem.n, wide.num_blocks) == (200, 384, 3)
    small = trace.part_of(GemmProblem(8, 64, 48), config)
    assert (small.problem.m, small.problem.n, small.problem.k) == (8, 64, 48)
