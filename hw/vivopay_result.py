"""What a ViVOpay reader says of a card: the answer to an activation, and the card in it.

    attribution   one byte: how the card came in, and how what is secret was encrypted (02-40, 03-40)
    objects       DFEE12 the key serial number, then the card's; of a failure FFEE1F

The guide leaves open which of the attribution's two highest bits stands for stripe and which for chip, so what is
encrypted is told by the objects themselves. Contact answers (60-xx) begin with a result of two bytes (00 04: go
online), and name the attribution in DFEE26: that is our reading of the guide, which does not print their layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from hw import vivopay_msr as msr
from hw import vivopay_tlv as tlv
from hw.card import EntryMode, ResultCard, SealedCard, StripeCard
from hw.errors import BadSwipe, CardError, ProtocolError
from hw.masking import MASKS
from hw.pan import mask_pan
from hw.stripe import read_card
from hw.vivopay_frames import Message
from hw.vivopay_status import ONLINE, READ, STATUSES, error_text, status_text
from hw.vivopay_tlv import Cover, Item

Scheme = Literal["dukpt-tdes", "dukpt-aes"]
VivopayCard = StripeCard | ResultCard | SealedCard

GO_ONLINE: Final = 4
"""`Result.code` of a contact transaction that waits for the host's answer."""
TRACK_2_TAGS: Final = (0x57, 0x9F6B)
TRACK_DATA: Final = frozenset((*MASKS, 0x5F21, 0x5F22, 0x5F23, 0x58, 0xDF812A, 0xDF812B))
"""What does not go along with a card as its tags."""


class Source(Enum):
    """How a card came in: bits 4, 3 and 0 of the attribution."""

    CONTACT = "contact"
    CONTACTLESS = "contactless"
    MSD = "contactless, as a stripe"
    STRIPE = "stripe"


_SOURCES: Final = {
    0b000: Source.CONTACT,
    0b001: Source.CONTACTLESS,
    0b010: Source.STRIPE,
    0b011: Source.STRIPE,
    0b101: Source.MSD,
}
_MODES: Final = {
    Source.CONTACT: EntryMode.CHIP,
    Source.CONTACTLESS: EntryMode.CONTACTLESS,
    Source.MSD: EntryMode.CONTACTLESS,
    Source.STRIPE: EntryMode.SWIPE,
}


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a transaction: ``status`` as the answer has it, known or not; ``code`` of a contact one."""

    status: int
    attribution: int | None = None
    code: int | None = None
    items: tuple[Item, ...] = field(default=(), repr=False)

    @property
    def goes_online(self) -> bool:
        """Whether the reader waits for what the host says; it may say so as a failure too. Raises ProtocolError."""
        return self.status == ONLINE or self.code == GO_ONLINE or self.error[:1] == bytes((ONLINE,))

    @property
    def source(self) -> Source:
        """How the card came in; contact where the reader does not say. Raises ProtocolError for no known way."""
        bits = self.attribution or 0
        place = bits >> 2 & 0b110 | bits & 1
        if place not in _SOURCES:
            raise ProtocolError(f"the reader got a card in a way that is not known (attribution {bits:02X}h)")
        return _SOURCES[place]

    @property
    def scheme(self) -> Scheme:
        """How what is sealed was encrypted; ProtocolError for a way that is not DUKPT's."""
        mode = (self.attribution or 0) >> 1 & 0b11
        if mode > 1:
            raise ProtocolError("the reader encrypts in a way that is neither TDES nor AES (attribution)")
        return "dukpt-aes" if mode else "dukpt-tdes"

    @property
    def error(self) -> bytes:
        """Error code, SW1, SW2, state of the exchange; empty where there was none."""
        return self.find((tlv.ERROR,)) or b""

    def find(self, tags: Iterable[int], cover: Cover = Cover.CLEAR) -> bytes | None:
        """The value of the first object with this cover and the first of these tags that is there."""
        every = tuple(tlv.walk(self.items))
        for tag in tags:
            for item in every:
                if item.tag == tag and item.cover is cover:
                    return item.value
        return None


def activation(message: Message) -> Result:
    """The result in an answer to 02-40 or 03-40; ProtocolError where its objects are none."""
    if not message.data:
        return Result(message.code)
    return Result(message.code, message.data[0], None, tlv.parse(message.data[1:]))


def contact(message: Message) -> Result:
    """The result in the last answer to 60-10, 60-11 or 60-12; ProtocolError."""
    if len(message.data) < 2:
        return Result(message.code)
    items = tlv.parse(message.data[2:])
    told = next((item.value for item in items if item.tag == tlv.ENCRYPTION and item.value), b"")
    return Result(message.code, told[0] if told else None, int.from_bytes(message.data[:2], "big"), items)


def card_of(result: Result) -> VivopayCard:
    """The card in a result; CardError, saying why, where there is none."""
    if result.status in STATUSES and result.status not in READ and not result.goes_online:
        raise _failure(result)
    swiped = result.find((tlv.MSR,))
    if swiped is not None:
        return _swiped(msr.parse(swiped), result)
    mode, tags = _MODES[result.source], tlv.without(result.items, TRACK_DATA)
    sealed = result.find((*TRACK_2_TAGS, *tlv.TRACK_2), Cover.SEALED)
    ksn = result.find((tlv.KSN,))
    if sealed:
        if not ksn:
            raise ProtocolError("the reader sent ciphertext without the serial number of its key")
        pan, expiry = _shown(result)
        return SealedCard(
            scheme=result.scheme, ksn=ksn, data=sealed, masked_pan=pan, expiry=expiry, entry_mode=mode, tags=tags
        )
    track = result.find(TRACK_2_TAGS)
    if track:
        return ResultCard(track2=track, entry_mode=mode, tags=tags)
    texts = [_text(result.find(tags)) for tags in (tlv.TRACK_1, tlv.TRACK_2)]
    if texts[1] is not None:
        try:
            stripe = read_card(texts[0], texts[1], None)
        except BadSwipe as error:
            if mode is EntryMode.SWIPE:
                raise
            raise CardError(str(error)) from None  # a chip's tracks: there is nothing to swipe
        if mode is EntryMode.SWIPE:
            return stripe
        return ResultCard(track2=stripe.track2_equivalent(), entry_mode=mode, tags=tags)
    raise _failure(result)


def was_inserted(result: Result) -> bool:
    """Whether a card stuck in the slot, as the reader says, or a contact transaction that was no swipe."""
    try:
        if result.find((tlv.MSR,)) is not None:
            return False
        return result.code is not None if result.attribution is None else result.source is Source.CONTACT
    except ProtocolError:
        return False


def shows_a_number(result: Result) -> bool:
    """Whether a card's number stands in the clear in a result, sealed or not.

    A reader that encrypts sends it masked and sealed; where it forgets the mask, it is no better than another.
    """
    for item in tlv.walk(result.items):
        if item.tag == tlv.MSR:
            texts = [text.decode("latin-1") for text in msr.parse(item.value).shown.values()]
        elif item.cover is Cover.SEALED:
            continue
        elif item.tag in (*tlv.TRACK_1, *tlv.TRACK_2, 0x56):
            texts = [item.value.decode("latin-1")]
        elif item.tag in (*TRACK_2_TAGS, 0x5A):
            texts = [item.value.hex()]
        else:
            continue
        if any(_NUMBER.match(text) for text in texts):
            return True
    return False


def _failure(result: Result) -> CardError:
    if result.error:
        what, advice = error_text(result.error[0])
        return CardError(what, advice=advice)
    if result.status in READ:
        return CardError("the reader told nothing of the card that a payment can be made with")
    return CardError(f"the reader gave up on the card: {status_text(result.status)}")


def _swiped(swipe: msr.Swipe, result: Result) -> VivopayCard:
    sealed = swipe.sealed.get(2) or swipe.sealed.get(1)
    if sealed:
        ksn = swipe.ksn or result.find((tlv.KSN,))
        if not ksn:
            raise ProtocolError("the reader sent ciphertext without the serial number of its key")
        pan, expiry = _hidden(swipe.shown)
        return SealedCard(
            scheme=swipe.scheme, ksn=ksn, data=sealed, masked_pan=pan, expiry=expiry, entry_mode=EntryMode.SWIPE
        )
    first, second, third = (_text(swipe.shown.get(track)) for track in (1, 2, 3))
    return read_card(first, second, third)


def bare_track(data: bytes) -> str | None:
    """A track without its sentinels and LRC, as text; None for one that is not there or was not readable."""
    return _text(data)


def _text(data: bytes | None) -> str | None:
    if not data:
        return None
    text = data.decode("latin-1")
    if text[0] in "%;+":
        text = text[1:].partition("?")[0]
    return text if len(text) > 1 else None


_NUMBER: Final = re.compile(r"[%;+]?B?[0-9]{12,}")
_MASKED_2: Final = re.compile(r"([0-9*C]{8,19})[=D]([0-9]{4})?")
_MASKED_1: Final = re.compile(r"([0-9*]{8,19})\^[^^]*\^([0-9]{4})?")


def _hidden(shown: dict[int, bytes]) -> tuple[str, str]:
    """Masked PAN and expiry of the tracks of a swipe."""
    for track, layout in ((2, _MASKED_2), (1, _MASKED_1)):
        found = layout.search(shown.get(track, b"").decode("latin-1").replace("%*", "%"))
        if found is not None:
            return _starred(found[1]), found[2] or ""
    return "**", ""


def _shown(result: Result) -> tuple[str, str]:
    """Masked PAN and expiry of the objects: C stands for what the reader leaves out."""
    track = result.find(TRACK_2_TAGS, Cover.MASKED) or b""
    found = _MASKED_2.match(track.hex().upper())
    if found is not None:
        return _starred(found[1]), found[2] or ""
    date = (result.find((0x5F24,)) or b"").hex()[:4]
    pan = (result.find((0x5A,), Cover.MASKED) or b"").hex().upper().rstrip("F")
    return _starred(pan), date if date.isdigit() else ""


def _starred(pan: str) -> str:
    """At most six first and four last digits, with stars for the rest, whatever the reader masks with."""
    text = pan.replace("C", "*")
    if not re.fullmatch(r"[0-9*]{8,19}", text):
        return "**"
    head, tail = re.match(r"[0-9]{0,6}", text), re.search(r"[0-9]{0,4}$", text)
    if "*" not in text or head is None or tail is None:
        return mask_pan(text)
    return head[0] + "*" * (len(text) - len(head[0]) - len(tail[0])) + tail[0]
