"""What is on a chip card, as a TOML file says it: ``sim/card/cards/*.toml``, or one of your own.

    about = "..."                          what the card is for
    atr = "3B 60 00 00"                    ISO/IEC 7816-3; its first bytes say T=0 or T=1
    ats = "78 80 70 00"                    ISO/IEC 14443-4, without the length
    uid = "04 5A 01 02 03 04 80"           4, 7 or 10 bytes
    directory = true                       whether the inserted card has a directory (PSE)

    [[contact]]                            an application of the inserted card; [[contactless]]: of the tapped one
    aid = "A0000000031010"
    label = "VISA CREDIT"
    priority = 1
    pdol = "9F1A02 5F2A02"                 what it asks for, tags and lengths
    options = { 82 = "1800" }              what it answers to GET PROCESSING OPTIONS, besides its list of records
    format = 2                             of that answer: 2 (template 77) or 1 (80)
    counters = { 9F36 = "0001" }           what GET DATA gives

    [contact.records.1-1]                  SFI 1, record 1: tag = value, in order
    57 = "4761739001010119D2812201"

    [answers]                              beginnings of commands, to which the card says just this
    00A404 = "6A81"

Numbers are published test PANs; no such account exists. Not modelled: keys, certificates, cryptograms, PINs, and
everything else that GENERATE AC begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from hw import tlv
from hw.errors import CardError
from hw.pan import mask_pan
from hw.tlv import Tlv
from hw.track2 import Track2
from sim.reader.stripes import Stripe, stripe

LARGEST_FILE: Final = 100_000
"""Bytes of a card's file."""
LARGEST_ANSWER: Final = 256
"""Bytes of data in a short response."""

Hex = Annotated[str, Meta(pattern=r"^(?:[0-9A-Fa-f]{2} ?)*$", max_length=1000)]
Objects = Mapping[Annotated[str, Meta(pattern=r"^(?:[0-9A-F]{2})+$", max_length=64)], Hex]


class CardFileError(ValueError):
    """Example: ``there is no card named 'visa-credid' (there are: amex, ...)``."""


class Application(Struct, frozen=True, forbid_unknown_fields=True):
    """One application, as in the module's docstring."""

    aid: Hex
    label: str
    priority: Annotated[int, Meta(ge=0, le=255)] = 1
    pdol: Hex = ""
    options: Objects = {}
    format: Literal[1, 2] = 2
    counters: Objects = {}
    records: Mapping[Annotated[str, Meta(pattern=r"^[0-9]{1,2}-[0-9]{1,3}$")], Objects] = {}

    @property
    def name(self) -> bytes:
        """Its identifier."""
        return bytes.fromhex(self.aid)

    @property
    def entry(self) -> Tlv:
        """As a directory lists it."""
        label = Tlv(0x50, self.label.encode("ascii"))
        return tlv.template(0x61, Tlv(0x4F, self.name), label, Tlv(0x87, bytes((self.priority,))))

    @property
    def fci(self) -> bytes:
        """What SELECT answers (EMV 4.3 Book 1, table 45)."""
        inside = [Tlv(0x50, self.label.encode("ascii")), Tlv(0x87, bytes((self.priority,)))]
        if self.pdol:
            inside.append(Tlv(0x9F38, bytes.fromhex(self.pdol)))
        return tlv.template(0x6F, Tlv(0x84, self.name), tlv.template(0xA5, *inside)).encode()

    @property
    def wanted(self) -> int:
        """Bytes that GET PROCESSING OPTIONS has to bring."""
        return sum(size for _, size in tlv.parse_dol(bytes.fromhex(self.pdol)))

    @property
    def locator(self) -> bytes:
        """The list of records (AFL): runs of one file's records, of which none is authenticated."""
        runs: list[list[int]] = []
        for sfi, number in sorted(self.numbered):
            if runs and runs[-1][0] == sfi and runs[-1][2] == number - 1:
                runs[-1][2] = number
            else:
                runs.append([sfi, number, number])
        return b"".join(bytes((sfi << 3, first, last, 0)) for sfi, first, last in runs)

    @property
    def started(self) -> bytes:
        """What GET PROCESSING OPTIONS answers."""
        objects = {one.tag: one for one in _objects(self.options)}
        if self.format == 1:
            return Tlv(0x80, objects[0x82].value + self.locator).encode()
        more = {0x94: Tlv(0x94, self.locator)} if self.records else {}
        return tlv.template(0x77, *(more | objects).values()).encode()

    @property
    def numbered(self) -> dict[tuple[int, int], bytes]:
        """The records by SFI and number, each with its template."""
        found = {}
        for place, objects in self.records.items():
            sfi, _, number = place.partition("-")
            found[int(sfi), int(number)] = tlv.template(0x70, *_objects(objects)).encode()
        return found

    @property
    def objects(self) -> dict[int, bytes]:
        """Everything that it tells once it is started."""
        told = [*tlv.parse(self.started), *(one for record in self.numbered.values() for one in tlv.parse(record))]
        return {one.tag: one.value for one in tlv.walk(told)}


class CardFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A card; see the module."""

    about: str
    atr: Hex = ""
    ats: Hex = ""
    uid: Hex = ""
    directory: bool = True
    contact: tuple[Application, ...] = ()
    contactless: tuple[Application, ...] = ()
    answers: Objects = {}
    name: str = ""

    @property
    def track2(self) -> Track2 | None:
        """What its foremost application says in tag 57, or in 5A and 5F24; None where none says what can be one."""
        for one in sorted((*self.contact, *self.contactless), key=lambda one: one.priority):
            found = one.objects
            with suppress(CardError):  # a card may be there to be refused
                if 0x57 in found:
                    return Track2.decode(found[0x57])
                if 0x5A in found:
                    date, service_code = found.get(0x5F24, b"").hex()[:4], found.get(0x5F30, b"").hex()[1:]
                    return Track2(found[0x5A].hex().rstrip("f"), date, service_code)
        return None

    @property
    def masked_pan(self) -> str:
        """First six and last four digits; empty for a card that has none."""
        return mask_pan(self.track2.pan) if self.track2 else ""


def names() -> tuple[str, ...]:
    """The cards that come with the package, by what they are for."""
    found = (one.name for one in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


@cache
def card_file(name: str) -> CardFile:
    """The card of this name, or in the file at this path, which ends in .toml. Raises CardFileError."""
    if name.endswith(".toml"):
        return _parsed(Path(name).stem, _read(Path(name)))
    if name not in names():
        raise CardFileError(f"there is no card named {name!r} (there are: {', '.join(names())})")
    return _parsed(name, _folder().joinpath(f"{name}.toml").read_bytes())


def stripe_of(card: CardFile) -> Stripe:
    """The stripe on the back of a chip card, with the number of its chip; raises CardFileError without one."""
    track2 = card.track2
    if track2 is None:
        raise CardFileError(f"the card {card.name!r} has no number, and so no stripe")
    holder = f"TEST CARD/{re.sub('[^A-Z]', ' ', card.name.upper())}"[:26]
    return stripe(card.name, track2.pan, track2.expiry, track2.rest[:3], holder)


def _folder() -> resources.abc.Traversable:
    return resources.files("sim.card") / "cards"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise CardFileError(f"{path}: {error.strerror}") from None


def _parsed(name: str, data: bytes) -> CardFile:
    try:
        if len(data) > LARGEST_FILE:
            raise CardFileError(f"{name}: a card's file has {LARGEST_FILE} bytes at most")
        card = msgspec.structs.replace(msgspec.toml.decode(data, type=CardFile), name=name)
        _check(card)
    except (msgspec.DecodeError, UnicodeDecodeError, CardError) as error:
        raise CardFileError(f"{name}: {error}") from None
    return card


def _check(card: CardFile) -> None:
    """That everything can be said; raises CardError and CardFileError."""
    for one in (*card.contact, *card.contactless):
        if one.format == 1 and set(one.options) != {"82"}:
            raise CardFileError(f"{card.name}: options of format 1 are tag 82 alone")
        if not one.label.isascii() or one.wanted > LARGEST_ANSWER:
            raise CardFileError(f"{card.name}: the application {one.aid} has a label or a PDOL that cannot be said")
        for sfi, number in one.numbered:
            if not (1 <= sfi <= 30 and 1 <= number <= 255):
                raise CardFileError(f"{card.name}: there can be no record {sfi}-{number}")
        for answer in (one.fci, one.started, *one.numbered.values()):
            if len(answer) > LARGEST_ANSWER:
                raise CardFileError(f"{card.name}: an answer of {len(answer)} bytes does not fit {LARGEST_ANSWER}")


def _objects(values: Objects) -> list[Tlv]:
    return [Tlv(int(tag, 16), bytes.fromhex(value)) for tag, value in values.items()]
