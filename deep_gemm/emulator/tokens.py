"""PTX text as a sequence of tokens, each with its line."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right

from deep_gemm.emulator.errors import EmulationError

# .file ends with its line, not with a token; source_lines.py reads it.
_SKIPPED = r"\s+|//[^\n]*|/\*.*?\*/|\.file\b[^\n]*"
_NUMBER = (
    r"0[fF][0-9a-fA-F]{8}\b|0[dD][0-9a-fA-F]{16}\b|0[xX][0-9a-fA-F]+U?\b|0[bB][01]+U?\b"
    r"|\d+\.\d+\b|\d+U?\b"
)
_TOKEN = re.compile(
    rf"""(?P<skipped>{_SKIPPED})
    |(?P<number>{_NUMBER})
    |(?P<word>[%$A-Za-z_][\w$]*(?:(?:\.|::)\w+)*)
    |(?P<directive>\.[A-Za-z]\w*)
    |(?P<string>"[^"\n]*")
    |(?P<sign>[][{{}}(),;:|@!=<>+-])""",
    re.ASCII | re.DOTALL | re.VERBOSE,
)


class Tokens:
    """A cursor over the tokens of a text.

    Raises:
        EmulationError: a character starts no token.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._tokens: list[tuple[str, str, int]] = []
        self._next = 0
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error_at(position, f"unexpected {text[position]!r}")
            kind = match.lastgroup or ""
            if kind != "skipped":
                self._tokens.append((kind, match[0], position))
            position = match.end()
        self._tokens.append(("end", "", len(text)))

    @property
    def kind(self) -> str:
        """Of the next token: number, word, directive, string, sign or end."""
        return self._tokens[self._next][0]

    @property
    def text(self) -> str:
        """Of the next token; empty at the end."""
        return self._tokens[self._next][1]

    @property
    def following(self) -> str:
        """The text of the token after the next one."""
        return self._tokens[min(self._next + 1, len(self._tokens) - 1)][1]

    @property
    def start(self) -> int:
        """Where the next token starts in the text."""
        return self._tokens[self._next][2]

    @property
    def line(self) -> int:
        """Of the next token, from 1."""
        return self._line_of(self.start)

    def since(self, start: int) -> str:
        """The text from `start` to the next token, on one line and without comments."""
        words = re.sub(r"//[^\n]*|/\*.*?\*/", " ", self._text[start : self.start], flags=re.DOTALL)
        return " ".join(words.split())

    def take(self, kind: str | None = None) -> str:
        """The next token's text, of any kind or the given one; goes on to the token after it."""
        found, text, _ = self._tokens[self._next]
        if found == "end" or kind not in (None, found):
            raise self.error(f"expected a {kind or 'token'}")
        self._next += 1
        return text

    def accept(self, text: str) -> bool:
        """Goes on if the next token is `text`."""
        if self._tokens[self._next][1] != text:
            return False
        self._next += 1
        return True

    def expect(self, text: str) -> None:
        """Goes on over `text`, which has to be next."""
        if not self.accept(text):
            raise self.error(f"expected {text!r}")

    def number(self) -> int | float:
        """A constant with an optional minus."""
        sign = -1 if self.accept("-") else 1
        return sign * _value(self.take("number"))

    def integer(self) -> int:
        """A whole constant with an optional minus."""
        line = self.line
        value = self.number()
        if not isinstance(value, int):
            raise EmulationError(f"PTX line {line}: expected an integer, got {value}")
        return value

    def skip_block(self) -> None:
        """Goes on over `{ ... }`."""
        self.expect("{")
        depth = 1
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")

    def error(self, problem: str) -> EmulationError:
        """An error that names the line and the next token."""
        return self._error_at(self.start, f"{problem}, got {self.text or 'the end'!r}")

    def _error_at(self, position: int, problem: str) -> EmulationError:
        line = self._line_of(position)
        content = self._text.split("\n")[line - 1].strip()
        return EmulationError(f"PTX line {line}: {problem}: {content}")

    def _line_of(self, position: int) -> int:
        return bisect_right(self._newlines, position - 1) + 1


def _value(text: str) -> int | float:
    prefix, digits = text[:2].lower(), text.rstrip("U")
    if prefix in ("0f", "0d"):
        layout = ">f" if prefix == "0f" else ">d"
        value: float = struct.unpack(layout, bytes.fromhex(text[2:]))[0]
        return value
    if prefix == "0x":
        return int(digits, 16)
    if prefix == "0b":
        return int(digits, 2)
    if "." in text:
        return float(text)
    return int(digits, 8 if len(digits) > 1 and digits.startswith("0") else 10)
