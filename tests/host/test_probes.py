"""The doctor's probes on machines that are not this one: GPUs, drivers and compilers are fakes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deep_gemm.cli import gpu, probes
from deep_gemm.errors import MissingDependencyError, UnsupportedArchitectureError
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.compiler import CompiledKernel

H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=79 * 2**30,
)
A100 = SimpleNamespace(
    name="NVIDIA A100", major=8, minor=0, multi_processor_count=108, total_memory=40 * 2**30
)

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Gives torch these GPUs, and CUDA to see them with."""

    def install(*devices: SimpleNamespace) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(devices))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
        monkeypatch.setattr(torch.cuda, "get_device_properties", devices.__getitem__)

    return install


def test_a_supported_gpu(install: Install) -> None:
    install(H100)
    (finding,) = probes.gpus()
    assert finding.status == "ok" and finding.subject == "GPU 0"
    assert finding.found == "NVIDIA H100 80GB HBM3, SM90, 132 SMs, 79.0 GiB"
    assert gpu.choose_gpu().arch == "90a"


def test_an_unsupported_gpu_alone_is_not_enough(install: Install) -> None:
    install(A100)
    (finding,) = probes.gpus()
    assert finding.status == "missing"
    assert "NVIDIA A100, SM80" in finding.found and "SM90" in finding.mend
    with pytest.raises(UnsupportedArchitectureError, match="it takes SM90, got NVIDIA A100, SM80"):
        gpu.choose_gpu()


def test_an_unsupported_gpu_beside_a_supported_one_is_passed_over(install: Install) -> None:
    install(A100, H100)
    assert [finding.status for finding in probes.gpus()] == ["warning", "ok"]
    assert gpu.choose_gpu().index == 1


def test_no_gpu(install: Install) -> None:
    install()
    (finding,) = probes.gpus()
    assert finding.status == "missing" and "torch sees no CUDA device" in finding.found
    with pytest.raises(MissingDependencyError, match="torch sees no CUDA device"):
        gpu.choose_gpu()


def test_what_torch_says_of_the_driver_is_passed_on(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_available() -> bool:
        text = "The NVIDIA driver on your system is too old (Triggered internally at a.cpp:1.)"
        warnings.warn(text, UserWarning, stacklevel=1)
        return False

    install()
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (finding,) = probes.gpus()
    assert finding.found == "none: The NVIDIA driver on your system is too old"


def test_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = probes.torch_build()
    assert finding.status == "missing" and "pip install" in finding.mend
    assert torch.__version__ in finding.found
    assert "built without CUDA" in probes.gpus()[0].found


def test_torch_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    (finding,) = probes.torch_build()
    assert finding.status == "ok" and finding.found.endswith("built for CUDA 12.9")


@pytest.mark.parametrize(
    ("version", "module", "status", "found"),
    [
        ((13, 0), True, "ok", "580.95.05, for CUDA up to 13.0"),
        ((12, 4), False, "ok", "of unknown release, for CUDA up to 12.4"),
        ((11, 8), True, "missing", "580.95.05, for CUDA up to 11.8"),
        (None, False, "missing", "libcuda.so.1 does not load"),
        (
            None,
            True,
            "missing",
            "libcuda.so.1 does not load, though kernel module 580.95.05 is loaded",
        ),
    ],
)
def test_driver(
    version: tuple[int, int] | None,
    module: bool,
    status: str,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "version"
    if module:
        path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 2025\n")
    monkeypatch.setattr(probes, "_KERNEL_MODULE", path)
    monkeypatch.setattr(probes, "driver_version", lambda: version)
    (finding,) = probes.nvidia_driver()
    assert (finding.status, finding.found) == (status, found)
    assert bool(finding.mend) == (status == "missing")


def fake_kernel(name: str = "kernel") -> CompiledKernel:
    return CompiledKernel(
        name=name,
        entry="trial",
        arch="90a",
        cubin=b"cubin" * 1000,
        ptx="// ptx",
        registers=8,
        spill_bytes=0,
        static_smem_bytes=0,
        compiler="NVRTC 13.0.88",
        seconds=0.02,
        from_cache=False,
    )


@pytest.mark.parametrize(
    ("driver", "status"),
    [((13, 0), "ok"), ((13, 4), "ok"), (None, "ok"), ((12, 8), "missing")],
    ids=str,
)
def test_a_compiler_must_not_be_newer_than_the_driver(
    driver: tuple[int, int] | None, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = SimpleNamespace(version="13.0", compile=lambda source: fake_kernel())
    monkeypatch.setattr(probes, "select_compiler", lambda: chosen)
    monkeypatch.setattr(probes, "driver_version", lambda: driver)
    (finding,) = probes.compiler()
    assert finding.status == status
    assert finding.found.startswith("NVRTC 13.0.88")
    assert ("nvidia-cuda-nvrtc-cu12" in finding.mend) == (status == "missing")


def test_headers_are_counted() -> None:
    (finding,) = probes.headers()
    number, _, place = finding.found.partition(" in ")
    assert finding.status == "ok" and int(number) > 1
    assert (Path(place) / "config.cuh").is_file()


def test_cache_counts_kernels_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KernelCache(tmp_path)
    for index in range(20):
        cache.put(fake_kernel(f"kernel_{index % 2}"), f"{index:064x}", "text" * 1000)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    (finding,) = probes.kernel_cache()
    assert finding.status == "ok"
    assert finding.found == f"{tmp_path}, writable, 20 kernel(s), 0.2 MB"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("blocked", ["", "cache", "tmp"])
def test_cache_in_the_place_of_a_file(
    blocked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "deep"
    if blocked:
        place.mkdir()
    (place / blocked).write_text("")
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(place))
    (finding,) = probes.kernel_cache()
    assert finding.status == "warning" and str(place) in finding.found
    assert "DG_JIT_CACHE_DIR" in finding.mend
