"""The casting kernels' parameters: every field lies where Python puts it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from deep_gemm.kernels.cast import CastArguments
from tests.host.cuda_on_host import CUDA_ON_HOST, CUDA_ON_HOST_FLAGS

FIELDS = [field for field, *_ in CastArguments._fields_]

CODE = f"""
#include <cstddef>

#include "kernels/cast.cuh"

using deep_gemm::CastArguments;

extern "C" {{
int offsets[] = {{{", ".join(f"offsetof(CastArguments, {field})" for field in FIELDS)}}};
int size = sizeof(CastArguments);
}}
"""


def test_every_argument_is_at_its_place(host_compiler: Callable[..., ctypes.CDLL]) -> None:
    library = host_compiler(CUDA_ON_HOST + CODE, *CUDA_ON_HOST_FLAGS)
    offsets = (ctypes.c_int * len(FIELDS)).in_dll(library, "offsets")
    assert list(offsets) == [getattr(CastArguments, field).offset for field in FIELDS]
    assert ctypes.c_int.in_dll(library, "size").value == ctypes.sizeof(CastArguments)
    assert len(FIELDS) == 19
