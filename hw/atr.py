"""A card's answer to reset, and the choice of protocol and parameters (ISO/IEC 7816-3, sections 8 and 9).

atr = parse_atr(bytes.fromhex("3BE900FF8131FE45434C616972653320 3628"))
atr.protocols      # (1,)
atr.ifsc           # 254
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import Final

from hw.errors import CardError

MAX_ATR: Final = 33
"""Bytes, TS included."""
DIRECT: Final = 0x3B
INVERSE: Final = 0x3F
DEFAULT_SPEED: Final = 0x11
"""TA1 where the card gives none: Fi 372, Di 1."""
DEFAULT_WI: Final = 10
DEFAULT_IFSC: Final = 32
DEFAULT_BWI_CWI: Final = 0x4D
PPSS: Final = 0xFF

_INSERT: Final = "Insert the card again, chip first and to the end; wipe the contacts."


@dataclass(frozen=True, slots=True)
class Group:
    """The interface bytes of one turn, TAi to TDi; None for one that the card does not send."""

    ta: int | None = None
    tb: int | None = None
    tc: int | None = None
    td: int | None = None


@dataclass(frozen=True, slots=True)
class Atr:
    """An answer to reset, taken apart. ``groups[0]`` is TA1 to TD1; ``protocols`` are in the card's order."""

    raw: bytes = field(repr=False)
    groups: tuple[Group, ...]
    protocols: tuple[int, ...]
    historical: bytes = field(repr=False)

    @property
    def inverse(self) -> bool:
        """Whether the card speaks in the inverse convention."""
        return self.raw[0] == INVERSE

    @property
    def speed(self) -> int:
        """TA1: Fi in the high nibble, Di in the low one."""
        ta = self.groups[0].ta
        return DEFAULT_SPEED if ta is None else ta

    @property
    def guard(self) -> int:
        """TC1: extra guard time in etu; 255 is the least that the protocol allows."""
        return self.groups[0].tc or 0

    @property
    def specific(self) -> int | None:
        """The protocol in which the card already is (TA2: specific mode); None where one may be chosen."""
        ta = self.groups[1].ta if len(self.groups) > 1 else None
        return None if ta is None else ta & 0x0F

    @property
    def keeps_default_speed(self) -> bool:
        """In specific mode: whether TA1 is to be disregarded (bit 5 of TA2)."""
        ta = self.groups[1].ta if len(self.groups) > 1 else None
        return ta is not None and bool(ta & 0x10)

    @property
    def wi(self) -> int:
        """TC2: waiting time integer of T=0."""
        tc = self.groups[1].tc if len(self.groups) > 1 else None
        return DEFAULT_WI if tc is None else tc

    @property
    def ifsc(self) -> int:
        """Bytes that the card takes in one block of T=1."""
        ta = self._for_t1().ta
        return ta if ta is not None and 1 <= ta <= 254 else DEFAULT_IFSC

    @property
    def bwi_cwi(self) -> int:
        """Waiting time integers of T=1: block in the high nibble, character in the low one."""
        tb = self._for_t1().tb
        return DEFAULT_BWI_CWI if tb is None else tb

    @property
    def crc(self) -> bool:
        """Whether blocks of T=1 end in a CRC rather than in an LRC."""
        return bool((self._for_t1().tc or 0) & 0x01)

    def _for_t1(self) -> Group:
        """The first group after TD1 that is for T=1 (section 8.2.3)."""
        for before, group in zip(self.groups[1:], self.groups[2:], strict=False):
            if before.td is not None and before.td & 0x0F == 1:
                return group
        return Group()

    def choose(self, wanted: int | None = None) -> int:
        """The protocol to use, 0 or 1: ``wanted``, or the card's first. Raises CardError where it has none."""
        offered = (self.specific,) if self.specific is not None else self.protocols
        usable = [number for number in offered if number in (0, 1)]
        if wanted is not None and wanted not in usable:
            raise CardError(f"the card does not speak T={wanted}", advice="Leave the choice to the card.")
        if not usable:
            raise CardError("the card speaks neither T=0 nor T=1", advice="Use another card.")
        return wanted if wanted is not None else usable[0]


def parse_atr(data: bytes) -> Atr:
    """Take an answer to reset apart, checking it to its end; raises CardError."""
    if not 2 <= len(data) <= MAX_ATR:
        raise CardError(f"the card's answer to reset has {len(data)} bytes", advice=_INSERT)
    if data[0] not in (DIRECT, INVERSE):
        raise CardError(f"the card's answer to reset begins with {data[0]:02X}h", advice=_INSERT)
    groups: list[Group] = []
    protocols: list[int] = []
    at = 2
    td: int | None = data[1] & 0xF0
    while td is not None:
        found: dict[str, int] = {}
        for bit, name in ((0x10, "ta"), (0x20, "tb"), (0x40, "tc"), (0x80, "td")):
            if td & bit:
                if at == len(data):
                    raise CardError("the card's answer to reset breaks off", advice=_INSERT)
                found[name], at = data[at], at + 1
        groups.append(Group(**found))
        td = found.get("td")
        if td is not None and td & 0x0F not in protocols and td & 0x0F != 15:
            protocols.append(td & 0x0F)
    protocols = protocols or [0]
    end = at + (data[1] & 0x0F)
    checked = any(group.td is not None and group.td & 0x0F for group in groups)
    if len(data) != end + checked:
        raise CardError(
            f"the card's answer to reset has {len(data)} bytes and should have {end + checked}", advice=_INSERT
        )
    if checked and reduce(xor, data[1:]):
        raise CardError("the card's answer to reset fails its check", advice=_INSERT)
    return Atr(data, tuple(groups), tuple(protocols), data[at:end])


def pps(protocol: int, speed: int | None = None) -> bytes:
    """A request for a protocol, and for Fi and Di as TA1 has them (section 9.2): ``FF 11 13 FD``."""
    body = bytes((PPSS, protocol)) if speed is None else bytes((PPSS, 0x10 | protocol, speed))
    return body + bytes((reduce(xor, body),))


def check_pps(request: bytes, answer: bytes) -> None:
    """Raise CardError unless the card took the request whole, by sending it back."""
    if answer != request:
        raise CardError("the card does not take the protocol that was asked for", advice="Leave it to the card.")


def parameters(atr: Atr, protocol: int) -> bytes:
    """What a CCID reader has to know to speak to the card: abProtocolDataStructure (USB CCID 1.1, section 6.1.7).

    Fi and Di are TA1's only where the card is in specific mode: nobody has agreed on them otherwise.
    """
    speed = atr.speed if atr.specific is not None and not atr.keeps_default_speed else DEFAULT_SPEED
    if protocol == 0:
        return bytes((speed, 0x02 if atr.inverse else 0x00, atr.guard, atr.wi, 0))
    kind = 0x10 | (0x02 if atr.inverse else 0) | (0x01 if atr.crc else 0)
    return bytes((speed, kind, atr.guard, atr.bwi_cwi, 0, atr.ifsc, 0))
