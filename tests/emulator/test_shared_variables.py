"""Where a kernel's shared variables lie: static ones first, aligned, then the dynamic ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.errors import OutOfBoundsError

TEXT = """
.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 256 .b8 dynamic[];
.extern .shared .align 16 .b8 same[];
.shared .align 4 .b8 odd[6];
.shared .align 64 .b8 others[100000];
.entry k(.param .u64 out_0)
{
.shared .align 8 .b64 own;
.reg .b32 %r<9>; .reg .b64 %rd<9>;
ld.param.u64 %rd1, [out_0];
mov.u32 %r1, odd;
mov.u32 %r2, own;
mov.u32 %r3, dynamic;
mov.u32 %r4, same;
st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4};
mov.u32 %r6, %r4;
ld.shared.u32 %r5, [%r3+OFFSET];
ret;
}
.entry other() { .reg .b32 %r<2>; mov.u32 %r1, others; ret; }
"""


def addresses(offset: int) -> list[int]:
    out = np.zeros(4, dtype=np.uint32)
    program = emulator.load(TEXT.replace("OFFSET", str(offset)), "k")
    parameters = struct.pack("<Q", out.ctypes.data)
    emulator.run(program, 1, 1, 32, 64, parameters, [(out.ctypes.data, out.nbytes)])
    return [int(word) for word in out]


def test_variables_do_not_overlap() -> None:
    """Variables of other kernels of the module take no room."""
    odd, own, dynamic, same = addresses(60)
    assert (own, dynamic) == (odd + 8, same)
    assert dynamic >= own + 8
    assert dynamic % 256 == 0


def test_dynamic_memory_ends_where_the_launch_says() -> None:
    with pytest.raises(OutOfBoundsError):
        addresses(64)
