"""From a PTX text, as NVRTC and NVCC write it, to the module that it means.

The parser takes what compilers emit for kernels without calls. What it does not know is an error.
"""

from __future__ import annotations

import math

from deep_gemm.emulator.declarations import SPACES, parse_parameters, parse_variable
from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ir import (
    Address,
    Guard,
    Immediate,
    Instruction,
    Kernel,
    Label,
    Module,
    Negated,
    Operand,
    Pair,
    Parameter,
    Place,
    Register,
    Sink,
    Special,
    Symbol,
    TensorAddress,
    Variable,
    Vector,
)
from deep_gemm.emulator.kernel_body import KernelBody
from deep_gemm.emulator.source_lines import file_names
from deep_gemm.emulator.tokens import Tokens

__all__ = [
    "Address",
    "Guard",
    "Immediate",
    "Instruction",
    "Kernel",
    "Label",
    "Module",
    "Negated",
    "Operand",
    "Pair",
    "Parameter",
    "Place",
    "Register",
    "Sink",
    "Special",
    "Symbol",
    "TensorAddress",
    "Variable",
    "Vector",
    "parse",
]

_LINKING = (".visible", ".weak", ".extern")
_DEFAULT_MAX_THREADS = 1024


def parse(text: str) -> Module:
    """Parses a PTX text.

    Args:
        text: all of it.

    Returns:
        Its kernels and variables, by name. Variables that a kernel declares are among the latter.

    Raises:
        EmulationError: something in it is not understood; the text names its line.
    """
    return _ModuleParser(Tokens(text), file_names(text)).parse()


class _ModuleParser:
    def __init__(self, tokens: Tokens, files: dict[int, str]) -> None:
        self._tokens = tokens
        self._files = files
        self._kernels: dict[str, Kernel] = {}
        self._variables: dict[str, Variable] = {}

    def parse(self) -> Module:
        version, target = self._header()
        while self._tokens.kind != "end":
            self._item()
        return Module(version, target, self._kernels, self._variables)

    def _header(self) -> tuple[tuple[int, int], str]:
        tokens = self._tokens
        tokens.expect(".version")
        major, _, minor = tokens.take("number").partition(".")
        tokens.expect(".target")
        target = tokens.take("word")
        while tokens.accept(","):
            tokens.take("word")
        tokens.expect(".address_size")
        if tokens.integer() != 64:
            raise EmulationError("PTX: the address size must be 64")
        return (int(major), int(minor or 0)), target

    def _item(self) -> None:
        tokens = self._tokens
        is_extern = tokens.text == ".extern"
        if tokens.text in _LINKING:
            tokens.take()
        if tokens.text in SPACES:
            self._add(parse_variable(tokens, is_extern))
        elif tokens.accept(".entry"):
            self._kernel()
        elif is_extern and tokens.accept(".func"):
            # A declaration by itself does nothing; a call of it is an error where it stands.
            while not tokens.accept(";"):
                tokens.take()
        elif tokens.accept(".section"):
            tokens.take("directive")
            tokens.skip_block()
        else:
            raise tokens.error("expected a variable or a kernel")

    def _kernel(self) -> None:
        name = self._tokens.take("word")
        parameters = parse_parameters(self._tokens)
        max_threads, min_ctas = self._limits()
        symbols = {parameter.name for parameter in parameters} | self._variables.keys()
        body = KernelBody(self._tokens, symbols, self._files)
        for variable in body.variables.values():
            self._add(variable)
        self._kernels[name] = Kernel(
            name,
            parameters,
            tuple(body.registers),
            tuple(body.instructions),
            body.labels,
            max_threads,
            min_ctas,
        )

    def _limits(self) -> tuple[int, int]:
        """Threads of a CTA and CTAs of a multiprocessor.

        Limits of registers, and cluster sizes, which a launch gives, are passed over.
        """
        tokens = self._tokens
        max_threads, min_ctas = _DEFAULT_MAX_THREADS, 1
        while tokens.text != "{":
            if tokens.accept(".maxntid") or tokens.accept(".reqntid"):
                max_threads = self._product()
            elif tokens.accept(".minnctapersm"):
                min_ctas = tokens.integer()
            elif tokens.accept(".maxnreg") or tokens.accept(".maxclusterrank"):
                tokens.integer()
            elif tokens.accept(".reqnctapercluster"):
                self._product()
            elif not tokens.accept(".explicitcluster"):
                raise tokens.error("expected a kernel's limits or its body")
        return max_threads, min_ctas

    def _product(self) -> int:
        sizes = [self._tokens.integer()]
        while self._tokens.accept(","):
            sizes.append(self._tokens.integer())
        return math.prod(sizes)

    def _add(self, variable: Variable) -> None:
        if variable.name in self._variables:
            raise self._tokens.error(f"variable {variable.name} is declared twice")
        self._variables[variable.name] = variable
