"""The cache key, the headers that go into it, and the knobs that choose the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deep_gemm import knobs
from deep_gemm.errors import ArgumentError, CompilationError, MissingDependencyError
from deep_gemm.jit import build, source
from deep_gemm.jit.build import cache_key
from deep_gemm.jit.compiler import Compiler, Translation, select_compiler
from deep_gemm.jit.nvcc import find_nvcc
from deep_gemm.jit.source import KernelSource, forget_headers, include_root, included_headers

SOURCE = KernelSource("kernel_a", '#include "top.cuh"\nvoid a();\n', "a", "90a")


class FakeCompiler(Compiler):
    def __init__(
        self,
        name: str = "NVRTC",
        version: str = "13.0",
        fingerprint: str = "f",
        options: tuple[str, ...] = ("-x", "-y"),
    ) -> None:
        self.name, self.version, self.fingerprint = name, version, fingerprint
        self._options = options

    def options(self, arch: str) -> tuple[str, ...]:
        return self._options

    def translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        raise NotImplementedError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An include root of the test's own: top.cuh -> deep/middle.cuh -> leaf.cuh."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "top.cuh").write_text('#include "deep/middle.cuh"\n')
    (tmp_path / "deep/middle.cuh").write_text('  #  include "leaf.cuh" // why\n')
    (tmp_path / "leaf.cuh").write_text("#include <cstdint>\n")
    (tmp_path / "other.cuh").write_text("\n")
    monkeypatch.setattr(source, "include_root", lambda: tmp_path)
    forget_headers()
    return tmp_path


def test_key_is_stable_and_a_sha256(root: Path) -> None:
    key = cache_key(SOURCE, FakeCompiler())
    assert key == cache_key(replace(SOURCE), FakeCompiler())
    assert len(bytes.fromhex(key)) == 32


@pytest.mark.parametrize(
    ("field", "value"), [("name", "b"), ("text", "void a();\n"), ("entry", "b"), ("arch", "100a")]
)
def test_every_source_field_changes_the_key(root: Path, field: str, value: str) -> None:
    changed = replace(SOURCE, **{field: value})
    assert cache_key(changed, FakeCompiler()) != cache_key(SOURCE, FakeCompiler())


@pytest.mark.parametrize(
    "compiler",
    [
        FakeCompiler(name="NVCC"),
        FakeCompiler(version="13.1"),
        FakeCompiler(fingerprint="g"),
        FakeCompiler(options=("-y", "-x")),
        FakeCompiler(options=("-x",)),
    ],
    ids=["name", "version", "fingerprint", "option-order", "fewer-options"],
)
def test_every_compiler_field_changes_the_key(root: Path, compiler: FakeCompiler) -> None:
    assert cache_key(SOURCE, compiler) != cache_key(SOURCE, FakeCompiler())


def test_schema_changes_the_key(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_key(SOURCE, FakeCompiler())
    monkeypatch.setattr(build, "SCHEMA_VERSION", build.SCHEMA_VERSION + 1)
    assert cache_key(SOURCE, FakeCompiler()) != before


@pytest.mark.parametrize("header", ["top.cuh", "deep/middle.cuh", "leaf.cuh"])
def test_a_changed_header_changes_the_key(root: Path, header: str) -> None:
    before = cache_key(SOURCE, FakeCompiler())
    (root / header).write_text((root / header).read_text() + "// more\n")
    assert cache_key(SOURCE, FakeCompiler()) == before  # headers are read once per process
    forget_headers()
    assert cache_key(SOURCE, FakeCompiler()) != before


def test_a_header_that_is_not_read_leaves_the_key(root: Path) -> None:
    before = cache_key(SOURCE, FakeCompiler())
    (root / "other.cuh").write_text("// changed\n")
    forget_headers()
    assert cache_key(SOURCE, FakeCompiler()) == before


@pytest.mark.parametrize(
    "headers",
    [{}, {"b.cuh": b"x"}, {"a.cuh": b"y"}, {"a.cuh": b"x", "b.cuh": b""}, {"a.cuhx": b""}],
    ids=["none", "renamed", "changed", "one-more", "run-together"],
)
def test_headers_change_the_key_by_name_and_content(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, bytes]
) -> None:
    monkeypatch.setattr(build, "included_headers", lambda text: {"a.cuh": b"x"})
    before = cache_key(SOURCE, FakeCompiler())
    monkeypatch.setattr(build, "included_headers", lambda text: headers)
    assert cache_key(SOURCE, FakeCompiler()) != before


def test_fields_cannot_run_into_each_other(root: Path) -> None:
    def key(name: str, entry: str, options: tuple[str, ...]) -> str:
        return cache_key(KernelSource(name, "", entry, "90a"), FakeCompiler(options=options))

    keys = [
        key("ab", "c", ("-x",)),
        key("a", "bc", ("-x",)),
        key("ab", "c", ("-", "x")),
        key("ab", "c", ("-option\nx",)),
        key("ab", "c", ("-xname 2\nab",)),
        key("ab", "c\ntext 0\n", ("-x",)),
    ]
    assert len(set(keys)) == len(keys)


def test_headers_are_found_transitively_and_sorted(root: Path) -> None:
    headers = included_headers(SOURCE.text)
    assert list(headers) == ["deep/middle.cuh", "leaf.cuh", "top.cuh"]
    assert headers["leaf.cuh"] == b"#include <cstdint>\n"


def test_headers_may_include_each_other(root: Path) -> None:
    (root / "leaf.cuh").write_text('#pragma once\n#include "top.cuh"\n')
    assert len(included_headers(SOURCE.text)) == 3


def test_an_angled_include_below_the_root_counts(root: Path) -> None:
    assert list(included_headers("#include <other.cuh>\n#include <vector>\n")) == ["other.cuh"]


def test_a_commented_include_does_not_count(root: Path) -> None:
    assert not included_headers('// #include "absent.cuh"\n')


def test_a_missing_header_is_named_with_its_includer(root: Path) -> None:
    (root / "leaf.cuh").write_text('#include "absent.cuh"\n')
    with pytest.raises(MissingDependencyError, match=r'leaf\.cuh: #include "absent\.cuh"'):
        included_headers(SOURCE.text)


def test_an_include_by_macro_is_refused(root: Path) -> None:
    with pytest.raises(CompilationError, match="got HEADER"):
        included_headers("#include HEADER\n")


def test_include_root_holds_our_headers() -> None:
    assert list(include_root().rglob("*.cuh"))


def test_a_missing_include_root_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "__file__", str(tmp_path / "deep_gemm/jit/source.py"))
    with pytest.raises(MissingDependencyError, match="pip install"):
        include_root()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_a_name_must_be_safe_as_a_file_name(name: str) -> None:
    with pytest.raises(ArgumentError, match="name: must match"):
        replace(SOURCE, name=name)


def test_a_bad_flag_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(knobs.jit_use_nvrtc.name, "yes")
    with pytest.raises(ArgumentError, match="DG_JIT_USE_NVRTC: must be 0 or 1, got 'yes'"):
        select_compiler()


def test_a_bad_nvcc_names_path_and_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DG_JIT_USE_NVRTC", "0")
    monkeypatch.setenv("DG_JIT_NVCC_COMPILER", str(tmp_path / "nvcc"))
    with pytest.raises(MissingDependencyError, match=f"{tmp_path}/nvcc.*DG_JIT_NVCC_COMPILER"):
        select_compiler()


def test_nvcc_is_the_given_one_then_the_toolkits_then_the_one_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit, path = tmp_path / "cuda", tmp_path / "on_path"
    for folder in (toolkit / "bin", path):
        folder.mkdir(parents=True)
        (folder / "nvcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(path))
    assert find_nvcc(tmp_path / "given", toolkit) == tmp_path / "given"
    assert find_nvcc(None, toolkit) == toolkit / "bin/nvcc"
    assert find_nvcc(None, tmp_path) == path / "nvcc"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="DG_JIT_NVCC_COMPILER"):
        find_nvcc(None, None)


def fake_nvcc(folder: Path, release: str) -> Path:
    folder.mkdir()
    path = folder / "nvcc"
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V{release}'\n")
    path.chmod(0o755)
    return path


def test_selection_follows_the_knobs_within_one_process(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DG_JIT_USE_NVRTC", "0")
    monkeypatch.setenv("DG_JIT_NVCC_COMPILER", str(fake_nvcc(tmp_path / "x", "13.0.1")))
    first = select_compiler()
    assert (first.name, first.version) == ("NVCC", "13.0.1")
    assert select_compiler() is first
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-DX")
    with_flags = select_compiler()
    assert cache_key(SOURCE, with_flags) != cache_key(SOURCE, first)
    monkeypatch.setenv("DG_JIT_NVCC_COMPILER", str(fake_nvcc(tmp_path / "y", "13.0.2")))
    assert select_compiler().version == "13.0.2"
