"""Where instructions come from: the .file and .loc directives of a PTX text."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace

from deep_gemm.emulator.ir import Place
from deep_gemm.emulator.tokens import Tokens

# Either one path, or a folder and a name in it.
_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"\n]*)"(?:\s+"([^"\n]*)")?', re.MULTILINE)


def file_names(text: str) -> dict[int, str]:
    """The names of a text's source files, by number.

    They are relative to the folder of file 1, which is the one that was compiled; files elsewhere,
    such as a toolkit's, have their last name only.
    """
    paths = {
        int(number): posixpath.normpath(posixpath.join(first, second))
        for number, first, second in _FILE.findall(text)
    }
    root = posixpath.join(posixpath.dirname(paths.get(1, "")), "")
    return {
        number: path.removeprefix(root) if path.startswith(root) else posixpath.basename(path)
        for number, path in paths.items()
    }


class SourceLines:
    """Follows the .loc directives of one kernel.

    Attributes:
        place: of the instructions that follow; None before the first directive, and for those that
            the compiler attributes to no line.
    """

    def __init__(self, files: dict[int, str]) -> None:
        """Starts without a place; `files` are names by number."""
        self.place: Place | None = None
        self._files = files
        # A call that was itself inlined had a directive of its own before.
        self._calls: dict[tuple[int, int, int], Place] = {}

    def read(self, tokens: Tokens) -> None:
        """Reads `.loc file line column[, function_name label[+offset], inlined_at ...]`.

        Raises:
            EmulationError: it is written in another way, or its file has no name.
        """
        tokens.expect(".loc")
        key, place = self._position(tokens)
        if tokens.accept(","):
            tokens.expect("function_name")
            tokens.take("word")
            if tokens.accept("+"):
                tokens.integer()
            tokens.expect(",")
            tokens.expect("inlined_at")
            call, plain = self._position(tokens)
            place = replace(place, inlined_at=self._calls.get(call, plain))
        self._calls[key] = place
        self.place = place if place.line else None

    def _position(self, tokens: Tokens) -> tuple[tuple[int, int, int], Place]:
        number, line, column = tokens.integer(), tokens.integer(), tokens.integer()
        if number not in self._files:
            raise tokens.error(f"source file {number} has no name")
        return (number, line, column), Place(self._files[number], line)
