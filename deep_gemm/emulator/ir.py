"""What a PTX text means to the emulator: kernels made of instructions on resolved operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, Union


@dataclass(frozen=True, slots=True)
class Register:
    """A register of a kernel.

    Attributes:
        slot: its number, unique in the kernel; one of an inner scope has a slot of its own.
        type: "pred", "b16", "b32", "b64", "f32" or "f64"; integer types are bits of their width.
    """

    slot: int
    type: str


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant. What was written as bits of a float (0f3F800000) is decoded."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Symbol:
    """The address of a parameter or variable, plus bytes."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """`[base + offset]`, the offset in bytes. A symbol's own offset is 0 here."""

    base: Register | Symbol | Immediate
    offset: int


@dataclass(frozen=True, slots=True)
class TensorAddress:
    """`[base, {coordinates}]`: a tensor map's address and coordinates, innermost first."""

    base: Operand
    coordinates: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Vector:
    """`{a, b, ...}`."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Special:
    """A special register, without its percent sign: "tid.x", "laneid"."""

    name: str


@dataclass(frozen=True, slots=True)
class Label:
    """A branch target: a key of `Kernel.labels`."""

    name: str


@dataclass(frozen=True, slots=True)
class Pair:
    """`first|second`: two results."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Negated:
    """`!p`: the opposite of a predicate, as a source."""

    register: Register


@dataclass(frozen=True, slots=True)
class Sink:
    """`_`: a result that nobody wants."""


# A string in Union, as Python 3.10 cannot join it with `|`.
Operand: TypeAlias = Union[
    Register,
    Immediate,
    Symbol,
    Address,
    "TensorAddress",
    "Vector",
    Special,
    Label,
    "Pair",
    "Negated",
    Sink,
]


@dataclass(frozen=True, slots=True)
class Guard:
    """`@p` or `@!p`."""

    register: Register
    negated: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A line of source.

    Attributes:
        file: its name, relative to where the compiled file lies: "mainloop/multiply.cuh".
        line: from 1.
        inlined_at: the call, if the line is in a function that was inlined.
    """

    file: str
    line: int
    inlined_at: Place | None = None

    def __str__(self) -> str:
        """The line, and the calls that led there, innermost first."""
        here = f"{self.file}:{self.line}"
        return here if self.inlined_at is None else f"{here} < {self.inlined_at}"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        opcode: the part before the first dot: "add", "wgmma".
        modifiers: the parts after it, in order.
        operands: as written, destinations first.
        guard: the predicate, if any.
        line: of the PTX text, from 1, where the instruction (or its guard) starts.
        text: as written, on one line, without the semicolon.
        place: in the source, if the text has line information.
    """

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Guard | None
    line: int
    text: str
    place: Place | None = None

    @property
    def name(self) -> str:
        """The opcode with all its modifiers: "add.s32"."""
        return ".".join((self.opcode, *self.modifiers))


@dataclass(frozen=True, slots=True)
class Parameter:
    """A kernel's parameter; size, alignment and offset in the parameter buffer are in bytes."""

    name: str
    size: int
    alignment: int
    offset: int


@dataclass(frozen=True)
class Kernel:
    """An entry function.

    Attributes:
        name: of the entry.
        parameters: in order.
        registers: by slot.
        instructions: in order.
        labels: index of the instruction that follows each label, which may be one past the last.
        max_threads: of a CTA; 1024 if the kernel does not say.
        min_ctas: per multiprocessor; 1 if the kernel does not say.
    """

    name: str
    parameters: tuple[Parameter, ...]
    registers: tuple[Register, ...]
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    max_threads: int
    min_ctas: int


@dataclass(frozen=True)
class Variable:
    """A named piece of memory.

    Attributes:
        name: of the variable.
        space: "global", "const" or "shared".
        alignment: in bytes.
        size: in bytes; 0 for an extern array without a size.
        data: initial content of all its bytes, or None if it has no initialiser.
        is_extern: it is declared here and made elsewhere; for shared memory, at launch.
    """

    name: str
    space: str
    alignment: int
    size: int
    data: bytes | None
    is_extern: bool


@dataclass(frozen=True)
class Module:
    """A PTX text; `version` is that of the PTX ISA, `target` is such as "sm_90a"."""

    version: tuple[int, int]
    target: str
    kernels: dict[str, Kernel]
    variables: dict[str, Variable]
