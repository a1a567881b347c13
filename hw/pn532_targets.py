"""The cards that the PN532 found: its answer to InListPassiveTarget (NXP UM0701-02, section 7.3.5).

    type A    NbTg  Tg SENS_RES(2) SEL_RES NFCIDLen NFCID [ATSLen ATS]  ...
    type B    NbTg  Tg ATQB(12) ATTRIB_RES_Len ATTRIB_RES  ...

An ATS is there for a card of ISO 14443-4, which the chip activates by itself (SetParameters, AutoRATS). ATSLen
counts itself: it is the ATS's own first byte (ISO/IEC 14443-4, 5.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from construct import (
    Array,
    Bytes,
    Check,
    Const,
    Construct,
    ConstructError,
    GreedyBytes,
    If,
    Int8ub,
    Prefixed,
    Struct,
    Terminated,
    this,
)

from hw.errors import ProtocolError

TYPE_A: Final = 0x00
TYPE_B: Final = 0x03
"""Baud rate and modulation as InListPassiveTarget has them: 106 kbit/s, type A or B."""

MAX_TARGETS: Final = 2
"""Cards that the chip can handle, and so can tell apart."""

ISO_14443_4: Final = 0x20
"""The bit in SEL_RES of a card that speaks the block protocol, and so APDUs (ISO/IEC 14443-3, 6.5.3.4)."""

_A: Final = Struct(
    "number" / Int8ub,
    "sens_res" / Bytes(2),
    "sel_res" / Int8ub,
    "uid" / Prefixed(Int8ub, GreedyBytes),
    Check(lambda context: len(context.uid) in (4, 7, 10)),
    "ats" / If(this.sel_res & ISO_14443_4, Prefixed(Int8ub, GreedyBytes, includelength=True)),
)
_B: Final = Struct(
    "number" / Int8ub,
    "response" / Const(b"\x50"),
    "uid" / Bytes(4),
    "rest" / Bytes(7),
    "attrib" / Prefixed(Int8ub, GreedyBytes),
)

FORMS: Final[Mapping[int, Construct]] = {
    kind: Struct(
        "count" / Int8ub,
        Check(lambda context: context.count <= MAX_TARGETS),
        "targets" / Array(this.count, target),
        Terminated,
    )
    for kind, target in ((TYPE_A, _A), (TYPE_B, _B))
}
"""The answer by the type that was asked for. The driver parses with these and the emulator builds with them."""


@dataclass(frozen=True, slots=True)
class Target:
    """A card in the field: its type, the chip's number for it, its UID (type A) or PUPI (type B), its ATS or ATQB.

    ``answer`` is empty for a card that speaks no APDUs.
    """

    kind: int
    number: int
    uid: bytes = field(repr=False)
    answer: bytes


def parse_targets(kind: int, data: bytes) -> tuple[Target, ...]:
    """The cards in an answer, without its code; raises ProtocolError."""
    try:
        found = FORMS[kind].parse(data)
    except ConstructError:
        found = None
    if found is None:
        raise ProtocolError(f"the chip told of a card in {len(data)} bytes that make no sense")
    return tuple(Target(kind, one.number, one.uid, _answer(kind, one)) for one in found.targets)


def _answer(kind: int, one: Construct) -> bytes:
    if kind == TYPE_B:
        return bytes(one.response + one.uid + one.rest)
    return b"" if one.ats is None else bytes((len(one.ats) + 1,)) + one.ats
