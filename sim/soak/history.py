"""What happened in a day, a line an event: the world's time, who, what. Nothing secret may be in it, and that is
looked for in every line."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, TextIO

import msgspec

_TAIL = 400
"""Lines that are kept for whoever wants to read how it ended."""


class Secrets:
    """What must not be seen anywhere: card numbers, keys, tokens; found in any case of letters."""

    def __init__(self, words: Iterable[str | bytes]) -> None:
        self._needles = sorted({_text(word).lower() for word in words if len(word) >= 8})

    def within(self, text: str | bytes) -> bool:
        """Whether one of them is in it."""
        found = _text(text).lower()
        for needle in self._needles:  # noqa: SIM110 of every line: any() costs as much as what it does here
            if needle in found:
                return True
        return False


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("latin-1")


class History:
    """Writes to ``file`` where there is one; ``digest`` is over all lines, ``leaks`` those with a secret."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._sha = sha256()
        self.lines = 0
        self.secrets = Secrets(())
        self.folder = ""
        """Where this day lives: another one each time, and so it is not told."""
        self.leaks: list[str] = []
        self.tail: list[str] = []

    def add(self, at: float, who: str, what: str, /, **facts: Any) -> None:
        """A line: ``12.500 till charge {"reference":"r1"}``."""
        said = f" {msgspec.json.encode(facts).decode()}" if facts else ""
        line = f"{at:.3f} {who} {what}{said}\n"
        if self.folder:
            line = line.replace(self.folder, "")
        self.lines += 1
        self._sha.update(line.encode())
        if self.secrets.within(line):
            self.leaks.append(f"line {self.lines} of the history ({who} {what})")
            line = f"{at:.3f} {who} {what} with a secret in it\n"
        self.tail.append(line)
        if len(self.tail) > 2 * _TAIL:
            del self.tail[:_TAIL]
        if self._file is not None:
            self._file.write(line)

    @property
    def digest(self) -> str:
        """SHA-256 of all lines, in hexadecimal."""
        return self._sha.hexdigest()
