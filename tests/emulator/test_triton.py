"""PTX that we did not write: Triton's, in all timings, against NumPy.

from_triton/generate.py has made the texts; the header of a text says how much shared memory it
wants, and which boxes its tensor maps have.
"""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path

import pytest
import torch

from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from deep_gemm.emulator.tma import TensorMap
from tests.emulator.maps import with_maps

FOLDER = Path(__file__).parent / "from_triton"
ORDERS = [(Timing.EARLY, 0), (Timing.LATE, 0), *((Timing.RANDOM, seed) for seed in range(8))]
UINT8, BFLOAT16 = 0, 9
MAP_BYTES = 128

Order = tuple[Timing, int]


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.ptx").read_text()


def header(text: str, key: str) -> str:
    found = re.search(rf"^// {key}: (.*)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def launch(
    text: str,
    arguments: list[torch.Tensor | TensorMap | int | float],
    tensors: list[torch.Tensor],
    grid: int,
    order: Order,
    cluster_size: int = 1,
    implies_tensor_fences: bool = False,
) -> None:
    """Runs a text's kernel; missing arguments are 0, such as the scratch pointers at the end."""
    (name,) = re.findall(r"\.visible \.entry (\w+)\(", text)
    program = emulator.load(text, name)
    parameters = program.kernel.parameters
    buffer = bytearray(parameters[-1].offset + parameters[-1].size)
    maps = {}
    for parameter, value in zip(parameters, arguments, strict=False):
        if isinstance(value, TensorMap):
            assert (parameter.size, parameter.alignment) == (MAP_BYTES, 64)
            maps[parameter.offset] = value
        elif isinstance(value, torch.Tensor):
            struct.pack_into("<Q", buffer, parameter.offset, value.data_ptr())
        else:
            layout = "<f" if isinstance(value, float) else {4: "<i", 8: "<q"}[parameter.size]
            struct.pack_into(layout, buffer, parameter.offset, value)
    timing, seed = order
    emulator.run(
        program,
        grid=grid,
        cluster_size=cluster_size,
        num_threads=program.kernel.max_threads,
        smem_bytes=int(header(text, "shared memory").split()[0]),
        parameters=with_maps(bytes(buffer), maps),
        extents=[(tensor.data_ptr(), tensor.numel() * tensor.element_size()) for tensor in tensors],
        timing=timing,
        seed=seed,
        implies_tensor_fences=implies_tensor_fences,
    )


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("size", [1, 512, 1300])
def test_masked_sums(size: int, order: Order) -> None:
    """Masked loads and stores, reductions over lanes and warps, atomics over CTAs."""
    x = torch.randint(-8, 8, (size,), generator=torch.Generator().manual_seed(size)).float()
    y = torch.full((size + 7,), torch.nan)
    total, largest = torch.zeros(1), torch.full((1,), -(2**31), dtype=torch.int32)
    arguments = [x, y, total, largest, size, 0.5]
    launch(text_of("masked_sums"), arguments, [x, y, total, largest], -(-size // 512), order)
    expected = 0.5 * x + 1
    assert torch.equal(y[:size], expected)
    assert y[size:].isnan().all()
    assert total.item() == expected.sum().item()
    assert largest.item() == int(1000 * x.max().item())


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_softmax(order: Order) -> None:
    """Within what ex2.approx and div.full may be off, and the rounding to BF16."""
    rows, size, stride = 2, 777, 800
    x = torch.randn(rows, stride, generator=torch.Generator().manual_seed(1)).bfloat16()
    y = torch.zeros(rows, stride, dtype=torch.bfloat16)
    launch(text_of("softmax"), [x, y, stride, size], [x, y], rows, order)
    expected = torch.softmax(x[:, :size].double(), dim=1)
    assert ((y[:, :size].double() - expected).abs() <= 2**-8 * expected).all()
    assert not y[:, size:].any()


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_cast_to_fp8(order: Order) -> None:
    """Conversions to e4m3, moved through shared memory with ldmatrix."""
    rows = 21
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(2))
    x[3] = 0
    y = torch.zeros(rows, 128, dtype=torch.float8_e4m3fn)
    sf = torch.zeros(rows)
    launch(text_of("cast_to_fp8"), [x, y, sf, rows], [x, y, sf], -(-rows // 16), order)
    largest = x.abs().amax(dim=1).clamp(min=1e-4)
    # Triton multiplies with the reciprocal.
    assert ((sf - largest / 448).abs() <= 2**-22 * sf).all()
    expected = (x * (448 / largest)[:, None]).to(torch.float8_e4m3fn)
    assert torch.equal(y.view(torch.uint8), expected.view(torch.uint8))


def matrix_map(matrix: torch.Tensor, box: list[int]) -> list[TensorMap | int]:
    """A host descriptor as Triton passes it: the map, sizes and strides in elements."""
    rows, columns = matrix.shape
    dtype = BFLOAT16 if matrix.dtype == torch.bfloat16 else UINT8
    row_bytes = columns * matrix.element_size()
    tensor_map = TensorMap.from_fields(
        dtype, matrix.data_ptr(), (columns, rows), (row_bytes,), box[::-1], swizzle=3
    )
    return [tensor_map, rows, columns, columns, 1]


def run_dot(
    name: str, m: int, n: int, k: int, order: Order, text: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """D of Triton's kernel, and the exact one, for operands whose sums are exact."""
    text = text or text_of(name)
    generator = torch.Generator().manual_seed(m + n + k)
    a, b = (
        torch.randint(-3, 4, (rows, k), generator=generator).to(torch.float8_e4m3fn)
        for rows in (m, n)
    )
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16)
    boxes = ast.literal_eval(header(text, "boxes"))
    block_m, block_n = ((64, 64), (128, 256))[name == "fp8_dot_wide"]
    num_m_blocks, num_n_blocks = -(-m // block_m), -(-n // block_n)
    arguments = [
        *(
            item
            for matrix, box in zip((a, b, d), boxes, strict=True)
            for item in matrix_map(matrix, box)
        ),
        num_m_blocks,
        -(-k // 128),
    ]
    launch(text, arguments, [a, b, d], num_m_blocks * num_n_blocks, order)
    return d, (a.double() @ b.double().T).bfloat16()


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("k", [128, 1040])
def test_fp8_dot(k: int, order: Order) -> None:
    """TMA loads and stores, mbarriers that are invalidated, pipelined WGMMA, stmatrix."""
    d, expected = run_dot("fp8_dot", 100, 72, k, order)
    assert torch.equal(d, expected)


@pytest.mark.parametrize("order", ORDERS[:4], ids=str)
def test_fp8_dot_of_two_warpgroups(order: Order) -> None:
    d, expected = run_dot("fp8_dot_wide", 200, 264, 528, order)
    assert torch.equal(d, expected)


DEFECTS = {
    "fence.proxy.async.shared::cta;": ("", "R1"),
    "wgmma.fence.sync.aligned;": ("", "R6"),
    "wgmma.wait_group.sync.aligned 0;": ("", "R7"),
    "cp.async.bulk.wait_group \t0;": ("", "R4"),
}


@pytest.mark.parametrize("line", DEFECTS)
def test_a_defect_in_triton_s_text_is_found(line: str) -> None:
    text = text_of("fp8_dot")
    assert text.count(line) == 1
    replacement, rule = DEFECTS[line]
    with pytest.raises(HazardError, match=rf"^{rule}: ") as caught:
        run_dot("fp8_dot", 64, 64, 512, (Timing.LATE, 0), text.replace(line, replacement))
    # What is left in flight at the end belongs to no instruction.
    assert rule == "R4" or re.search(r"CTA 0, warp \d, kernels\.py:\d+, line", str(caught.value))


def test_texts_name_no_machine() -> None:
    for path in FOLDER.glob("*.ptx"):
        assert re.match(r"// Triton 3\.9\.\d", path.read_text())
        assert all("/" not in name for name in re.findall(r'\.file.*"(.*)"', path.read_text()))


def test_an_unknown_instruction_stops_a_text() -> None:
    text = text_of("masked_sums").replace("redux.sync.max.s32", "redux.sync.avg.s32", 1)
    with pytest.raises(UnknownOpcodeError, match="redux.sync.avg"):
        emulator.load(text, "masked_sums")
