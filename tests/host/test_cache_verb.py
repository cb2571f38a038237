"""`python -m deep_gemm cache`: what it prints, what it removes and how it exits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deep_gemm.cli.main import main
from deep_gemm.jit.bundle import BundleEntry, write_bundle
from deep_gemm.jit.cache import KernelCache
from tests.host.test_cache import DIGEST, KERNEL

OTHER = "cd" * 32


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[KernelCache, KernelCache]:
    """The first directory with two kernels, and a layer with one."""
    monkeypatch.setenv("DG_JIT_CACHE_DIR", f"{tmp_path / 'first'}:{tmp_path / 'layer'}")
    first, layer = KernelCache(tmp_path / "first"), KernelCache(tmp_path / "layer")
    first.put(KERNEL, DIGEST, "the source")
    first.put(KERNEL._replace(name="other"), OTHER, "x" * 2_000_000)
    layer.put(KERNEL, DIGEST, "the source")
    return first, layer


Caches = tuple[KernelCache, KernelCache]
Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    code = main(["cache", *arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_list_names_every_kernel(caches: Caches, capsys: Captured) -> None:
    code, text, _ = run(capsys, "list")
    heads = [line for line in text.splitlines() if line.startswith("/")]
    assert code == 0 and len(heads) == 2
    assert re.search(rf"{caches[0].directory} \(written\): 2 kernel\(s\), 2\.1 MB", heads[0])
    assert re.search(
        rf"{caches[1].directory} \(read-only layer\): 1 kernel\(s\), 0\.0 MB", heads[1]
    )
    assert len(re.findall(rf"^{DIGEST[:12]} .* {KERNEL.name}$", text, re.MULTILINE)) == 2
    assert len(re.findall(rf"^{OTHER[:12]}  2\.\d\d MB .* other$", text, re.MULTILINE)) == 1


def test_list_as_json(caches: Caches, capsys: Captured) -> None:
    code, text, _ = run(capsys, "list", "--json")
    records = {(r["directory"], r["name"], r["digest"], r["read_only"]) for r in json.loads(text)}
    first, layer = (str(cache.directory) for cache in caches)
    assert code == 0
    assert records == {
        (first, KERNEL.name, DIGEST, False),
        (first, "other", OTHER, False),
        (layer, KERNEL.name, DIGEST, True),
    }


def test_an_empty_cache_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "nowhere"))
    for arguments in (["list"], ["verify", "--fix"], ["prune", "--max-mb", "1"], ["clear"]):
        assert run(capsys, *arguments)[0] == 0
    assert json.loads(run(capsys, "list", "--json")[1]) == []
    assert not (tmp_path / "nowhere").exists()


def damage(cache: KernelCache) -> None:
    (cache.path_of(KERNEL.name, DIGEST) / "kernel.cubin").write_bytes(b"")


def test_verify_finds_nothing_in_a_good_cache(caches: Caches, capsys: Captured) -> None:
    code, text, _ = run(capsys, "verify")
    assert (code, text) == (0, "3 kernel(s) read, 0 broken, 0 removed\n")


def test_verify_names_what_is_broken_and_leaves_it(caches: Caches, capsys: Captured) -> None:
    damage(caches[0])
    place = caches[0].path_of(KERNEL.name, DIGEST)
    code, text, _ = run(capsys, "verify")
    assert code == 1
    assert f"{place}: kernel.cubin does not match its checksum\n" in text
    assert "3 kernel(s) read, 1 broken, 0 removed" in text
    code, text, _ = run(capsys, "verify", "--json")
    (record,) = json.loads(text)
    assert code == 1 and record["digest"] == DIGEST and "checksum" in record["fault"]
    assert place.exists()


def test_fix_removes_what_is_broken_but_in_layers(caches: Caches, capsys: Captured) -> None:
    damage(caches[0])
    damage(caches[1])
    code, text, _ = run(capsys, "verify", "--fix")
    assert code == 1 and "3 kernel(s) read, 2 broken, 1 removed" in text
    assert not caches[0].path_of(KERNEL.name, DIGEST).exists()
    assert caches[0].path_of("other", OTHER).exists()
    assert caches[1].path_of(KERNEL.name, DIGEST).exists()
    caches[1].remove(KERNEL.name, DIGEST)
    assert run(capsys, "verify")[:2] == (0, "1 kernel(s) read, 0 broken, 0 removed\n")


def test_verify_finds_what_others_can_change(caches: Caches, capsys: Captured) -> None:
    caches[0].path_of("other", OTHER).chmod(0o777)
    code, text, _ = run(capsys, "verify")
    assert code == 1 and "writable by others" in text


def test_prune_bounds_the_first_directory(
    caches: Caches, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, _ = run(capsys, "prune", "--max-mb", "3")
    assert (code, text) == (0, f"{caches[0].directory}: removed 0 kernel(s), 0.0 MB\n")
    assert caches[0].get(KERNEL.name, DIGEST) is not None
    monkeypatch.setenv("DG_JIT_CACHE_MAX_MB", "1")
    code, text, _ = run(capsys, "prune")
    assert (code, text) == (0, f"{caches[0].directory}: removed 1 kernel(s), 2.0 MB\n")
    assert caches[0].path_of(KERNEL.name, DIGEST).exists()
    assert caches[1].path_of(KERNEL.name, DIGEST).exists()


def test_prune_needs_a_bound(caches: Caches, capsys: Captured) -> None:
    code, _, errors = run(capsys, "prune")
    assert code == 1 and "--max-mb" in errors and "DG_JIT_CACHE_MAX_MB" in errors


def test_clear_empties_the_first_directory_only(caches: Caches, capsys: Captured) -> None:
    code, text, _ = run(capsys, "clear")
    assert (code, text) == (0, f"{caches[0].directory}: removed 2 kernel(s), 2.1 MB\n")
    assert not list(caches[0].directory.iterdir())
    assert caches[1].path_of(KERNEL.name, DIGEST).exists()


@pytest.mark.parametrize("action", [["clear"], ["prune", "--max-mb", "1"], ["verify", "--fix"]])
def test_what_cannot_be_done_is_an_error(
    caches: Caches, capsys: Captured, monkeypatch: pytest.MonkeyPatch, action: list[str]
) -> None:
    def rename(self: Path, target: Path) -> Path:
        raise OSError("a disk of stone")

    damage(caches[0])
    monkeypatch.setattr(Path, "rename", rename)
    code, _, errors = run(capsys, *action)
    assert code == 1
    assert errors == f"error: kernel cache {caches[0].directory}: a disk of stone\n"


def test_unpack(tmp_path: Path, capsys: Captured) -> None:
    bundle = tmp_path / "kernels.tar"
    write_bundle([BundleEntry(KERNEL, DIGEST, "the source")], bundle)
    code, text, _ = run(capsys, "unpack", str(bundle), str(tmp_path / "layer"))
    assert (code, text) == (0, f"1 kernel(s) of {bundle} are in {tmp_path / 'layer'}\n")
    assert KernelCache(tmp_path / "layer").get(KERNEL.name, DIGEST) is not None
    bundle.write_bytes(b"")
    code, _, errors = run(capsys, "unpack", str(bundle), str(tmp_path / "other"))
    assert code == 1 and errors.startswith(f"error: bundle {bundle} is refused")
    (tmp_path / "file").touch()
    write_bundle([BundleEntry(KERNEL, DIGEST, "the source")], bundle)
    code, _, errors = run(capsys, "unpack", str(bundle), str(tmp_path / "file"))
    assert code == 1 and str(tmp_path / "file") in errors


@pytest.mark.parametrize("arguments", [[], ["burn"], ["prune", "--max-mb", "0"], ["unpack", "x"]])
def test_wrong_arguments_leave_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["cache", *arguments])
