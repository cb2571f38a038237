"""Which libnvrtc is chosen, and how it is recognised without being loaded."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from deep_gemm.errors import MissingDependencyError
from deep_gemm.jit import nvrtc_library
from deep_gemm.jit.nvrtc_library import Library, find_library, in_toolkit, in_wheels


def install(folder: Path, version: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    major, minor = version
    for name in (f"nvrtc.so.{major}", f"nvrtc-builtins.so.{major}.{minor}"):
        (folder / f"lib{name}").write_text(f"{name}")
        (folder / f"lib{name.replace('.so', '.alt.so')}").touch()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only what the test installs in this folder of wheels exists."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr(nvrtc_library, "by_loader", list)
    return tmp_path / "nvidia"


@pytest.mark.parametrize(
    ("driver", "chosen"),
    [
        (None, (13, 1)),
        ((13, 2), (13, 1)),
        ((13, 1), (13, 1)),
        ((13, 0), (12, 9)),
        ((12, 9), (12, 9)),
        ((12, 4), (12, 9)),
    ],
)
def test_the_newest_that_the_driver_takes(
    wheels: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: tuple[int, int] | None,
    chosen: tuple[int, int],
) -> None:
    install(wheels / "cu13/lib", (13, 1))
    install(wheels / "cuda_nvrtc/lib", (12, 9))
    monkeypatch.setattr(nvrtc_library, "driver_version", lambda: driver)
    assert find_library(None).version == chosen


def test_a_toolkit_serves_where_no_wheel_fits(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(wheels / "cu13/lib", (13, 1))
    install(tmp_path / "cuda/lib64", (12, 8))
    monkeypatch.setattr(nvrtc_library, "driver_version", lambda: (13, 1))
    assert find_library(tmp_path / "cuda").version == (13, 1)
    monkeypatch.setattr(nvrtc_library, "driver_version", lambda: (12, 9))
    assert find_library(tmp_path / "cuda").version == (12, 8)


@pytest.mark.parametrize(
    ("driver", "package"),
    [
        (None, "nvidia-cuda-nvrtc"),
        ((13, 0), "nvidia-cuda-nvrtc"),
        ((12, 8), "nvidia-cuda-nvrtc-cu12"),
    ],
)
def test_without_any_the_error_has_the_command(
    wheels: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: tuple[int, int] | None,
    package: str,
) -> None:
    monkeypatch.setattr(nvrtc_library, "driver_version", lambda: driver)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}$"):
        find_library(None)


def test_a_toolkits_links_count_once(tmp_path: Path) -> None:
    folder = tmp_path / "lib64"
    install(folder, (12, 9))
    (folder / "libnvrtc.so.12").rename(folder / "libnvrtc.so.12.9.86")
    (folder / "libnvrtc.so.12").symlink_to("libnvrtc.so.12.9.86")
    (library,) = in_toolkit(tmp_path)
    assert library.path == folder / "libnvrtc.so.12.9.86"
    assert library.version == (12, 9)


def test_wheels_in_two_places_are_all_seen(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(wheels / "cu13/lib", (13, 0))
    (wheels / "__init__.py").touch()
    install(tmp_path / "user/nvidia/cuda_nvrtc/lib", (12, 9))
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / "user")])
    assert [library.version for library in in_wheels()] == [(13, 0), (12, 9)]


def test_what_is_no_library_does_not_load(wheels: Path) -> None:
    install(wheels / "cu13/lib", (13, 0))
    with pytest.raises(MissingDependencyError, match="pip install nvidia-cuda-nvrtc"):
        in_wheels()[0].load()


def elf_with_build_id(build_id: bytes) -> bytes:
    """The least of an ELF file: its header, one note segment, and the note."""
    note = struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id
    segment = struct.pack("<IIQQQQQQ", 4, 4, 64 + 56, 0, 0, len(note), len(note), 4)
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    return bytes(header) + segment + note


@pytest.mark.parametrize("build_id", [bytes(range(20)), bytes(range(8))], ids=["sha1", "short"])
def test_the_fingerprint_is_the_build_id(tmp_path: Path, build_id: bytes) -> None:
    path = tmp_path / "library"
    path.write_bytes(elf_with_build_id(build_id) + b"trailing")
    assert Library(path, path, (13, 0)).fingerprint == f"{build_id.hex()}+{build_id.hex()}"


@pytest.mark.parametrize("changed", ["path", "builtins"])
def test_without_build_id_the_fingerprint_is_of_the_content(tmp_path: Path, changed: str) -> None:
    library = Library(tmp_path / "path", tmp_path / "builtins", (13, 0))
    library.path.write_bytes(elf_with_build_id(b"")[:64])
    library.builtins.write_bytes(b"no ELF file")
    before = library.fingerprint
    (tmp_path / changed).write_bytes(b"another one")
    assert library.fingerprint != before
