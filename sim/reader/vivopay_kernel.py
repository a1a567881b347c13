"""What an emulated ViVOpay reader makes of a card: its own kernel, and the encryption that it does by itself.

Cards are stripes (read as if a chip held the same track 2) or chips that answer APDUs. Not modelled: offline data
authentication, cardholder verification, cryptograms, and DUKPT itself: ciphertext is bytes that come of the seed
and the key serial number, which nobody can open. The serial number counts up, once for each card.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import shake_256
from inspect import isawaitable
from typing import Final, Literal, Protocol

from hw import vivopay_msr
from hw.apdu import Response
from hw.card import EntryMode
from hw.errors import CardError
from hw.stripe import TRACK_1, TRACK_2, play
from hw.vivopay_result import Scheme, Source
from hw.vivopay_tlv import ENCRYPTION, ERROR, KSN, MSR, Cover, Item, encode
from sim.reader.stripes import Stripe
from terminal.emv import read as emv
from terminal.emv.read import Interface
from terminal.emv.tags import Tag
from terminal.emv.terminal_data import terminal_data
from terminal.money import Amount

_BITS: Final = {Source.CONTACT: 0, Source.CONTACTLESS: 0x01, Source.MSD: 0x11, Source.STRIPE: 0x08}
_ENTRY: Final = {Source.CONTACT: 0x05, Source.CONTACTLESS: 0x07, Source.MSD: 0x91, Source.STRIPE: 0x90}
"""POS entry mode, tag 9F39."""
_BASES: Final[dict[Scheme, bytes]] = {
    "dukpt-tdes": bytes.fromhex("ffff9876543210e00000"),
    "dukpt-aes": bytes.fromhex("123456789012345600000000"),
}
"""Key serial numbers before the first card: 10 bytes (ANSI X9.24-1), or 12 (X9.24-3)."""
_MASK: Final = "C"
_TERMINAL: Final = terminal_data(None, Amount(1, "EUR"), datetime(2026, 1, 1, tzinfo=UTC), bytes(4))
"""What the kernel tells a card of the sale: cards that answer as data in a file says do not mind."""


class ChipToRead(Protocol):
    """A chip card: a command's bytes in, data and status words out."""

    def transmit(self, command: bytes, /) -> bytes | Awaitable[bytes]:
        """One command, answered."""


async def transmit(chip: ChipToRead, command: bytes) -> bytes:
    """The answer of a chip that may take its time."""
    response = chip.transmit(command)
    return await response if isawaitable(response) else response


@dataclass(slots=True)
class Read:
    """What was read of a card: track 2 equivalent data, track texts of a stripe, and EMV objects."""

    track2: bytes
    texts: dict[int, str] = field(default_factory=dict)
    objects: tuple[Item, ...] = ()


async def read(card: Stripe | ChipToRead, source: Source) -> Read:
    """Read a card; CardError where it does not read."""
    if not isinstance(card, Stripe):
        return await _read_chip(card, EntryMode.CHIP if source is Source.CONTACT else EntryMode.CONTACTLESS)
    texts = {}
    for track in (TRACK_1, TRACK_2):
        try:
            texts[track.number] = play(track, card.tracks[track.number])
        except (CardError, KeyError):
            continue
    if 2 not in texts:
        return Read(b"", texts)
    nibbles = texts[2].replace("=", "D")
    return Read(bytes.fromhex(nibbles if len(nibbles) % 2 == 0 else nibbles + "F"), texts)


async def _read_chip(chip: ChipToRead, interface: Interface) -> Read:
    """As a terminal reads it that knows nothing of the sale."""
    asking = emv.read(interface, _TERMINAL)
    command = next(asking)
    try:
        while True:
            command = asking.send(Response.decode(await transmit(chip, command.encode())))
    except StopIteration as done:
        data: emv.CardData = done.value
    objects = (
        Item(Tag.LABEL, data.label.encode("latin-1", "replace")),
        Item(Tag.DF_NAME, data.aid),
        *((Item(Tag.PAN_SEQUENCE, bytes.fromhex(data.sequence)),) if data.sequence else ()),
    )
    return Read(data.track2.encode(), {}, objects)


class Kernel:
    """Makes results of cards. ``seal`` is how they are encrypted, None for not at all."""

    def __init__(self, seal: Literal["tdes", "aes"] | None = None, seed: int = 0) -> None:
        self.scheme: Scheme | None = None if seal is None else "dukpt-aes" if seal == "aes" else "dukpt-tdes"
        self._seed = seed
        self.sealed = 0
        """Cards that were encrypted so far."""

    @property
    def ksn(self) -> bytes:
        """The key serial number of the card that was encrypted last."""
        assert self.scheme is not None
        base = _BASES[self.scheme]
        return (int.from_bytes(base, "big") + self.sealed).to_bytes(len(base), "big")

    def attribution(self, source: Source) -> int:
        """The first byte of a result."""
        if self.scheme is None:
            return _BITS[source]
        return _BITS[source] | 0xC0 | (0x02 if self.scheme == "dukpt-aes" else 0)

    async def result(self, source: Source, card: Stripe | ChipToRead) -> bytes:
        """The data of an answer to an activation; CardError where the card does not read."""
        got = await read(card, source)
        if not got.track2 and source is not Source.STRIPE:
            raise CardError("the card has no track 2")
        if self.scheme is not None:
            self.sealed += 1
        attribution = self.attribution(source)
        about = (Item(0x9F39, bytes((_ENTRY[source],))), Item(ENCRYPTION, bytes((attribution, 0))))
        if source is Source.STRIPE:
            return bytes((attribution,)) + encode((Item(MSR, self._swipe(got)), *about))
        key = (Item(KSN, self.ksn),) if self.scheme else ()
        return bytes((attribution,)) + encode((*key, *self._secret(0x57, got.track2), *got.objects, *about))

    def failure(self, source: Source, error: int) -> bytes:
        """The data of an answer to an activation that went wrong."""
        return bytes((self.attribution(source),)) + encode((Item(ERROR, bytes((error, 0, 0, 0))),))

    def _secret(self, tag: int, value: bytes) -> tuple[Item, ...]:
        if self.scheme is None:
            return (Item(tag, value),)
        masked = Item(tag, bytes.fromhex(_masked(value.hex().upper(), "D")), Cover.MASKED)
        return masked, Item(tag, self._ciphertext(tag, len(value) + 3), Cover.SEALED)

    def _swipe(self, got: Read) -> bytes:
        texts = {track: text for track, text in got.texts.items() if text}
        shown = {track: f"{'%' if track == 1 else ';'}{text}?".encode("ascii") for track, text in texts.items()}
        if self.scheme is None:
            return vivopay_msr.build(vivopay_msr.Swipe(shown))
        sealed = {track: self._ciphertext(track, len(data)) for track, data in shown.items()}
        hidden = {track: _starred(data.decode("ascii")).encode("ascii") for track, data in shown.items()}
        return vivopay_msr.build(vivopay_msr.Swipe(hidden, sealed, self.ksn, self.scheme))

    def _ciphertext(self, number: int, size: int) -> bytes:
        block = 16 if self.scheme == "dukpt-aes" else 8
        return shake_256(repr((self._seed, self.ksn, number)).encode("ascii")).digest(-(-size // block) * block)


def _masked(text: str, separator: str, mask: str = _MASK) -> str:
    """First four and last four digits, the expiry and the service code stay."""
    pan, _, rest = text.partition(separator)
    return pan[:4] + mask * (len(pan) - 8) + pan[-4:] + separator + rest[:7] + mask * len(rest[7:])


def _starred(text: str) -> str:
    if text[0] == ";":
        return ";" + _masked(text[1:-1], "=", "*") + "?"
    pan, name, rest = text[2:-1].split("^")
    return f"%*{pan[:4]}{'*' * (len(pan) - 8)}{pan[-4:]}^{name}^{rest[:4]}{'*' * len(rest[4:])}?"
