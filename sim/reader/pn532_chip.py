"""What a PN532 does when it is told to, apart from its line: cards in its field, commands and their answers.

Not modelled: FeliCa, Jewel and MIFARE commands, being a card itself, registers beyond remembering what was written,
and radio. A card answers a call once while the field is on, as a real one does that was left in the middle.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Final, Protocol

from hw import pn532_frames as frames
from hw.errors import CardGone
from hw.pn532_targets import FORMS, ISO_14443_4, MAX_TARGETS, TYPE_A, TYPE_B
from sim.reader.iso_dep import BlockCard

FIRMWARE: Final = bytes.fromhex("32010607")
ROOM: Final = frames.PAYLOAD_LIMIT - 3
"""Bytes of a card's answer in one of ours."""
FIFO: Final = 0x6339
"""A register in which SENS_REQ is left when no card answered it."""
AUTO_RATS: Final = 0x10


class TappedCard(Protocol):
    """A card that may be tapped. ``ats`` with or without its length byte; empty for one that speaks no APDUs."""

    @property
    def uid(self) -> bytes:
        """4, 7 or 10 bytes; for type B its PUPI, 4 bytes."""

    @property
    def ats(self) -> bytes:
        """ISO/IEC 14443-4, section 5.2."""

    def transmit(self, command: bytes, /) -> bytes | Awaitable[bytes]:
        """The response APDU to a command APDU."""


class _InField:
    """A card in the field, type A or B, and what it is doing there."""

    def __init__(self, card: TappedCard, kind: int) -> None:
        self.card, self.kind = card, kind
        self.called = False
        ats = card.ats
        self.ats = ats if not ats or ats[0] == len(ats) else bytes((len(ats) + 1,)) + ats
        self.atqb = b"\x50" + card.uid[:4].ljust(4, b"\0") + bytes.fromhex("00000000 008171")
        self.blocks = BlockCard(self.transmit, *((self.ats,) if kind == TYPE_A else (b"", self.atqb)))
        self.rest = b""

    async def transmit(self, command: bytes) -> bytes:
        response = self.card.transmit(command)
        return await response if isawaitable(response) else response


class Chip:
    """The chip, as after power came."""

    def __init__(self) -> None:
        self.cards: list[_InField] = []
        self._tearing = False
        self._registers: dict[int, int] = {}
        self.on_power()

    def on_power(self) -> None:
        """Power comes: whatever was told before is forgotten."""
        self.asleep, self.baud, self._parameters = True, 115200, 0x14
        self.next_baud: int | None = None
        self._targets: dict[int, _InField] = {}
        self._command = b""
        self._field_off()

    def tap(self, card: TappedCard, kind: int = TYPE_A) -> None:
        """Hold a card into the field."""
        self.cards.append(_InField(card, kind))

    def tear(self) -> None:
        """Take all cards away in the middle of the next APDU."""
        self._tearing = True

    async def obey(self, code: int, data: bytes) -> bytes | None:
        """What is answered to a command; None where it is refused."""
        command = _COMMANDS.get(code)
        return None if command is None else await command(self, data)

    async def _diagnose(self, data: bytes) -> bytes | None:
        if data[:1] == b"\x00":
            return data
        if data[:1] == b"\x06":
            return b"\x00" if self._there(self._targets.get(1)) else b"\x01"
        return b"\x00" if data else None

    async def _firmware(self, _: bytes) -> bytes:
        return FIRMWARE

    async def _status(self, _: bytes) -> bytes:
        targets = b"".join(
            bytes((number, 0, 0, 0x10 if one.kind == TYPE_A else 0x20)) for number, one in self._targets.items()
        )
        return bytes((0, self.field, len(self._targets))) + targets + b"\x00"

    async def _read_registers(self, data: bytes) -> bytes:
        places = (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 1, 2))
        return bytes(0x26 if place == FIFO else self._registers.get(place, 0) for place in places)

    async def _write_registers(self, data: bytes) -> bytes:
        for at in range(0, len(data) - 2, 3):
            self._registers[int.from_bytes(data[at : at + 2], "big")] = data[at + 2]
        return b""

    async def _set_baud(self, data: bytes) -> bytes | None:
        speeds = {code: baud for baud, code in frames.BAUD_CODES.items()}
        if len(data) != 1 or data[0] not in speeds:
            return None
        self.next_baud = speeds[data[0]]
        return b""

    async def _set_parameters(self, data: bytes) -> bytes | None:
        if len(data) != 1:
            return None
        self._parameters = data[0]
        return b""

    async def _sam(self, data: bytes) -> bytes | None:
        return b"" if data[:1] in (b"\x01", b"\x02", b"\x03", b"\x04") else None

    async def _power_down(self, data: bytes) -> bytes | None:
        if not data:
            return None
        self.asleep = True
        self._field_off()
        return b"\x00"

    async def _rf(self, data: bytes) -> bytes | None:
        if not data:
            return None
        if data[0] == 0x01 and len(data) == 2:
            self.field = bool(data[1] & 1)
            if not self.field:
                self._field_off()
        return b""

    def _field_off(self) -> None:
        self.field = False
        self._targets.clear()
        for one in self.cards:
            one.called = False

    async def _list(self, data: bytes) -> bytes | None:
        if len(data) < 2:
            return None
        limit, kind = min(data[0], MAX_TARGETS), data[1]
        self.field = True
        found = [one for one in self.cards if one.kind == kind and not one.called][:limit]
        self._targets = dict(enumerate(found, start=1))
        for one in found:
            one.called = True
        if kind not in FORMS:
            return b"\x00"
        if kind == TYPE_A and not self._parameters & AUTO_RATS:  # the host will ask for the ATS by itself
            listed = (
                bytes((number, *_sens(one), _sel(one), len(one.card.uid))) + one.card.uid
                for number, one in self._targets.items()
            )
            return bytes((len(found),)) + b"".join(listed)
        targets = [_target(number, one) for number, one in self._targets.items()]
        answer: bytes = FORMS[kind].build({"count": len(targets), "targets": targets})
        return answer

    def _there(self, one: _InField | None) -> bool:
        return one is not None and one in self.cards

    def _torn(self) -> None:
        if self._tearing:
            self._tearing = False
            self.cards.clear()

    async def _exchange(self, data: bytes) -> bytes | None:
        if not data:
            return None
        one = self._targets.get(data[0] & ~frames.MORE)
        if one is None:
            return b"\x27"
        if data[0] & frames.MORE:
            self._command += data[1:]
            return b"\x00" if self._there(one) else b"\x01"
        command, self._command = self._command + data[1:], b""
        try:
            if command:
                one.rest = await one.transmit(command)
        except CardGone:
            return b"\x01"
        self._torn()
        if not self._there(one):
            return b"\x01"
        piece, one.rest = one.rest[:ROOM], one.rest[ROOM:]
        return bytes((frames.MORE if one.rest else 0,)) + piece

    async def _through(self, data: bytes) -> bytes:
        """Raw blocks: to the card that was called, or to one of type B that is called by this."""
        for one in self.cards:
            if one.called:
                try:
                    answer = await one.blocks.answer(data)
                except CardGone:
                    break
                self._torn()
                if answer and self._there(one):
                    return b"\x00" + answer
        return b"\x01"

    async def _select(self, data: bytes) -> bytes | None:
        if len(data) != 1:
            return None
        return b"\x00" if self._targets or data == b"\x00" else b"\x27"

    async def _release(self, data: bytes) -> bytes | None:
        if len(data) != 1:
            return None
        self._targets.clear()
        return b"\x00"

    async def _nobody(self, _: bytes) -> bytes:
        return b"\x01"

    async def _read_pins(self, _: bytes) -> bytes:
        return b"\x00\x00\x00"

    async def _ignored(self, _: bytes) -> bytes:
        return b""


_COMMANDS: Final[Mapping[int, Callable[[Chip, bytes], Awaitable[bytes | None]]]] = {
    frames.DIAGNOSE: Chip._diagnose,
    frames.GET_FIRMWARE_VERSION: Chip._firmware,
    frames.GET_GENERAL_STATUS: Chip._status,
    frames.READ_REGISTER: Chip._read_registers,
    frames.WRITE_REGISTER: Chip._write_registers,
    0x0C: Chip._read_pins,
    0x0E: Chip._ignored,
    frames.SET_SERIAL_BAUD_RATE: Chip._set_baud,
    frames.SET_PARAMETERS: Chip._set_parameters,
    frames.SAM_CONFIGURATION: Chip._sam,
    frames.POWER_DOWN: Chip._power_down,
    frames.RF_CONFIGURATION: Chip._rf,
    frames.IN_DATA_EXCHANGE: Chip._exchange,
    frames.IN_COMMUNICATE_THRU: Chip._through,
    frames.IN_DESELECT: Chip._select,
    frames.IN_LIST_PASSIVE_TARGET: Chip._list,
    0x46: Chip._nobody,  # InJumpForPSL, InATR, InJumpForDEP: no other host is in the field
    0x50: Chip._nobody,
    0x56: Chip._nobody,
    frames.IN_RELEASE: Chip._release,
    frames.IN_SELECT: Chip._select,
}
"""What is obeyed; None for parameters that the chip refuses. Any other command is a syntax error."""


def _sens(one: _InField) -> bytes:
    return b"\x00\x04" if len(one.card.uid) == 4 else b"\x00\x44"


def _sel(one: _InField) -> int:
    return ISO_14443_4 if one.ats else 0x08


def _target(number: int, one: _InField) -> dict[str, object]:
    if one.kind == TYPE_B:
        return {"number": number, "uid": one.atqb[1:5], "rest": one.atqb[5:], "attrib": b"\x00"}
    ats = one.ats[1:] if one.ats else None
    return {"number": number, "sens_res": _sens(one), "sel_res": _sel(one), "uid": one.card.uid, "ats": ats}
