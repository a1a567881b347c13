"""Which application of a card pays: what the card offers, what the terminal takes, and in which order.

Contact: EMV 4.3 Book 1, section 12. Contactless: EMV Contactless Book B, section 3.3. Nothing here does I/O: each
function is a generator that yields a command and is sent the response.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from hw import tlv
from hw.apdu import Command, Response
from hw.errors import CardError
from terminal.config import AID_BYTES
from terminal.emv.tags import Tag

PSE: Final = b"1PAY.SYS.DDF01"
PPSE: Final = b"2PAY.SYS.DDF01"

SELECT: Final = 0xA4
READ_RECORD: Final = 0xB2
BY_NAME: Final = 0x04
NEXT: Final = 0x02

BLOCKED_CARD: Final = 0x6A81
BLOCKED: Final = 0x6283
NOT_FOUND: Final = 0x6A82

MAX_CANDIDATES: Final = 16
"""Applications that are considered; a card with more has something else in mind."""
MAX_DIRECTORY_RECORDS: Final = 16
MAX_DIRECTORY_SFI: Final = 10
NO_PRIORITY: Final = 16
"""Behind every priority that a card can give, which are 1 to 15."""

OTHER_CARD: Final = "Use another card."

T = TypeVar("T")
Asking = Generator[Command, Response, T]
"""Yields commands, is sent their responses, and returns what came of it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An application of the card that the terminal takes. The lowest ``priority`` goes first, from 1.

    ``confirm``: the cardholder is to be asked before it is selected.
    """

    aid: bytes
    label: str = ""
    priority: int = NO_PRIORITY
    confirm: bool = False


def select(name: bytes, which: int = 0) -> Command:
    """SELECT by name, the first such file or, with `NEXT`, the next (EMV 4.3 Book 1, section 11.3)."""
    return Command(0x00, SELECT, BY_NAME, which, name, le=256)


def read_record(sfi: int, record: int) -> Command:
    """READ RECORD (EMV 4.3 Book 3, section 6.5.11)."""
    return Command(0x00, READ_RECORD, record, sfi << 3 | 0x04, le=256)


def contactless(aids: Sequence[bytes]) -> Asking[list[Candidate]]:
    """The applications that a contactless card or phone offers and that are taken, in order."""
    response = yield select(PPSE)
    _refuse_blocked(response)
    if not response.ok:
        raise CardError(f"this is no payment card ({response.sw:04X})", advice="Use a contactless payment card.")
    entries = [one for one in tlv.walk(tlv.parse(response.data)) if one.tag == Tag.DIRECTORY_ENTRY]
    return _in_order(entries, aids)


def contact(aids: Sequence[bytes]) -> Asking[list[Candidate]]:
    """The applications on an inserted card that are taken, in order: from its directory, else one by one.

    Where the cardholder would have to be asked, an application is left out: there is no screen to ask on.
    """
    found = yield from _directory(aids)
    if not found:
        found = yield from _one_by_one(aids)
    unasked = [one for one in found if not one.confirm]
    if found and not unasked:
        raise CardError("the card wants its holder to choose, which cannot be done here", advice=OTHER_CARD)
    return unasked


def _directory(aids: Sequence[bytes]) -> Asking[list[Candidate]]:
    response = yield select(PSE)
    _refuse_blocked(response)
    if not response.ok:
        return []
    try:
        sfi = int.from_bytes(tlv.find(tlv.parse(response.data), Tag.DIRECTORY_SFI) or b"")
        entries = yield from _directory_records(sfi)
        return _in_order(entries, aids)
    except CardError:  # a directory that makes no sense is none: each application is asked for
        return []


def _directory_records(sfi: int) -> Asking[list[tlv.Tlv]]:
    entries: list[tlv.Tlv] = []
    if not 1 <= sfi <= MAX_DIRECTORY_SFI:
        return entries
    for record in range(1, MAX_DIRECTORY_RECORDS + 1):
        response = yield read_record(sfi, record)
        if not response.ok:
            break
        entries += (one for one in tlv.walk(tlv.parse(response.data)) if one.tag == Tag.DIRECTORY_ENTRY)
    return entries


def _one_by_one(aids: Sequence[bytes]) -> Asking[list[Candidate]]:
    found: list[Candidate] = []
    blocked = False
    for aid in aids:
        which = 0
        while len(found) < MAX_CANDIDATES:
            response = yield select(aid, which)
            _refuse_blocked(response)
            blocked = blocked or response.sw == BLOCKED
            named = candidate(tlv.parse(response.data)) if response.ok else None
            if named is None or not named.aid.startswith(aid) or named.aid in (one.aid for one in found):
                break
            found.append(named)
            if named.aid == aid:  # a whole name, which there is once
                break
            which = NEXT
    if blocked and not found:
        raise CardError("the card's application is blocked", advice=OTHER_CARD)
    return sorted(found, key=lambda one: one.priority)


def candidate(objects: Iterable[tlv.Tlv]) -> Candidate | None:
    """The application that these objects tell of; None where they name none. Raises CardError."""
    objects = tuple(objects)
    aid = tlv.find(objects, Tag.AID) or tlv.find(objects, Tag.DF_NAME) or b""
    if len(aid) not in AID_BYTES:
        return None
    label = tlv.find(objects, Tag.LABEL) or b""
    indicator = int.from_bytes((tlv.find(objects, Tag.PRIORITY) or b"\0")[:1])
    shown = "".join(chr(code) for code in label[:16] if 0x20 <= code < 0x7F).strip()
    return Candidate(aid, shown, indicator & 0x0F or NO_PRIORITY, bool(indicator & 0x80))


def _in_order(entries: Sequence[tlv.Tlv], aids: Sequence[bytes]) -> list[Candidate]:
    """Those that are taken. The card's order holds between equals, and what is told twice counts once."""
    found: dict[bytes, Candidate] = {}
    for entry in entries[: 4 * MAX_CANDIDATES]:
        one = candidate(entry.children())
        if one is not None and any(one.aid.startswith(aid) for aid in aids):
            found.setdefault(one.aid, one)
    return sorted(found.values(), key=lambda one: one.priority)[:MAX_CANDIDATES]


def _refuse_blocked(response: Response) -> None:
    if response.sw == BLOCKED_CARD:
        raise CardError("the card is blocked", advice=OTHER_CARD)
