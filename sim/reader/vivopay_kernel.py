"""What an emulated ViVOpay reader makes of a card: its own kernel, and the encryption that it does by itself.

Cards are stripes (read as if a chip held the same track 2) or chips that answer APDUs. Not modelled: offline data
authentication, cardholder verification, cryptograms, and DUKPT itself: ciphertext is bytes that come of the seed
and the key serial number, which nobody can open. The serial number counts up, once for each card.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from hashlib import shake_256
from inspect import isawaitable
from typing import Final, Literal, Protocol

from hw import tlv, vivopay_msr
from hw.apdu import Command, Response
from hw.errors import CardError
from hw.stripe import TRACK_1, TRACK_2, play
from hw.vivopay_result import Scheme, Source
from hw.vivopay_tlv import ENCRYPTION, ERROR, KSN, MSR, Cover, Item, encode
from sim.reader.stripes import Stripe

_BITS: Final = {Source.CONTACT: 0, Source.CONTACTLESS: 0x01, Source.MSD: 0x11, Source.STRIPE: 0x08}
_ENTRY: Final = {Source.CONTACT: 0x05, Source.CONTACTLESS: 0x07, Source.MSD: 0x91, Source.STRIPE: 0x90}
"""POS entry mode, tag 9F39."""
_BASES: Final[dict[Scheme, bytes]] = {
    "dukpt-tdes": bytes.fromhex("ffff9876543210e00000"),
    "dukpt-aes": bytes.fromhex("123456789012345600000000"),
}
"""Key serial numbers before the first card: 10 bytes (ANSI X9.24-1), or 12 (X9.24-3)."""
_MASK: Final = "C"


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


async def read(card: Stripe | ChipToRead) -> Read:
    """Read a card; CardError where it does not read."""
    if not isinstance(card, Stripe):
        return await _read_chip(card)
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


async def _read_chip(chip: ChipToRead) -> Read:
    """Directory, first application, processing options, records (EMV 4.3 Book 3, section 10)."""

    async def ask(command: Command) -> tuple[tlv.Tlv, ...]:
        response = Response.decode(await transmit(chip, command.encode()))
        return tuple(tlv.walk(tlv.parse(response.data))) if response.ok else ()

    found: dict[int, bytes] = {}
    for name in (b"2PAY.SYS.DDF01", b"1PAY.SYS.DDF01"):
        found |= {one.tag: one.value for one in await ask(Command(0, 0xA4, 4, 0, name, 256))}
        if 0x4F not in found and 0x88 in found:
            record = await ask(Command(0, 0xB2, 1, found[0x88][0] << 3 | 4, le=256))
            found |= {one.tag: one.value for one in record}
        if 0x4F in found:
            break
    if 0x4F not in found:
        raise CardError("the card names no application")
    found |= {one.tag: one.value for one in await ask(Command(0, 0xA4, 4, 0, found[0x4F], 256))}
    size = sum(length for _, length in tlv.parse_dol(found.get(0x9F38, b"")))
    options = tlv.Tlv(0x83, bytes(size)).encode()
    told = {one.tag: one.value for one in await ask(Command(0x80, 0xA8, 0, 0, options, 256))}
    found |= told
    afl = told.get(0x94) or told.get(0x80, b"")[2:]
    for at in range(0, len(afl) - 3, 4):
        for record_number in range(afl[at + 1], afl[at + 2] + 1):
            record = await ask(Command(0, 0xB2, record_number, afl[at] & 0xF8 | 4, le=256))
            found |= {one.tag: one.value for one in record}
    shown = tuple(Item(tag, found[tag]) for tag in (0x50, 0x84, 0x82, 0x5F24, 0x5F34) if tag in found)
    return Read(found.get(0x57) or found.get(0x9F6B, b""), {}, shown)


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
        got = await read(card)
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
