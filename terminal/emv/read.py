"""A card is read: its application chosen and started, its records fetched, its track 2 equivalent data found.

    asking = read(EntryMode.CONTACTLESS, terminal_data(...))
    command = next(asking)
    while True:
        command = asking.send(await card.transmit(command))   # StopIteration.value is the CardData

No cryptogram is asked for, and nothing that the card says is authenticated: what is read so is card data in the
clear, good for a simulator. Nothing here does I/O (EMV 4.3 Book 3, sections 10.1 and 10.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from hw import tlv
from hw.apdu import Command
from hw.card import EntryMode
from hw.errors import CardError
from hw.track2 import Track2
from terminal.emv import select
from terminal.emv.select import OTHER_CARD, Asking, Candidate
from terminal.emv.tags import Tag
from terminal.emv.terminal_data import TerminalData

GET_PROCESSING_OPTIONS: Final = 0xA8
NOT_SATISFIED: Final = 0x6985
"""The application does not want this transaction, and another one may."""
SEE_PHONE: Final = 0x6986
"""EMV Contactless Book C-3: the owner has to confirm on the device."""

MAX_LOCATORS: Final = 16
MAX_RECORDS: Final = 48
"""Records that are read; payment cards have about ten."""
MAX_SFI: Final = 30
MAX_EMV_SFI: Final = 10
"""Files beyond are the card's own, and what is in their records need not be data objects."""
MAX_COMMAND_DATA: Final = 252
"""Bytes that a card may ask for in its PDOL."""

Interface = Literal[EntryMode.CHIP, EntryMode.CONTACTLESS]
_CHOICES: Final[Mapping[Interface, Callable[[tuple[bytes, ...]], Asking[list[Candidate]]]]] = {
    EntryMode.CHIP: select.contact,
    EntryMode.CONTACTLESS: select.contactless,
}

_KEPT: Final = frozenset((Tag.TRACK_2, Tag.PAN, Tag.EXPIRATION_DATE, Tag.SERVICE_CODE, Tag.PAN_SEQUENCE))


@dataclass(frozen=True, repr=False, slots=True, kw_only=True)
class CardData:
    """What was read of a chip. ``sequence`` is the PAN sequence number, two digits, or empty."""

    entry_mode: Interface
    track2: Track2
    sequence: str
    aid: bytes
    label: str

    @property
    def pan(self) -> str:
        """The card number."""
        return self.track2.pan

    @property
    def expiry(self) -> str:
        """YYMM."""
        return self.track2.expiry

    @property
    def masked_pan(self) -> str:
        """First six and last four digits."""
        return self.track2.masked_pan

    def track2_equivalent(self) -> bytes:
        """Track 2 as EMV tag 57 holds it."""
        return self.track2.encode()

    def __repr__(self) -> str:
        return f"CardData({self.label}, {self.masked_pan})"


def read(interface: Interface, terminal: TerminalData) -> Asking[CardData]:
    """Read a card; raises CardError where it is no payment card, blocked, not taken here, or talks nonsense."""
    candidates = yield from _CHOICES[interface](terminal.aids)
    if not candidates:
        raise CardError("the card has no application that is taken here", advice=OTHER_CARD)
    refusal = 0
    for one in candidates:
        selected = yield select.select(one.aid)
        refusal = selected.sw
        if not selected.ok:
            continue
        fci = tlv.parse(selected.data)
        options = yield processing_options(fci, terminal)
        refusal = options.sw
        if options.sw == NOT_SATISFIED:
            continue
        if options.sw == SEE_PHONE:
            raise CardError("the phone asks its owner first", advice="Look at the phone, and hold it here again.")
        if not options.ok:
            break
        found = yield from _data(tlv.parse(options.data))
        label = one.label or (select.candidate(fci) or one).label
        sequence = found.get(Tag.PAN_SEQUENCE, b"").hex()
        return CardData(
            entry_mode=interface,
            track2=track2_of(found),
            sequence=sequence if len(sequence) == 2 and sequence.isdigit() else "",
            aid=one.aid,
            label=label,
        )
    if refusal == select.BLOCKED:
        raise CardError("the card's application is blocked", advice=OTHER_CARD)
    raise CardError(f"the card's application refuses to start ({refusal:04X})", advice=OTHER_CARD)


def processing_options(fci: tuple[tlv.Tlv, ...], terminal: TerminalData) -> Command:
    """GET PROCESSING OPTIONS, with what the application asks for in its PDOL; raises CardError."""
    asked = tlv.parse_dol(tlv.find(fci, Tag.PDOL) or b"")
    if sum(size for _, size in asked) > MAX_COMMAND_DATA:
        raise CardError("the card asks for more than fits a command", advice=OTHER_CARD)
    data = tlv.Tlv(Tag.COMMAND_TEMPLATE, terminal.listed(asked)).encode()
    return Command(0x80, GET_PROCESSING_OPTIONS, data=data, le=256)


def _data(options: tuple[tlv.Tlv, ...]) -> Asking[dict[int, bytes]]:
    """What of the card's data is kept: from the options themselves, and from the records that they name."""
    found: dict[int, bytes] = {}
    _keep(found, options)
    for sfi, record in file_locator(options):
        response = yield select.read_record(sfi, record)
        if not response.ok:
            raise CardError(f"the card does not give its record ({response.sw:04X})", advice=OTHER_CARD)
        if sfi <= MAX_EMV_SFI:
            _keep(found, tlv.parse(response.data))
    return found


def file_locator(options: tuple[tlv.Tlv, ...]) -> list[tuple[int, int]]:
    """SFI and number of each record to be read; raises CardError (EMV 4.3 Book 3, sections 6.5.8.4 and 10.2)."""
    first = options[0] if options else tlv.Tlv(0, b"")
    if first.tag == Tag.OPTIONS_1:
        locator = first.value[2:]
    elif first.tag == Tag.OPTIONS_2:
        locator = tlv.find(first.children(), Tag.FILE_LOCATOR) or b""
    else:
        raise CardError("the card says nothing of its records", advice=OTHER_CARD)
    if len(locator) % 4 or len(locator) > 4 * MAX_LOCATORS:
        raise CardError("the card's list of records makes no sense", advice=OTHER_CARD)
    records = []
    for at in range(0, len(locator), 4):
        sfi, begin, end = locator[at] >> 3, locator[at + 1], locator[at + 2]
        if not (1 <= sfi <= MAX_SFI and 1 <= begin <= end):
            raise CardError("the card's list of records makes no sense", advice=OTHER_CARD)
        records += [(sfi, record) for record in range(begin, end + 1)]
    if len(records) > MAX_RECORDS:
        raise CardError("the card has more records than a payment card", advice=OTHER_CARD)
    return records


def _keep(found: dict[int, bytes], objects: tuple[tlv.Tlv, ...]) -> None:
    for one in tlv.walk(objects):
        if one.tag in _KEPT and found.setdefault(one.tag, one.value) != one.value:
            raise CardError(f"the card gives its {Tag(one.tag).title} twice, and differently", advice=OTHER_CARD)


def track2_of(found: Mapping[int, bytes]) -> Track2:
    """The track 2 equivalent data, as the card has them or made of PAN, date and service code; raises CardError."""
    pan = found.get(Tag.PAN, b"").hex().rstrip("f")
    if Tag.TRACK_2 in found:
        track2 = Track2.decode(found[Tag.TRACK_2])
        if pan not in ("", track2.pan):
            raise CardError("the card gives two card numbers", advice=OTHER_CARD)
        return track2
    if not pan or Tag.EXPIRATION_DATE not in found:
        raise CardError("the card tells no card number and expiry date", advice=OTHER_CARD)
    return Track2(pan, found[Tag.EXPIRATION_DATE].hex()[:4], found.get(Tag.SERVICE_CODE, b"").hex()[1:4])
