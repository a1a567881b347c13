"""Secrets that are easy to find again, and the search for them in whatever way they may be written.

The search undoes spellings rather than listing them: from hex at either alignment, from base64 at each of the four
places where it may begin, from Python's and JSON's escapes and percent signs, from lists of numbers, and one of
these inside another. Digits are also looked for in the hex of the bytes, where packed digits (BCD) show, at either
nibble. A part of a secret counts as the whole, since what is cut short for a log is leaked all the same.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, unhexlify
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

PIECE = 10
"""Bytes of a secret that give it away; of a card number twelve digits: more than the ten that may be shown."""

_HEX = re.compile(rb"[0-9A-Fa-f]{16,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{8,}")
_NUMBERS = re.compile(rb"\d{1,3}(?:, ?\d{1,3}){7,}")
_BYTE = re.compile(rb"\\+(?:x|u00)([0-9A-Fa-f]{2})")
_LETTER = re.compile(rb"\\+([\\nrt'\"/])")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_SEPARATORS = b" -:.,\r\n\t"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_EDGE = b"\0\0"
"""Between two finds in one view, so that no secret is put together from both."""


@dataclass(frozen=True)
class Canary:
    """A secret and what it is; ``whole``: only all of it counts."""

    name: str
    secret: bytes = field(repr=False)
    whole: bool = False

    def needles(self) -> set[bytes]:
        """Pieces any of which gives it away; of what is text, backwards too."""
        secret, piece = self.secret, 12 if self.secret.isdigit() else PIECE
        if self.whole or len(secret) <= piece:
            pieces = {secret}
        else:
            middle = (len(secret) - piece) // 2
            pieces = {secret[:piece], secret[middle : middle + piece], secret[-piece:]}
        return pieces | {each[::-1] for each in pieces if secret.isascii()}


def _from_hex(data: bytes) -> bytes:
    found = []
    for run in _HEX.findall(data):
        for text in (run, run[1:]):
            found.append(unhexlify(text[: len(text) & ~1]))
    return _EDGE.join(found)


def _from_base64(data: bytes) -> bytes:
    found = []
    for run in _BASE64.findall(data):
        for start in range(4):
            text = run[start:].translate(_URL_SAFE)
            if len(text) % 4 == 1:
                text = text[:-1]
            found.append(a2b_base64(text + b"=" * (-len(text) % 4)))
    return _EDGE.join(found)


def _from_escapes(data: bytes) -> bytes:
    if b"\\" not in data and b"%" not in data:
        return b""
    plain = _BYTE.sub(lambda found: unhexlify(found[1]), data)
    return unquote_to_bytes(_LETTER.sub(lambda found: _LETTERS.get(found[1], found[1]), plain))


def _from_numbers(data: bytes) -> bytes:
    runs = ([int(number) for number in run.split(b",")] for run in _NUMBERS.findall(data))
    return _EDGE.join(bytes(number & 255 for number in run) for run in runs)


_READINGS = (_from_hex, _from_base64, _from_escapes, _from_numbers)


def _read(data: bytes) -> list[bytes]:
    return [each for each in (read(data) for read in _READINGS) if each]


def views(data: bytes) -> list[bytes]:
    """The bytes as they are and without separators, and all that may be read out of them, two deep."""
    joined = data.translate(None, _SEPARATORS)
    first = _read(data) + _read(joined)
    second = [deeper for each in first for deeper in _read(each)]
    packed = [each.hex().encode() for each in (data, *first)]
    return list(dict.fromkeys([data, joined, *first, *second, *packed]))


def search(data: bytes, canaries: Iterable[Canary]) -> set[str]:
    """The names of the canaries of which a piece is in the bytes."""
    looked_at = _EDGE.join(views(data))
    return {canary.name for canary in canaries if any(needle in looked_at for needle in canary.needles())}
