"""DG_JIT_CACHE_DIR as a list: one directory that is written, and layers that are only read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deep_gemm import knobs
from deep_gemm.cli import probes
from deep_gemm.errors import CompilationError
from deep_gemm.jit import build as build_module
from deep_gemm.jit.build import build, cache_key, forbid_compilation, forget_builds
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.layers import CacheLayers
from tests.host.fake_compiler import CountingCompiler, kernel_source

HOME = Path("~/.deep_gemm")

Use = Callable[[str], None]


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingCompiler]:
    compiler = CountingCompiler(tmp_path / "compiled")
    monkeypatch.setattr(build_module, "select_compiler", lambda: compiler)
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("error", RuntimeWarning)
    yield compiler
    forget_builds()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """`use("a:b")` begins as a new process with that list."""

    def begin(text: str) -> None:
        monkeypatch.setenv("DG_JIT_CACHE_DIR", text)
        forget_builds()

    return begin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a", ["/a"]),
        ("a b", ["a b"]),
        ("/a:/b:c", ["/a", "/b", "c"]),
        (":/b", [HOME, "/b"]),
        ("/a:", ["/a", HOME]),
        ("", [HOME]),
    ],
)
def test_the_list(monkeypatch: pytest.MonkeyPatch, text: str, expected: list[str]) -> None:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", text)
    assert knobs.jit_cache_dir.get() == tuple(map(Path, expected))


def snapshot(directory: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.lstat().st_mtime_ns) for path in directory.rglob("*"))


def test_layers_are_read_and_the_first_is_written(compiler: CountingCompiler, use: Use) -> None:
    for entry in "ab":
        use(f"layer_{entry}")
        build(kernel_source(entry))
    before = snapshot(Path("layer_a")), snapshot(Path("layer_b"))
    use("first:layer_a:layer_b")
    with forbid_compilation():
        assert build(kernel_source("a")).from_cache
        assert build(kernel_source("b")).from_cache
    assert not Path("first").exists()
    build(kernel_source("c"))
    assert compiler.compiled() == ["a", "b", "c"]
    assert [path.name for path in Path("first/cache").iterdir()] == ["kernel_c"]
    assert (snapshot(Path("layer_a")), snapshot(Path("layer_b"))) == before


def test_the_first_layer_that_has_it_wins(compiler: CountingCompiler, use: Use) -> None:
    source = kernel_source("a")
    key = cache_key(source, compiler)
    for name, seconds in (("x", 1.0), ("y", 2.0)):
        use(name)
        kernel = build(source)
        meta = KernelCache(Path(name)).path_of(source.name, key) / "meta.json"
        meta.write_text(
            meta.read_text().replace(f'"seconds": {kernel.seconds}', f'"seconds": {seconds}')
        )
    for order, seconds in (("first:x:y", 1.0), ("first:y:x", 2.0), ("y:x", 2.0)):
        use(order)
        assert build(source).seconds == seconds


def test_a_broken_layer_is_passed_over_and_left_alone(compiler: CountingCompiler, use: Use) -> None:
    for name in ("bad", "good"):
        use(name)
        build(kernel_source("a"))
    (cubin,) = Path("bad").glob("cache/*/*/kernel.cubin")
    cubin.write_bytes(b"")
    before = snapshot(Path("bad"))
    use("first:bad:good")
    with forbid_compilation(), pytest.warns(RuntimeWarning, match="read-only layer") as caught:
        assert build(kernel_source("a")).from_cache
    assert len(caught) == 1
    assert snapshot(Path("bad")) == before


def test_a_layer_that_is_not_there_is_an_empty_one(compiler: CountingCompiler, use: Use) -> None:
    use("first:nowhere")
    build(kernel_source("a"))
    assert not Path("nowhere").exists()


def test_a_layer_of_others_is_passed_over_and_the_first_still_works(
    compiler: CountingCompiler, use: Use
) -> None:
    use("layer")
    build(kernel_source("a"))
    Path("layer").chmod(0o777)
    use("first:layer")
    with pytest.warns(RuntimeWarning, match="passed over the layer .*writable by others") as caught:
        build(kernel_source("a"))
        build(kernel_source("b"))
    assert len(caught) == 1
    forget_builds()
    with forbid_compilation():
        assert build(kernel_source("b")).from_cache


def test_a_first_directory_of_others_leaves_the_layers(
    compiler: CountingCompiler, use: Use
) -> None:
    use("layer")
    build(kernel_source("a"))
    Path("first").mkdir()
    Path("first").chmod(0o777)
    use("first:layer")
    with (
        forbid_compilation(),
        pytest.warns(RuntimeWarning, match="cannot be used .*writable by others"),
    ):
        assert build(kernel_source("a")).from_cache


def test_what_is_missing_is_said_of_all_layers(compiler: CountingCompiler, use: Use) -> None:
    use("first:second:third")
    places = ", ".join(str(Path(name).absolute()) for name in ("first", "second", "third"))
    with forbid_compilation(), pytest.raises(CompilationError, match=f"nor in {places}, and"):
        build(kernel_source("a"))


def test_doctor_looks_at_each(compiler: CountingCompiler, use: Use) -> None:
    use("layer")
    build(kernel_source("a"))
    Path("open").mkdir()
    Path("open").chmod(0o777)
    use("first:layer:open:nowhere")
    findings = probes.kernel_cache()
    assert [finding.subject for finding in findings] == ["kernel cache", *["cache layer"] * 3]
    assert [finding.status for finding in findings] == ["ok", "ok", "warning", "warning"]
    assert "read-only, 1 kernel(s)" in findings[1].found
    assert "writable by others" in findings[2].found
    assert not Path("first").exists()
    assert str(CacheLayers()).count(", ") == 3
