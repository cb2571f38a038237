"""Each header alone, by a host compiler, which looks up every name where it is written.

NVRTC does not, in templates: a missing include shows only where the template is used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest

from tests.host.cuda_on_host import CSRC, CUDA_ON_HOST, CUDA_ON_HOST_FLAGS

HEADERS = [str(path.relative_to(CSRC)) for path in sorted(CSRC.rglob("*.cuh"))]
PLAIN_CXX = ["config.cuh", "scheduler/dense.cuh", "layout/swizzle.cuh", "layout/accumulator.cuh"]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_includes_all_it_names(
    host_compiler: Callable[..., ctypes.CDLL], header: str
) -> None:
    twice = f'#include "{header}"\n' * 2
    host_compiler(CUDA_ON_HOST + twice, *CUDA_ON_HOST_FLAGS)


@pytest.mark.parametrize("header", PLAIN_CXX)
def test_a_header_is_plain_cxx(host_compiler: Callable[..., ctypes.CDLL], header: str) -> None:
    host_compiler(f'#include "{header}"\n')
