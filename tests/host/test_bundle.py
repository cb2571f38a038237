"""Bundles: the same bytes for the same kernels, and nothing unpacked that was not written so."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from deep_gemm.errors import ArgumentError
from deep_gemm.jit import build as build_module
from deep_gemm.jit.build import build, cache_key, forbid_compilation, forget_builds
from deep_gemm.jit.bundle import MANIFEST, BundleEntry, unpack, write_bundle
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.entry import sha256
from tests.host.fake_compiler import CountingCompiler, kernel_source
from tests.host.test_cache import DIGEST, KERNEL

OTHER = "cd" * 32
FOLDER = f"cache/{KERNEL.name}/{DIGEST}"
ENTRIES = [
    BundleEntry(KERNEL, DIGEST, "the source"),
    BundleEntry(KERNEL._replace(name="other"), OTHER, "another"),
]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    warnings.simplefilter("error", RuntimeWarning)
    path = tmp_path / "kernels.tar"
    assert write_bundle(ENTRIES, path) == 2
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        contents = {member.name: tar.extractfile(member) for member in tar}
        return {name: content.read() for name, content in contents.items() if content}


def write(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def checksummed(files: dict[str, bytes]) -> dict[str, bytes]:
    """With a manifest that fits, as somebody would make who wants to be believed."""
    files = {name: content for name, content in files.items() if name != MANIFEST}
    checksums = {name: sha256(content) for name, content in files.items()}
    return {MANIFEST: json.dumps({"format": 1, "sha256": checksums}).encode(), **files}


def test_what_is_bundled_is_unpacked(bundle: Path, tmp_path: Path) -> None:
    assert unpack(bundle, tmp_path / "layer") == 2
    layer = KernelCache(tmp_path / "layer", is_read_only=True)
    for entry in ENTRIES:
        expected = entry.kernel._replace(from_cache=True)
        assert layer.get(entry.kernel.name, entry.digest) == expected
    assert (layer.path_of(KERNEL.name, DIGEST) / "kernel.cu").read_text() == "the source"


def test_the_same_kernels_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    assert write_bundle([*reversed(ENTRIES), ENTRIES[0]], tmp_path / "again.tar") == 2
    assert (tmp_path / "again.tar").read_bytes() == bundle.read_bytes()


def run_tar(*arguments: str | Path) -> None:
    subprocess.run(["tar", *arguments], check=True, umask=0o022)


def test_tar_unpacks_a_layer_too(bundle: Path, tmp_path: Path) -> None:
    """As `ADD kernels.tar /opt/kernels/` of a Dockerfile does."""
    (tmp_path / "layer").mkdir()
    run_tar("-xf", bundle, "-C", tmp_path / "layer")
    assert KernelCache(tmp_path / "layer").get(KERNEL.name, DIGEST) is not None


def test_what_tar_packed_again_is_still_a_bundle(bundle: Path, tmp_path: Path) -> None:
    """Folders have become members."""
    (tmp_path / "layer").mkdir()
    run_tar("-xf", bundle, "-C", tmp_path / "layer")
    run_tar("-cf", tmp_path / "again.tar", "-C", tmp_path / "layer", MANIFEST, "cache")
    assert unpack(tmp_path / "again.tar", tmp_path / "other") == 2


def test_an_unpacked_kernel_is_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: built, bundled, unpacked elsewhere, named as a layer, and found there."""
    compiler = CountingCompiler(tmp_path / "compiled")
    monkeypatch.setattr(build_module, "select_compiler", lambda: compiler)
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "first"))
    forget_builds()
    source = kernel_source("a")
    entry = BundleEntry(build(source), cache_key(source, compiler), source.text)
    write_bundle([entry], tmp_path / "kernels.tar")
    unpack(tmp_path / "kernels.tar", tmp_path / "layer")
    monkeypatch.setenv("DG_JIT_CACHE_DIR", f"{tmp_path / 'second'}:{tmp_path / 'layer'}")
    forget_builds()
    with forbid_compilation():
        assert build(source).from_cache
    assert not (tmp_path / "second").exists()
    forget_builds()


def test_entries_that_are_there_stay(bundle: Path, tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "layer")
    cache.put(KERNEL._replace(seconds=9.0), DIGEST, "mine")
    assert unpack(bundle, tmp_path / "layer") == 2
    kernel = cache.get(KERNEL.name, DIGEST)
    assert kernel is not None and kernel.seconds == 9.0
    assert cache.get("other", OTHER) is not None


def test_a_bundle_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_bundle(ENTRIES, tmp_path / "nowhere/kernels.tar")

    def broken() -> object:
        yield ENTRIES[0]
        raise KeyboardInterrupt

    (tmp_path / "kernels.tar").write_text("the one before")
    with pytest.raises(KeyboardInterrupt):
        write_bundle(broken(), tmp_path / "kernels.tar")  # type: ignore[arg-type]
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(OSError):
        write_bundle(ENTRIES, tmp_path / "folder.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.tar", "kernels.tar"]
    assert (tmp_path / "kernels.tar").read_text() == "the one before"


def changed(name: str, content: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {**files, name: content}


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {key: files[key] for key in files if key != name}


def with_place(place: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: checksummed({**files, place: b"x"})


FORGED = {
    "changed-cubin": changed(f"{FOLDER}/kernel.cubin", b"\x7fELF"),
    "no-manifest": without(MANIFEST),
    "binary-manifest": changed(MANIFEST, b"\xff\xfe"),
    "null-manifest": changed(MANIFEST, b"null"),
    "list-manifest": changed(MANIFEST, b"[]"),
    "later-format": changed(MANIFEST, b'{"format": 2, "sha256": {}}'),
    "no-checksums": changed(MANIFEST, b'{"format": 1}'),
    "missing-file": without(f"{FOLDER}/kernel.cubin"),
    "unlisted-file": changed(f"cache/x/{OTHER}/kernel.cubin", b"x"),
    "missing-from-both": lambda files: checksummed(without(f"{FOLDER}/meta.json")(files)),
    "changed-in-both": lambda files: checksummed(changed(f"{FOLDER}/kernel.cubin", b"x")(files)),
    "of-another-digest": lambda files: checksummed(
        {name.replace(DIGEST, "ef" * 32): content for name, content in files.items()}
    ),
    **{
        f"place-{place}": with_place(place)
        for place in (
            "../escaped",
            "/escaped",
            f"cache/../../{OTHER}/kernel.cubin",
            f"cache/.hidden/{OTHER}/kernel.cubin",
            f"cache/x/{OTHER}/../kernel.cubin",
            f"cache/x/{OTHER}/kernel.cubin\n",
            f"cache/x/{OTHER[:-1]}/kernel.cubin",
            f"cache/x/{OTHER}/kernel.so",
            "lock/x",
        )
    },
}


def expect_refusal(path: Path, directory: Path, match: str = "is refused") -> None:
    with pytest.raises(ArgumentError, match=match):
        unpack(path, directory)
    assert not directory.exists()


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_what_was_not_written_so_is_refused_whole(
    bundle: Path, tmp_path: Path, forge: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    write(tmp_path / "forged.tar", forge(members(bundle)))
    expect_refusal(tmp_path / "forged.tar", tmp_path / "layer")
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_pipes_are_refused(bundle: Path, tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(bundle, "a:") as tar:
        member = tarfile.TarInfo(f"cache/x/{OTHER}/kernel.cubin")
        member.type, member.linkname = kind, f"{FOLDER}/kernel.cubin"
        tar.addfile(member)
    expect_refusal(bundle, tmp_path / "layer", "must be a regular file")


def test_a_sparse_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    """A few bytes of it could claim to be all memory."""
    with tarfile.open(bundle, "a:", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(f"cache/x/{OTHER}/kernel.cubin")
        member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 50)}
        tar.addfile(member)
    expect_refusal(bundle, tmp_path / "layer", "must be a regular file")


def test_a_file_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = members(bundle)[f"{FOLDER}/kernel.cubin"]
    with tarfile.open(bundle, "a:") as tar:
        member = tarfile.TarInfo(f"{FOLDER}/kernel.cubin")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    expect_refusal(bundle, tmp_path / "layer", "is in it twice")


@pytest.mark.parametrize("num_bytes", [0, 100, 511, 512, 5000, 30000])
def test_a_cut_off_bundle_is_refused(bundle: Path, tmp_path: Path, num_bytes: int) -> None:
    bundle.write_bytes(bundle.read_bytes()[:num_bytes])
    expect_refusal(bundle, tmp_path / "layer")


def test_one_bit_is_enough(bundle: Path, tmp_path: Path) -> None:
    """In content, in headers: each part of the file decides."""
    whole = bundle.read_bytes()
    end = len(whole.rstrip(b"\0"))
    accepted = 0
    for position in range(0, end, 487):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        bundle.write_bytes(damaged)
        try:
            unpack(bundle, tmp_path / f"layer{position}")
        except ArgumentError:
            assert not (tmp_path / f"layer{position}").exists()
        else:
            accepted += 1
    # Padding between the members is nobody's.
    assert accepted <= 10


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernels.tar").write_text("text")
    expect_refusal(tmp_path / "kernels.tar", tmp_path / "layer")
    expect_refusal(tmp_path / "nowhere.tar", tmp_path / "layer", "No such file")
    expect_refusal(tmp_path, tmp_path / "layer")
