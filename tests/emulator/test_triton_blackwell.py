"""Triton's PTX for sm_100a, in all timings, against NumPy: tensor memory and tcgen05.

As test_triton.py. Operands are small integers and scale factors powers of two, so that all sums are
exact: what is compared is where everything lies, and the order of things. Triton leaves out
tcgen05.fence, which PTX wants, so that launches imply it.
"""

from __future__ import annotations

import ast
import re
from functools import partial

import pytest
import torch

from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.tma import TensorMap
from tests.emulator import test_triton
from tests.emulator.test_triton import Order, header, text_of

ORDERS = [(Timing.EARLY, 0), (Timing.LATE, 0), (Timing.RANDOM, 0), (Timing.RANDOM, 1)]
F8 = torch.float8_e4m3fn
MAP_TYPES = {F8: 0, torch.uint8: 0, torch.float16: 6, torch.bfloat16: 9}

launch = partial(test_triton.launch, implies_tensor_fences=True)


def tensor_map(tensor: torch.Tensor, box: list[int]) -> list[TensorMap | int]:
    """A host descriptor as Triton passes it: the map, sizes and strides in elements."""
    size = tensor.element_size()
    made = TensorMap.from_fields(
        MAP_TYPES[tensor.dtype],
        tensor.data_ptr(),
        tuple(tensor.shape[::-1]),
        tuple(stride * size for stride in tensor.stride()[-2::-1]),
        tuple(box[::-1]),
        swizzle=3 if tensor.dim() == 2 else 0,
    )
    return [made, *tensor.shape, *tensor.stride()]


def integers(rows: int, k: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (rows, k), generator=generator).to(dtype)


def factors(rows: int, k: int, seed: int) -> torch.Tensor:
    """UE8M0 codes of 2^-3 to 2^3, [rows, k / 32]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(124, 131, (rows, k // 32), generator=generator, dtype=torch.uint8)


def scaled(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    return values.double() * torch.exp2(codes.double() - 127).repeat_interleave(32, dim=1)


def in_blocks(codes: torch.Tensor) -> torch.Tensor:
    """Scale factors in blocks of 128 rows by 4: row r at byte 16 (r % 32) + 4 (r / 32)."""
    rows, columns = codes.shape
    parts = codes.reshape(rows // 128, 4, 32, columns // 4, 4).permute(0, 3, 2, 1, 4)
    return parts.reshape(1, rows // 128, columns // 4, 2, 256).contiguous()


def multiply(
    name: str,
    shape: tuple[int, int, int],
    blocks: tuple[int, int, int],
    dtype: torch.dtype,
    order: Order,
    *,
    scales: str = "",
    mn_major: bool = False,
    cluster_size: int = 1,
    text: str | None = None,
    implies: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """D of a text's kernel, and the exact one."""
    text = text or text_of(name)
    (m, n, k), (block_m, block_n, block_k) = shape, blocks
    a, b = integers(m, k, dtype, 1), integers(n, k, dtype, 2)
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16)
    exact = a.double(), b.double()
    held = [x.T.contiguous() if mn_major else x for x in (a, b)] + [d]
    extra: list[TensorMap | int | torch.Tensor] = []
    boxes = ast.literal_eval(header(text, "boxes"))
    if scales:
        codes = [factors(m, k, 3), factors(n, k, 4)]
        exact = scaled(a, codes[0]), scaled(b, codes[1])
        if scales == "in blocks":
            codes = [in_blocks(x) for x in codes]
            extra = [
                item for x, box in zip(codes, boxes[3:], strict=True) for item in tensor_map(x, box)
            ]
        else:
            extra = list(codes)
        held += codes
    arguments = [
        item for x, box in zip(held[:3], boxes[:3], strict=True) for item in tensor_map(x, box)
    ]
    num_blocks = [-(-m // block_m), -(-n // block_n), -(-k // block_k)]
    test_triton.launch(
        text,
        [*arguments, *extra, num_blocks[0], num_blocks[2]],
        held,
        num_blocks[0] * num_blocks[1] * cluster_size,
        order,
        cluster_size,
        implies_tensor_fences=implies,
    )
    return d, (exact[0] @ exact[1].T).bfloat16()


CASES = {
    "sm100_f8": ((100, 136, 400), (128, 128, 128), F8, {}),
    "sm100_f8_mn_major": ((112, 144, 272), (128, 128, 128), F8, {"mn_major": True}),
    "sm100_bf16": ((136, 56, 200), (128, 64, 64), torch.bfloat16, {}),
    "sm100_f16_m64": ((40, 128, 136), (64, 128, 64), torch.float16, {}),
    "sm100_bf16_mn_major": ((120, 136, 130), (128, 128, 64), torch.bfloat16, {"mn_major": True}),
    "sm100_mxf8": ((128, 128, 512), (128, 128, 128), F8, {"scales": "in rows"}),
    "sm100_mxf8_cp": ((128, 256, 384), (128, 256, 128), F8, {"scales": "in blocks"}),
    "sm100_pair_f8": ((200, 120, 400), (256, 128, 128), F8, {"cluster_size": 2}),
    "sm100_pair_bf16_m128": ((128, 64, 200), (128, 64, 64), torch.bfloat16, {"cluster_size": 2}),
    "sm100_pair_mxf8": (
        (256, 128, 384),
        (256, 128, 128),
        F8,
        {"scales": "in blocks", "cluster_size": 2},
    ),
}


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_products(name: str, order: Order) -> None:
    shape, blocks, dtype, options = CASES[name]
    d, expected = multiply(name, shape, blocks, dtype, order, **options)
    assert torch.equal(d, expected)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_an_operand_in_tensor_memory(order: Order) -> None:
    x, b = integers(128, 64, torch.bfloat16, 5), integers(64, 64, torch.bfloat16, 6)
    d = torch.full((128, 64), torch.nan)
    text = text_of("sm100_a_in_tensor_memory")
    launch(text, [x, *tensor_map(b, [64, 64]), d], [x, b, d], 1, order)
    assert torch.equal(d, (x.double() @ b.double().T).float())


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_moves_of_all_shapes(order: Order) -> None:
    """What is stored in one shape and loaded in another is what Triton thinks it is."""
    text = text_of("sm100_moves")
    shapes = set(re.findall(r"tcgen05\.(?:ld|st)\.sync\.aligned\.(\w+)", text))
    assert shapes == {"32x32b", "16x64b", "16x128b", "16x256b"}
    x = torch.arange(5 * 128 * 32, dtype=torch.float32).reshape(5, 128, 32)
    y = torch.zeros_like(x)
    launch(text, [x, y], [x, y], 1, order)
    assert torch.equal(x, y)


def test_what_the_texts_have() -> None:
    """The instructions that these texts are here for."""
    wanted = {
        "sm100_f8": "tcgen05.mma.cta_group::1.kind::f8f6f4",
        "sm100_bf16": "tcgen05.mma.cta_group::1.kind::f16",
        "sm100_f16_m64": "tcgen05.ld.sync.aligned.16x32bx2",
        "sm100_mxf8": "tcgen05.st.sync.aligned.32x32b.x4",
        "sm100_mxf8_cp": "tcgen05.cp.cta_group::1.warpx4.32x128b",
        "sm100_pair_f8": "cp.async.bulk.tensor.2d.cta_group::2",
        "sm100_pair_bf16_m128": "tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster"
        ".multicast::cluster",
        "sm100_pair_mxf8": "tcgen05.mma.cta_group::2.kind::mxf8f6f4.block_scale",
        "sm100_a_in_tensor_memory": r"kind::f16 \[ %r\d+ \+ 0 \], \[",
    }
    for name, pattern in wanted.items():
        assert re.search(pattern, text_of(name)), name


# Name of the defect -> text, what is replaced in it, by what, and the rule that is broken.
DEFECTS = {
    "no wait for the last product": (
        "sm100_f8",
        r"mbarrier.try_wait.parity.shared::cta.b64 (complete), \[%r440\], %r441;",
        r"mov.pred \1, -1;",
        "R21",
    ),
    "no wait before a stage is loaded again": (
        "sm100_mxf8",
        r"mbarrier.try_wait.parity.shared::cta.b64 (complete), \[%r122\], %r123;",
        r"mov.pred \1, -1;",
        "R9|R3",
    ),
    "accumulators not stored when they are used": (
        "sm100_f8",
        r"tcgen05.wait::st.sync.aligned;",
        "",
        "R24",
    ),
    "scale factors not stored when they are used": (
        "sm100_mxf8",
        r"(?s)(.*tcgen05.wait::st.*)tcgen05.wait::st.sync.aligned;",
        r"\1",
        "R23",
    ),
    "not loaded when it is freed": ("sm100_f8", r"tcgen05.wait::ld.sync.aligned;", "", "R19"),
    "never freed": ("sm100_f8", r"@%p1 tcgen05.dealloc[^;]*;", "", "R19"),
    "scale factors that were never copied": (
        "sm100_mxf8_cp",
        r"@%p\d+ tcgen05.cp[^;]*;",
        "",
        "R26",
    ),
    "a reserved bit of an instruction": ("sm100_f8", "136314896", "136314904", "R17"),
    "another shape": ("sm100_f8", "136314896", str(136314896 + (3 << 24)), "R17"),
    "no constant in a descriptor": ("sm100_f8", "1073758272", "1073741888", "R16"),
    "the other one's mbarrier, by itself": (
        "sm100_pair_f8",
        r"cp.async.bulk.tensor.2d.cta_group::2.",
        "cp.async.bulk.tensor.2d.",
        "R34",
    ),
    "the odd CTA is not told": ("sm100_pair_f8", r"mov.b16 \t%rs1, 3;", "mov.b16 %rs1, 1;", "R11"),
    "one CTA with another cta_group": (
        "sm100_pair_f8",
        r"tcgen05.dealloc.cta_group::2",
        "tcgen05.dealloc.cta_group::1",
        "R34",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_in_triton_s_text_is_found(name: str) -> None:
    kernel, pattern, replacement, rule = DEFECTS[name]
    text, count = re.subn(pattern, replacement, text_of(kernel))
    assert count
    shape, blocks, dtype, options = CASES[kernel]
    with pytest.raises(HazardError, match=f"^({rule}): "):
        multiply(kernel, shape, blocks, dtype, ORDERS[1], text=text, **options)


def test_triton_leaves_out_what_ptx_wants() -> None:
    """Without the implied fences, its first use of what another thread has done is reported."""
    shape, blocks, dtype, _ = CASES["sm100_f8"]
    with pytest.raises(HazardError, match="^R1: a TMA load .*tcgen05.alloc"):
        multiply("sm100_f8", shape, blocks, dtype, ORDERS[0], implies=False)
    fenced = text_of("sm100_f8").replace(
        "bar.sync \t0;", "fence.proxy.async.shared::cta;\n\tbar.sync \t0;"
    )
    with pytest.raises(HazardError, match="^R2[1234]: "):
        multiply("sm100_f8", shape, blocks, dtype, ORDERS[0], text=fenced, implies=False)
