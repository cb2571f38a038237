"""A kernel's body: its scopes, registers, labels and instructions."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field, replace

from deep_gemm.emulator.declarations import SPACES, parse_variable
from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ir import (
    Address,
    Guard,
    Immediate,
    Instruction,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    TensorAddress,
    Variable,
    Vector,
)
from deep_gemm.emulator.source_lines import SourceLines
from deep_gemm.emulator.tokens import Tokens

_REGISTER_TYPES = {
    ".pred": "pred",
    **{f".{letter}{bits}": f"b{bits}" for letter in "bus" for bits in (16, 32, 64)},
    ".f32": "f32",
    ".f64": "f64",
}

_SPECIAL = re.compile(
    r"%((?:n?tid|n?ctaid|n?clusterid|cluster_n?ctaid)\.[xyz]|cluster_n?ctarank|is_explicit_cluster"
    r"|laneid|n?warpid|n?smid|gridid|clock(?:_hi|64)?|globaltimer(?:_lo|_hi)?"
    r"|lanemask_(?:eq|le|lt|ge|gt)|(?:total|aggr|dynamic)_smem_size)"
)


@dataclass(frozen=True, slots=True)
class _Scope:
    """Names declared between two braces.

    Attributes:
        number: 0 for the body itself.
        registers: by name.
        labels: declared name -> name in `Kernel.labels`.
        parent: the scope around it.
    """

    number: int
    parent: _Scope | None
    registers: dict[str, Register] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def register(self, name: str) -> Register | None:
        """The register that `name` means here."""
        found = self.registers.get(name)
        return self.parent.register(name) if found is None and self.parent else found

    def label(self, name: str) -> str | None:
        """The key of the label that `name` means here."""
        found = self.labels.get(name)
        return self.parent.label(name) if found is None and self.parent else found


class KernelBody:
    """Parses what stands between the braces of a kernel.

    Attributes:
        registers: by slot.
        instructions: in order, branch targets resolved.
        labels: index of the instruction that follows; a label of an inner scope is named
            `LABEL#scope`, as its plain name may occur in many scopes.
        variables: declared in the body.
    """

    def __init__(self, tokens: Tokens, symbols: Container[str], files: dict[int, str]) -> None:
        """Parses from the opening brace to the closing one.

        Args:
            tokens: stand before the opening brace.
            symbols: names of parameters and of the module's variables.
            files: names of source files, by number.

        Raises:
            EmulationError: something in it is not understood; the text names its line.
        """
        self.registers: list[Register] = []
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.variables: dict[str, Variable] = {}
        self._tokens = tokens
        self._symbols = symbols
        self._lines = SourceLines(files)
        self._num_scopes = 0
        self._branches: list[tuple[int, _Scope]] = []
        self._block(None)
        for index, scope in self._branches:
            self.instructions[index] = self._resolved(self.instructions[index], scope)

    def _block(self, parent: _Scope | None) -> None:
        scope = _Scope(self._num_scopes, parent)
        self._num_scopes += 1
        self._tokens.expect("{")
        while not self._tokens.accept("}"):
            self._statement(scope)

    def _statement(self, scope: _Scope) -> None:
        tokens = self._tokens
        if tokens.text == "{":
            self._block(scope)
        elif tokens.accept(".reg"):
            self._declare_registers(scope)
        elif tokens.text == ".loc":
            self._lines.read(tokens)
        elif tokens.text in SPACES:
            variable = parse_variable(tokens, is_extern=False)
            self.variables[variable.name] = variable
        elif tokens.accept(".pragma"):
            tokens.take("string")
            tokens.expect(";")
        elif tokens.following == ":":
            self._declare_label(scope)
        elif not tokens.accept(";"):
            self._instruction(scope)

    def _declare_registers(self, scope: _Scope) -> None:
        tokens = self._tokens
        kind = _REGISTER_TYPES.get(tokens.text)
        if kind is None:
            raise tokens.error("expected a register's type")
        tokens.take()
        while True:
            name = tokens.take("word")
            names = [name]
            if tokens.accept("<"):
                names = [f"{name}{i}" for i in range(tokens.integer())]
                tokens.expect(">")
            for name in names:
                if name in scope.registers:
                    raise tokens.error(f"register {name} is declared twice")
                scope.registers[name] = Register(len(self.registers), kind)
                self.registers.append(scope.registers[name])
            if not tokens.accept(","):
                break
        tokens.expect(";")

    def _declare_label(self, scope: _Scope) -> None:
        name = self._tokens.take("word")
        if name in scope.labels:
            raise self._tokens.error(f"label {name} is declared twice")
        scope.labels[name] = f"{name}#{scope.number}" if scope.number else name
        self.labels[scope.labels[name]] = len(self.instructions)
        self._tokens.expect(":")

    def _instruction(self, scope: _Scope) -> None:
        tokens = self._tokens
        line, start = tokens.line, tokens.start
        guard = self._guard(scope) if tokens.accept("@") else None
        if tokens.kind != "word":
            raise tokens.error("expected an instruction")
        opcode, *modifiers = tokens.take().split(".")
        operands: list[Operand] = []
        if opcode == "bra":
            self._branches.append((len(self.instructions), scope))
            operands.append(Label(tokens.take("word")))
        elif tokens.text != ";":
            operands += self._operands(scope)
        text = tokens.since(start)
        tokens.expect(";")
        place = self._lines.place
        self.instructions.append(
            Instruction(opcode, tuple(modifiers), tuple(operands), guard, line, text, place)
        )

    def _guard(self, scope: _Scope) -> Guard:
        negated = self._tokens.accept("!")
        return Guard(self._predicate(scope), negated)

    def _predicate(self, scope: _Scope) -> Register:
        register = scope.register(self._tokens.text)
        if register is None or register.type != "pred":
            raise self._tokens.error("expected a predicate")
        self._tokens.take()
        return register

    def _operands(self, scope: _Scope) -> list[Operand]:
        """One or more operands between commas."""
        operands = [self._operand(scope)]
        while self._tokens.accept(","):
            operands.append(self._operand(scope))
        return operands

    def _operand(self, scope: _Scope) -> Operand:
        first = self._single(scope)
        return Pair(first, self._single(scope)) if self._tokens.accept("|") else first

    def _single(self, scope: _Scope) -> Operand:
        tokens = self._tokens
        if tokens.text == "{":
            return Vector(self._braced(scope))
        if tokens.accept("["):
            return self._address(scope)
        if tokens.accept("_"):
            return Sink()
        if tokens.accept("!"):
            return Negated(self._predicate(scope))
        value = self._value(scope)
        if isinstance(value, Symbol) and tokens.text in ("+", "-"):
            return Symbol(value.name, self._offset())
        return value

    def _braced(self, scope: _Scope) -> tuple[Operand, ...]:
        self._tokens.expect("{")
        items = self._operands(scope)
        self._tokens.expect("}")
        return tuple(items)

    def _address(self, scope: _Scope) -> Address | TensorAddress:
        tokens = self._tokens
        base = self._value(scope)
        if isinstance(base, Special):
            raise tokens.error("an address cannot start from a special register")
        if tokens.accept(","):
            coordinates = self._braced(scope)
            tokens.expect("]")
            return TensorAddress(base, coordinates)
        offset = self._offset()
        tokens.expect("]")
        return Address(base, offset)

    def _offset(self) -> int:
        """`+4`, `+-4`, `-4`, or nothing, which is 0."""
        if self._tokens.accept("+") or self._tokens.text == "-":
            return self._tokens.integer()
        return 0

    def _value(self, scope: _Scope) -> Register | Immediate | Symbol | Special:
        tokens = self._tokens
        if tokens.kind == "number" or tokens.text == "-":
            return Immediate(tokens.number())
        name = tokens.text
        value: Register | Symbol | Special | None = scope.register(name)
        if value is None and (special := _SPECIAL.fullmatch(name)):
            value = Special(special[1])
        if value is None and (name in self._symbols or name in self.variables):
            value = Symbol(name)
        if value is None:
            raise tokens.error("expected an operand that is known here")
        tokens.take()
        return value

    def _resolved(self, branch: Instruction, scope: _Scope) -> Instruction:
        (target,) = branch.operands
        name = scope.label(target.name) if isinstance(target, Label) else None
        if name is None:
            raise EmulationError(f"PTX line {branch.line}: no such label: {branch.text}")
        return replace(branch, operands=(Label(name),))
