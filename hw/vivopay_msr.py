"""A swipe as ID TECH readers hand it over: the "enhanced" format (ID TECH Encrypted Data Output, 80000502-001).

    02  length(2, low first)  card data  XOR of the card data  its sum  03

The card data begin with what they hold: which tracks in the clear or masked, which encrypted, whose key serial
number. A track is written with its sentinels, and is encrypted in blocks of 8 bytes (TDES) or 16 (AES).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import Any, Final, Literal

from construct import (
    Bytes,
    Const,
    Construct,
    ConstructError,
    GreedyBytes,
    If,
    Int8ub,
    Int16ul,
    Prefixed,
    Struct,
    Terminated,
)

from hw.errors import ProtocolError

AES: Final = 0x10
"""In ``shown``: encrypted with AES rather than TDES."""
BANK_CARD: Final = 0x80
"""Kind of card: laid out by ISO/IEC 7813."""
SERIAL: Final = 10
HASH: Final = 20
SESSION: Final = 8


def _bit(name: str, place: int) -> Callable[[Any], bool]:
    return lambda this: bool(this[name] >> place & 1)


def _blocks(track: int) -> Callable[[Any], int]:
    def size(this: Any) -> int:
        block = 16 if this.shown & AES else 8
        return int(-(-this[f"size{track}"] // block) * block)

    return size


def _size(track: int) -> Callable[[Any], int]:
    return lambda this: int(this[f"size{track}"])


_CARD: Final[Construct] = Struct(
    "kind" / Int8ub,
    "status" / Int8ub,
    "size1" / Int8ub,
    "size2" / Int8ub,
    "size3" / Int8ub,
    "shown" / Int8ub,
    "sealed" / Int8ub,
    "extra" / If(_bit("status", 6), Prefixed(Int8ub, GreedyBytes)),
    "shown1" / If(_bit("shown", 0), Bytes(_size(1))),
    "shown2" / If(_bit("shown", 1), Bytes(_size(2))),
    "shown3" / If(_bit("shown", 2), Bytes(_size(3))),
    "sealed1" / If(_bit("sealed", 0), Bytes(_blocks(1))),
    "sealed2" / If(_bit("sealed", 1), Bytes(_blocks(2))),
    "sealed3" / If(_bit("sealed", 2), Bytes(_blocks(3))),
    "session" / If(_bit("sealed", 6), Bytes(SESSION)),
    "hash1" / If(_bit("sealed", 3), Bytes(HASH)),
    "hash2" / If(_bit("sealed", 4), Bytes(HASH)),
    "hash3" / If(_bit("sealed", 5), Bytes(HASH)),
    "serial" / If(_bit("shown", 7), Bytes(SERIAL)),
    "ksn" / If(_bit("sealed", 7), GreedyBytes),
    Terminated,
)
_FRAME: Final = Struct(
    "start" / Const(b"\x02"),
    "card" / Prefixed(Int16ul, GreedyBytes),
    "lrc" / Int8ub,
    "sum" / Int8ub,
    "end" / Const(b"\x03"),
    Terminated,
)


@dataclass(frozen=True, repr=False, slots=True)
class Swipe:
    """The tracks by number: ``shown`` in the clear or masked, ``sealed`` as ciphertext; the others are left out."""

    shown: dict[int, bytes]
    sealed: dict[int, bytes] = field(default_factory=dict)
    ksn: bytes = b""
    scheme: Literal["dukpt-tdes", "dukpt-aes"] = "dukpt-tdes"


def parse(data: bytes) -> Swipe:
    """The swipe in the value of a DFEE23; raises ProtocolError."""
    card = _opened(data)
    return Swipe(
        {track: card[f"shown{track}"] for track in (1, 2, 3) if card[f"shown{track}"]},
        {track: card[f"sealed{track}"] for track in (1, 2, 3) if card[f"sealed{track}"]},
        card.ksn or b"",
        "dukpt-aes" if card.shown & AES else "dukpt-tdes",
    )


def masked(data: bytes, mask: Callable[[bytes], bytes]) -> bytes:
    """The same with ``mask`` over its tracks, ciphertext and hashes blanked; what is no swipe is blanked whole."""
    try:
        card = _opened(data)
    except ProtocolError:
        return bytes(len(data))
    for name, value in card.items():
        if isinstance(value, bytes) and name != "ksn":
            card[name] = mask(value) if name.startswith("shown") else bytes(len(value))
    return _closed(card)


def _opened(data: bytes) -> Any:
    try:
        frame = _FRAME.parse(data)
        if (frame.lrc, frame.sum) == _sums(frame.card):
            return _CARD.parse(frame.card)
    except ConstructError:
        pass
    raise ProtocolError(f"the reader sent a swipe of {len(data)} bytes that is laid out wrong, or fails its check")


def _closed(fields: dict[str, Any]) -> bytes:
    card = _CARD.build(fields)
    lrc, total = _sums(card)
    return bytes(_FRAME.build({"card": card, "lrc": lrc, "sum": total}))


def _sums(card: bytes) -> tuple[int, int]:
    return reduce(xor, card, 0), sum(card) & 0xFF


def build(swipe: Swipe, sizes: dict[int, int] | None = None) -> bytes:
    """The value of a DFEE23. ``sizes``: characters of a track, where it is only sealed."""
    sizes = {**(sizes or {}), **{track: len(data) for track, data in swipe.shown.items()}}
    fields: dict[str, Any] = {f"size{track}": sizes.get(track, 0) for track in (1, 2, 3)}
    for name, tracks in (("shown", swipe.shown), ("sealed", swipe.sealed)):
        fields |= {f"{name}{track}": tracks.get(track) for track in (1, 2, 3)}
        fields[name] = sum(1 << track - 1 for track in tracks)
    fields["shown"] |= AES if swipe.scheme == "dukpt-aes" else 0
    fields["sealed"] |= 0x80 if swipe.ksn else 0
    read = sum(1 << track - 1 for track in sizes)
    absent = dict.fromkeys(("extra", "session", "hash1", "hash2", "hash3", "serial"))
    status = read | read << 3
    return _closed({**absent, **fields, "kind": BANK_CARD, "status": status, "ksn": swipe.ksn or None})
