"""A chip card that answers commands, as its file says (``sim.card.files``).

It knows SELECT by name, READ RECORD, GET PROCESSING OPTIONS and GET DATA (EMV 4.3 Book 1, section 11, and Book 3,
section 6.5), in the order that EMV wants them, and refuses the rest with the status words of ISO/IEC 7816-4. Not
modelled: GENERATE AC and all that needs keys, secure messaging, logical channels, and time. Le may be left out.
"""

from __future__ import annotations

from typing import Final

from hw import tlv
from hw.apdu import Command
from hw.errors import CardError, ProtocolError
from hw.tlv import Tlv
from sim.card.files import Application, CardFile, CardFileError, card_file

PSE: Final = b"1PAY.SYS.DDF01"
PPSE: Final = b"2PAY.SYS.DDF01"
DIRECTORY_SFI: Final = 1
BY_NAME: Final = 0x04
FIRST, NEXT = 0x00, 0x02
ALL: Final = 256

OK = 0x9000
WRONG_LENGTH = 0x6700
NOT_SATISFIED = 0x6985
WRONG_DATA = 0x6A80
NOT_FOUND = 0x6A82
NO_RECORD = 0x6A83
WRONG_PARAMETERS = 0x6A86
NO_DATA = 0x6A88
UNKNOWN_INSTRUCTION = 0x6D00
UNKNOWN_CLASS = 0x6E00


class Refused(Exception):  # never leaves this module
    """A status word in place of data."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


class VirtualCard:
    """A card, inserted or tapped. ``atr``, ``ats`` and ``uid`` are bytes; one that was tapped has no directory."""

    def __init__(self, file: CardFile, *, contactless: bool) -> None:
        self.name, self.masked_pan = file.name, file.masked_pan
        self.atr, self.ats, self.uid = (bytes.fromhex(text) for text in (file.atr, file.ats, file.uid))
        self._applications = file.contactless if contactless else file.contact
        self._scripted = {bytes.fromhex(begin): bytes.fromhex(said) for begin, said in file.answers.items()}
        self._files = {}
        if self._applications and contactless:
            self._files[PPSE] = self._listed()
        elif self._applications and file.directory:
            self._files[PSE] = self._directory()
        self._records: dict[tuple[int, int], bytes] = {}
        self._selected: Application | None = None
        self._started = False
        self._last = b""  # the name that was asked for, and how far the search for it has come
        self._searched = 0

    def transmit(self, apdu: bytes) -> bytes:
        """The answer to a command, with its status words; to bytes that are none too."""
        for begin, said in self._scripted.items():
            if apdu.startswith(begin):
                return said
        try:
            command = Command.decode(apdu)
            data = self._obey(command)
        except ProtocolError:
            return _said(WRONG_LENGTH)
        except Refused as refused:
            return _said(refused.sw)
        if command.le not in (None, len(data)) and (command.le or 0) < ALL:
            return _said(0x6C00 | len(data) % ALL)
        return data + _said(OK)

    def _obey(self, command: Command) -> bytes:
        match command.cla, command.ins:
            case 0x00, 0xA4:
                return self._select(command)
            case 0x00, 0xB2:
                return self._record(command)
            case 0x80, 0xA8:
                return self._start(command)
            case 0x80, 0xCA:
                return self._counter(command)
            case ((0x00 | 0x80), _):
                raise Refused(UNKNOWN_INSTRUCTION)
        raise Refused(UNKNOWN_CLASS)

    def _select(self, command: Command) -> bytes:
        if command.p1 != BY_NAME or command.p2 not in (FIRST, NEXT):
            raise Refused(WRONG_PARAMETERS)
        name = command.data
        if not name:
            raise Refused(WRONG_LENGTH)
        if name in self._files:
            self._selected, self._started = None, False
            fci, self._records = self._files[name]
            return fci
        begin = self._searched if command.p2 == NEXT and name == self._last else 0
        for place in range(begin, len(self._applications)):
            one = self._applications[place]
            if one.name.startswith(name):
                self._last, self._searched = name, place + 1
                self._selected, self._started, self._records = one, False, {}
                return one.fci
        raise Refused(NOT_FOUND)

    def _start(self, command: Command) -> bytes:
        if command.p1 or command.p2:
            raise Refused(WRONG_PARAMETERS)
        if self._selected is None or self._started:
            raise Refused(NOT_SATISFIED)
        try:
            (brought,) = tlv.parse(command.data)
        except (CardError, ValueError):
            raise Refused(WRONG_DATA) from None
        if brought.tag != 0x83 or len(brought.value) != self._selected.wanted:
            raise Refused(WRONG_DATA)
        self._started, self._records = True, self._selected.numbered
        return self._selected.started

    def _record(self, command: Command) -> bytes:
        sfi = command.p2 >> 3
        if command.p2 & 0x07 != 0x04 or not sfi or not command.p1:
            raise Refused(WRONG_PARAMETERS)
        if self._selected is not None and not self._started:
            raise Refused(NOT_SATISFIED)
        if sfi not in (known for known, _ in self._records):
            raise Refused(NOT_FOUND)
        if (sfi, command.p1) not in self._records:
            raise Refused(NO_RECORD)
        return self._records[sfi, command.p1]

    def _counter(self, command: Command) -> bytes:
        if self._selected is None:
            raise Refused(NOT_SATISFIED)
        tag = f"{command.p1:02X}{command.p2:02X}"
        if tag not in self._selected.counters:
            raise Refused(NO_DATA)
        return Tlv(int(tag, 16), bytes.fromhex(self._selected.counters[tag])).encode()

    def _listed(self) -> tuple[bytes, dict[tuple[int, int], bytes]]:
        """The answer to SELECT PPSE (EMV Contactless Book B, table 3-2), and no records."""
        entries = tlv.template(0xBF0C, *(one.entry for one in self._applications))
        return tlv.template(0x6F, Tlv(0x84, PPSE), tlv.template(0xA5, entries)).encode(), {}

    def _directory(self) -> tuple[bytes, dict[tuple[int, int], bytes]]:
        """The answer to SELECT PSE (EMV 4.3 Book 1, table 43), and the directory's records."""
        inside = tlv.template(0xA5, Tlv(0x88, bytes((DIRECTORY_SFI,))), Tlv(0x5F2D, b"en"))
        records = {
            (DIRECTORY_SFI, number): tlv.template(0x70, one.entry).encode()
            for number, one in enumerate(self._applications, start=1)
        }
        return tlv.template(0x6F, Tlv(0x84, PSE), inside).encode(), records

    def __repr__(self) -> str:
        return f"VirtualCard({self.name}, {self.masked_pan})"


def inserted(card: CardFile | str) -> VirtualCard:
    """A card for a slot; raises CardFileError, for one without contacts too."""
    file = card_file(card) if isinstance(card, str) else card
    if not file.atr:
        raise CardFileError(f"the card {file.name!r} has no contacts: it has no ATR")
    return VirtualCard(file, contactless=False)


def tapped(card: CardFile | str) -> VirtualCard:
    """A card for a contactless field; raises CardFileError, for one without an antenna too."""
    file = card_file(card) if isinstance(card, str) else card
    if not (file.ats and file.uid):
        raise CardFileError(f"the card {file.name!r} has no antenna: it has no ATS and UID")
    return VirtualCard(file, contactless=True)


def _said(sw: int) -> bytes:
    return sw.to_bytes(2, "big")
