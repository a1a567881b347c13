"""Data objects as ViVOpay readers write them: BER-TLV, but for their own tags and lengths.

Tags FFE0 to FFFF and E300 have two bytes, whatever BER makes of them, and of their own tags only a few hold others.
A length of A1 or A2 says that the value is masked, C1 or C2 that it is encrypted; the low digit counts the bytes of
length that follow, as in 81 and 82 (NEO 2 Interface Developer's Guide, sections 4 and 8.5; ID TECH Encrypted Data
Output, 80000502-001).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from hw.errors import ProtocolError
from hw.tlv import tag_bytes

MAX_DEPTH: Final = 8
"""Groups within groups: the readers' own have two."""
MAX_TAG: Final = 4

KSN: Final = 0xDFEE12
"""Key serial number of what is encrypted."""
MSR: Final = 0xDFEE23
"""A swipe: see `hw.vivopay_msr`."""
ENCRYPTION: Final = 0xDFEE26
"""The attribution byte, and another."""
BURST: Final = 0xDFEE7E
"""Burst mode: 00 off, 01 on."""
ERROR: Final = 0xFFEE1F
"""Error code, SW1, SW2, and where in the exchange with the card it happened."""
TRACK_1: Final = (0xDFEF17, 0xFFEE13)
TRACK_2: Final = (0xDFEF18, 0xFFEE14)
"""Tracks in ASCII, of contactless cards that imitate a stripe; new and old tag."""

GROUPS: Final = frozenset((0xFFEE01, 0xFFEE04, 0xFFEE05, 0xFFEE06, 0xFFEE08))
"""The maker's tags that hold others."""
_TWO_BYTES: Final = frozenset((0xE300,))


class Cover(IntEnum):
    """What was done to a value, as its length says it."""

    CLEAR = 0x80
    MASKED = 0xA0
    SEALED = 0xC0


@dataclass(frozen=True, slots=True)
class Item:
    """One object. A SEALED value is ciphertext, a MASKED one has C for the digits that are left out."""

    tag: int
    value: bytes = field(repr=False)
    cover: Cover = Cover.CLEAR

    def encode(self) -> bytes:
        """Tag, length, value."""
        size = len(self.value)
        if self.cover is Cover.CLEAR and size < 0x80:
            length = bytes((size,))
        else:
            coded = size.to_bytes(2 if size > 0xFF else 1, "big")
            length = bytes((self.cover | len(coded),)) + coded
        return tag_bytes(self.tag) + length + self.value


@dataclass(frozen=True, slots=True)
class Span:
    """Where in some bytes an object stands: ``start`` to ``end`` is its value."""

    tag: int
    start: int
    end: int
    cover: Cover


def is_own(tag: int) -> bool:
    """Whether it is the maker's own tag."""
    return tag >> 8 in (0xDFED, 0xDFEE, 0xDFEF, 0xFFEE) or 0xFFE0 <= tag <= 0xFFFF or tag in _TWO_BYTES


def holds_others(tag: int) -> bool:
    """Whether its value is made of objects."""
    return tag in GROUPS if is_own(tag) else bool(tag_bytes(tag)[0] & 0x20)


def spans(data: bytes) -> tuple[Span, ...]:
    """The objects in ``data``, in order; 00 between them is padding. Raises ProtocolError."""
    found, at = [], 0
    while at < len(data):
        if data[at] == 0:
            at += 1
            continue
        size = _tag_size(data, at)
        tag, at = int.from_bytes(data[at : at + size], "big"), at + size
        cover, length, at = _length(data, at)
        if at + length > len(data):
            raise ProtocolError("the reader's data breaks off in the middle of an object")
        found.append(Span(tag, at, at + length, cover))
        at += length
    return tuple(found)


def parse(data: bytes) -> tuple[Item, ...]:
    """As `spans`, with the values."""
    return tuple(Item(one.tag, data[one.start : one.end], one.cover) for one in spans(data))


def encode(items: Iterable[Item]) -> bytes:
    """All of them, one after the other."""
    return b"".join(item.encode() for item in items)


def walk(items: Iterable[Item], depth: int = 0) -> Iterator[Item]:
    """Every object, and what is in the groups among them."""
    for item in items:
        yield item
        if holds_others(item.tag) and item.cover is Cover.CLEAR:
            if depth == MAX_DEPTH:
                raise ProtocolError("the reader's groups are nested too deep")
            yield from walk(parse(item.value), depth + 1)


def without(items: Iterable[Item], unwanted: frozenset[int], depth: int = 0) -> bytes:
    """Those in the clear that are neither the maker's own nor ``unwanted``, at any depth, as BER-TLV."""
    kept = b""
    for item in items:
        if item.cover is not Cover.CLEAR or is_own(item.tag) or item.tag in unwanted:
            continue
        if holds_others(item.tag):
            if depth == MAX_DEPTH:
                raise ProtocolError("the reader's groups are nested too deep")
            item = Item(item.tag, without(parse(item.value), unwanted, depth + 1))
        kept += item.encode()
    return kept


def _tag_size(data: bytes, at: int) -> int:
    first, second = data[at], data[at + 1] if at + 1 < len(data) else 0
    if first << 8 | second in _TWO_BYTES or (first == 0xFF and second >= 0xE0 and second != 0xEE):
        return 2
    if first & 0x1F != 0x1F:
        return 1
    size = 2
    while size <= MAX_TAG and at + size <= len(data):
        if not data[at + size - 1] & 0x80:
            return size
        size += 1
    raise ProtocolError("the reader sent a tag that is cut short or too long")


def _length(data: bytes, at: int) -> tuple[Cover, int, int]:
    if at >= len(data):
        raise ProtocolError("the reader's data breaks off before a length")
    first, at = data[at], at + 1
    if first < 0x80:
        return Cover.CLEAR, first, at
    count = first & 0x0F
    if first & 0xF0 not in tuple(Cover) or not 1 <= count <= 2 or at + count > len(data):
        raise ProtocolError("the reader sent a length that is cut short or too long")
    return Cover(first & 0xF0), int.from_bytes(data[at : at + count], "big"), at + count
