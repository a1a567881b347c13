"""BER-TLV, as chip cards and readers send it (EMV 4.3 Book 3, annex B; ISO/IEC 8825-1).

Tags repeat, and their order tells: what is parsed is a tuple of objects, never a dictionary. What a tag means is
not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from hw.errors import CardError

MAX_DEPTH: Final = 16
"""Templates within templates."""
MAX_TAG: Final = 4
"""Bytes of a tag."""


@dataclass(frozen=True, slots=True)
class Tlv:
    """One data object: the tag as a number (0x9F02, leading bytes included), and its value."""

    tag: int
    value: bytes = field(repr=False)

    @property
    def constructed(self) -> bool:
        """Whether the value is made of data objects itself: bit 6 of the tag's first byte."""
        return bool(tag_bytes(self.tag)[0] & 0x20)

    def encode(self) -> bytes:
        """Tag, length, value; the length in as few bytes as it needs."""
        return tag_bytes(self.tag) + _length(len(self.value)) + self.value

    def children(self) -> tuple[Tlv, ...]:
        """The objects in a template; CardError where the value is not made of any."""
        return parse(self.value)


def parse(data: bytes) -> tuple[Tlv, ...]:
    """The data objects in ``data``, in order. 00 between objects is padding (EMV Book 3, annex B1).

    Raises CardError: a tag or a length that is cut short or too long, a value that is not all there.
    """
    return tuple(Tlv(tag, data[start:end]) for tag, start, end in spans(data))


def spans(data: bytes) -> tuple[tuple[int, int, int], ...]:
    """Tag, start and end of the value of each object in ``data``; raises as `parse` does."""
    found, at = [], 0
    while at < len(data):
        if data[at] == 0x00:
            at += 1
            continue
        tag, at = _read_tag(data, at)
        size, at = _read_length(data, at)
        if at + size > len(data):
            raise CardError("the card's data breaks off in the middle of an object")
        found.append((tag, at, at + size))
        at += size
    return tuple(found)


def walk(objects: Iterable[Tlv], depth: int = 0) -> Iterator[Tlv]:
    """Every object, and what is in the templates among them, each template before its content."""
    for one in objects:
        yield one
        if one.constructed:
            if depth == MAX_DEPTH:
                raise CardError("the card's templates are nested too deep")
            yield from walk(one.children(), depth + 1)


def find(objects: Iterable[Tlv], tag: int) -> bytes | None:
    """The value of the first object with this tag, at any depth; None where there is none."""
    return next((one.value for one in walk(objects) if one.tag == tag), None)


def encode(objects: Iterable[Tlv]) -> bytes:
    """Objects one after the other."""
    return b"".join(one.encode() for one in objects)


def template(tag: int, *children: Tlv) -> Tlv:
    """A constructed object."""
    return Tlv(tag, encode(children))


def parse_dol(data: bytes) -> tuple[tuple[int, int], ...]:
    """A data object list: (tag, length in bytes) in order (EMV 4.3 Book 3, section 5.4). Raises CardError."""
    found, at = [], 0
    while at < len(data):
        tag, at = _read_tag(data, at)
        size, at = _read_length(data, at)
        found.append((tag, size))
    return tuple(found)


def tag_bytes(tag: int) -> bytes:
    """A tag as it is sent."""
    return tag.to_bytes((tag.bit_length() + 7) // 8 or 1, "big")


def _read_tag(data: bytes, at: int) -> tuple[int, int]:
    start = at
    more = data[at] & 0x1F == 0x1F
    at += 1
    while more:
        if at == len(data) or at - start == MAX_TAG:
            raise CardError("the card sent a tag that is cut short or too long")
        more = bool(data[at] & 0x80)
        at += 1
    return int.from_bytes(data[start:at], "big"), at


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    if at == len(data):
        raise CardError("the card's data breaks off before a length")
    first, at = data[at], at + 1
    if first < 0x80:
        return first, at
    size = first & 0x7F
    if not 1 <= size <= 3 or at + size > len(data):
        raise CardError("the card sent a length that is cut short or too long")
    return int.from_bytes(data[at : at + size], "big"), at + size


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes((size,))
    coded = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(coded),)) + coded
