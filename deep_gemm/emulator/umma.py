"""tcgen05.mma: issued by one thread, executed beside it, in the order of issue.

With cta_group::2 PTX lets a thread of either CTA issue; all known code
takes the even one, and so does this: the other one is reported (R34).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator import umma_instruction
from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.float_formats import Format
from deep_gemm.emulator.ir import Address, Instruction, Vector
from deep_gemm.emulator.modifiers import parts, unknown
from deep_gemm.emulator.operands import Fetch, Symbols, address, fetcher
from deep_gemm.emulator.races import Kind, Operation
from deep_gemm.emulator.tensor_forms import GROUP, ctas_of, single_lane
from deep_gemm.emulator.tensor_memory import NUM_COLUMNS, NUM_LANES, QUARTER, Cells, Flags
from deep_gemm.emulator.umma_arithmetic import multiply
from deep_gemm.emulator.umma_cells import accumulator_cells, operand_cells, scale_cells
from deep_gemm.emulator.umma_instruction import Mma
from deep_gemm.emulator.umma_operands import operand_offsets
from deep_gemm.emulator.warp import Mask, Wait, Warp

if TYPE_CHECKING:
    from deep_gemm.emulator.cta import Cta

Execute = Callable[[Warp, Mask], Wait | None]

K_BYTES = 32


@dataclass(frozen=True)
class _Side:
    """Operand A or B in one CTA.

    Attributes:
        cta: that holds it.
        offsets: of its bytes in shared memory, [rows, 32]; None if it is in tensor memory.
        cells: in tensor memory, [rows, 8]; None if it is in shared memory.
    """

    cta: Cta
    offsets: NDArray[np.int64] | None
    cells: Cells | None = None

    def read(self) -> tuple[NDArray[np.uint8], Flags]:
        """Bytes, [rows, 32], and which rows have undefined ones."""
        if self.offsets is not None:
            return self.cta.tile(self.offsets), self.cta.undefined_rows(self.offsets)
        words, defined = self.cta.tensor.read(self.cells)  # type: ignore[arg-type]
        undefined: Flags = np.logical_not(defined.all(axis=1))
        return words.view(np.uint8), undefined


@dataclass(frozen=True)
class _Product:
    """One tcgen05.mma that was issued.

    Attributes:
        of: what it computes.
        ctas: that it acts on.
        a: in each of them.
        b: in each of them; each holds a part of the columns of D.
        d: cells of the accumulator, in each.
        keeps: whether D is added to what it was.
        lanes: [ctas, 128], that are written.
        sfa: cells of A's scale factors in each CTA, if there are any.
        sfb: of B's.
    """

    of: Mma
    ctas: list[Cta]
    a: list[_Side]
    b: list[_Side]
    d: Cells
    keeps: bool
    lanes: Flags
    sfa: Cells | None
    sfb: Cells | None

    def perform(self) -> None:
        """Computes D in each CTA."""
        parts_ = [side.read() for side in self.b]
        b, undefined_b = (np.concatenate(both) for both in zip(*parts_, strict=True))
        for i, (cta, side) in enumerate(zip(self.ctas, self.a, strict=True)):
            a, undefined_a = side.read()
            sfa, without_sfa = self._scales(cta, self.sfa, self.of.sfa_id)
            sfb, without_sfb = self._scales(cta, self.sfb, self.of.sfb_id)
            written = self.lanes[i][self.d // NUM_COLUMNS]
            words, defined = cta.tensor.read(self.d)
            d = multiply(
                _codes(a, self.of.a, self.of.a_is_negated),
                _codes(b, self.of.b, self.of.b_is_negated),
                words.view(np.float32) if self.keeps else None,
                self.of.a,
                self.of.b,
                sfa,
                sfb,
            )
            unknown_ = (undefined_a | without_sfa)[:, None] | (undefined_b | without_sfb)
            known = ~unknown_ & (defined if self.keeps else True)
            cta.tensor.write(self.d[written], d.view(np.uint32)[written], known[written])

    def _scales(
        self, cta: Cta, cells: Cells | None, byte: int
    ) -> tuple[NDArray[np.uint8] | None, Flags | bool]:
        """Scale factors of rows, and which are undefined."""
        if cells is None:
            return None, False
        words, defined = cta.tensor.read(cells)
        codes = (words >> np.uint32(8 * byte)).astype(np.uint8)
        differs = (codes != codes[0]) & defined & defined[0]
        if differs.any():
            quarter, row = np.argwhere(differs)[0]
            text = f"row {row} is {codes[0, row]:#04x} in lanes 0 to 31, {codes[quarter, row]:#04x}"
            at = f"{QUARTER * quarter} to {QUARTER * quarter + QUARTER - 1}"
            raise HazardError("R33", f"a scale factor of {text} in lanes {at}: all must be equal")
        undefined: Flags = np.logical_not(defined.all(axis=0))
        return codes[0], undefined


def _codes(
    data: NDArray[np.uint8], of: Format, is_negated: bool
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    codes: NDArray[np.uint8] | NDArray[np.uint16] = np.ascontiguousarray(data).view(of.codes)
    return codes ^ codes.dtype.type(1 << of.bits - 1) if is_negated else codes


_FORM = (
    rf"tcgen05\.mma{GROUP}\.kind::(?P<kind>f16|f8f6f4|mxf8f6f4)"
    r"(?P<scaled>\.block_scale(?:\.scale_vec::1X|\.block32)?)?"
    r"(?:\.collector::a::(?:fill|use|lastuse|discard))?"
)


class _Form:
    """A tcgen05.mma, resolved: where its operands come from."""

    def __init__(self, instruction: Instruction, symbols: Symbols) -> None:
        found = parts(instruction, _FORM)
        self.kind, self.group = found["kind"], int(found["group"])
        is_scaled = self.kind == "mxf8f6f4"
        if bool(found["scaled"]) != is_scaled:
            raise unknown(instruction)
        d, a, b, idesc, *rest = instruction.operands
        self.has_a_in_tensor_memory = isinstance(a, Address)
        self.d = address(d, symbols)
        read_a = address if self.has_a_in_tensor_memory else _descriptor
        self.a, self.b = read_a(a, symbols), _descriptor(b, symbols)
        self.idesc = fetcher(idesc, symbols, np.uint32)
        self.scales = [address(item, symbols) for item in rest[: 2 * is_scaled]]
        rest = rest[2 * is_scaled :]
        self.disabled: list[Fetch] = []
        if rest and isinstance(rest[0], Vector) and not is_scaled:
            self.disabled = [fetcher(item, symbols, np.uint32) for item in rest[0].items]
            rest = rest[1:]
        if len(rest) != 1 or len(self.disabled) not in (0, 4 * self.group):
            raise unknown(instruction)
        self.keeps = fetcher(rest[0], symbols, np.bool_)

    def lanes(self, warp: Warp, lane: int) -> Flags:
        """Lanes of the accumulator that are written, [ctas, 128]."""
        if not self.disabled:
            return np.ones((self.group, NUM_LANES), dtype=np.bool_)
        words = np.array([fetch(warp)[lane] for fetch in self.disabled], dtype=np.uint32)
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        written: Flags = bits.reshape(self.group, NUM_LANES) == 0
        return written


def _descriptor(operand: object, symbols: Symbols) -> Fetch:
    return fetcher(operand, symbols, np.uint64)


def _mma(instruction: Instruction, symbols: Symbols) -> Execute:
    form = _Form(instruction, symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lane = single_lane(mask, "tcgen05.mma")
        ctas = ctas_of(warp, form.group)
        if warp.cta is not ctas[0]:
            raise HazardError("R34", "tcgen05.mma of a pair by the odd CTA of it")
        idesc = int(form.idesc(warp)[lane])
        of = umma_instruction.decode(idesc, form.kind, form.group)
        product = _issued(form, of, ctas, warp, lane)
        signature = of.kind, of.m, of.n, form.group
        cluster = warp.cta.cluster
        operation = cluster.tensor_order.issue(warp, lane, Kind.MMA, signature)
        _note(product, warp, operation)
        sides = [side for side in (*product.a, *product.b) if side.offsets is not None]
        releases = [
            side.cta.begin_read("R3", side.offsets, reader="a tcgen05.mma")
            for side in sides
            if side.offsets is not None
        ]

        def perform() -> None:
            for cta in ctas:
                cluster.cta_of_rank(cta.rank)
            product.perform()
            for release in releases:
                release()

        cluster.submit(("tcgen05", warp.cta.index), perform)
        return None

    return execute


def _issued(form: _Form, of: Mma, ctas: list[Cta], warp: Warp, lane: int) -> _Product:
    rows, columns, size = of.m // form.group, of.n // form.group, of.a.bits // 8
    at_a, at_b = int(form.a(warp)[lane]), int(form.b(warp)[lane])
    if form.has_a_in_tensor_memory:
        a = [_Side(cta, None, operand_cells(of.m, form.group, at_a)) for cta in ctas]
        if of.a_is_mn_major:
            raise HazardError("R17", "A in tensor memory cannot be transposed")
    else:
        offsets = operand_offsets(at_a, rows, K_BYTES, of.a_is_mn_major, size)
        a = [_Side(cta, offsets) for cta in ctas]
    offsets = operand_offsets(at_b, columns, K_BYTES, of.b_is_mn_major, size)
    scales: list[Cells | None] = [None, None]
    if of.is_scaled:
        # Each CTA has the scale factors of its own rows of A, and of all of B's.
        addresses = [int(fetch(warp)[lane]) for fetch in form.scales]
        scales = [
            scale_cells(count, taddr) for count, taddr in zip((rows, of.n), addresses, strict=True)
        ]
    return _Product(
        of,
        ctas,
        a,
        [_Side(cta, offsets) for cta in ctas],
        accumulator_cells(of.m, of.n, form.group, int(form.d(warp)[lane])),
        bool(form.keeps(warp)[lane]),
        form.lanes(warp, lane),
        *scales,
    )


def _note(product: _Product, warp: Warp, operation: Operation) -> None:
    """What a product reads and writes, for the order of accesses."""
    order = warp.cta.cluster.tensor_order
    for side in (*product.a, *product.b):
        if side.offsets is not None:
            side.cta.order.fetch(warp, operation, side.offsets)
        elif side.cells is not None:
            order.read(warp, side.cta, operation, side.cells)
    for i, cta in enumerate(product.ctas):
        for cells in (product.sfa, product.sfb):
            if cells is not None:
                order.read(warp, cta, operation, cells)
        written = product.lanes[i][product.d // NUM_COLUMNS]
        order.write(warp, cta, operation, product.d[written])


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "tcgen05.mma": _mma,
}
