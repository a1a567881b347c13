"""Magnetic stripe readers on a serial line: the outputs of MagTek, ID TECH and UIC, and their driver.

    magtek   [STX] [ESC] %T1? ;T2? +T3? [sensor] [CR] [ETX]       (MagTek Port Powered manual, section 3)
    idtech   %T1? [LRC] CR  ;T2? [LRC] CR  ;T3? [LRC] CR          (ID TECH MiniMag RS-232 manual, section 3)
    uic      STX %T1? [LRC] DLE [STX] ;T2? [LRC] DLE ... ETX      (UIC MSR112 manual, section 3, and MiniMag)

Each can be set to leave out what stands in brackets. A track that was not readable comes as E (or F), one that
is blank as N or not at all. The sensor digit says whether a card is in the slot; a message with nothing but it
is no swipe.

A MagTek reader that is told to also says when a card goes in and out: the sensor digit with nothing before it.
ID TECH's can be set over the line (`hw.magstripe_setup`): ``?setup=idtech`` turns reading on, with sentinels and
all of track 2, and finds out whether such a reader is there at all.

These readers give card data in the clear: they are for the lab and for test cards.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from construct import (
    Bytes,
    Const,
    Construct,
    ConstructError,
    ExprValidator,
    GreedyBytes,
    GreedyRange,
    NullTerminated,
    OneOf,
    Optional,
    Struct,
    Terminated,
)

from hw import magstripe_setup as setup
from hw.card import StripeCard
from hw.errors import FramingError
from hw.line import Link
from hw.masking import blanked_text, masked_text
from hw.reader import Capabilities, CardInserted, CardRemoved, Reader
from hw.stripe import TRACK_1, TRACK_2, TRACK_3, check_lrc, lrc, read_card
from hw.trace import Language, Way

STX, ETX, CR, DLE, ESC = b"\x02", b"\x03", b"\r", b"\x10", b"\x1b"
STARTS: Final = (b"%", b";", b"+")


def _maybe(*choices: bytes) -> Construct:
    """One of these bytes, or None and nothing on the line."""
    return Optional(OneOf(Bytes(1), choices))


def _printable(data: bytes, _: object) -> bool:
    return bool(data) and all(0x20 <= byte <= 0x5F for byte in data)


_TRACK: Final = {
    "start": OneOf(Bytes(1), STARTS),
    "data": ExprValidator(NullTerminated(GreedyBytes, term=b"?"), _printable),
}
_LRC: Final = _maybe(*(bytes([code]) for code in range(0x20, 0x60)))

FRAMES: Final[Mapping[str, Construct]] = {
    "magtek": Struct(
        "stx" / _maybe(STX),
        "esc" / _maybe(ESC),
        "tracks" / GreedyRange(Struct(**_TRACK)),
        "sensor" / _maybe(b"0", b"1"),
        "cr" / _maybe(CR),
        "etx" / _maybe(ETX),
        Terminated,
    ),
    "idtech": Struct(  # STX and ESC are not ID TECH's, unless as the preamble that it may be set to send
        "stx" / _maybe(STX),
        "esc" / _maybe(ESC),
        "tracks" / GreedyRange(Struct(**_TRACK, lrc=_LRC, cr=Const(CR))),
        Terminated,
    ),
    "uic": Struct(
        "tracks" / GreedyRange(Struct(stx=_maybe(STX), **_TRACK, lrc=_LRC, dle=_maybe(DLE))),
        "etx" / Const(ETX),
        Terminated,
    ),
}
"""One swipe, as each make sends it. The driver parses with these and the emulator builds with them."""

UNREADABLE: Final = ("E", "F")
"""What stands for a track that the reader could not decode."""

BLANK: Final = ("N",)
"""What stands for a track on which nothing is recorded (UIC)."""

MAX_MESSAGE: Final = 256
"""Bytes of one swipe: three full tracks (79 + 40 + 107 with sentinels and LRC) and all that may stand around."""

QUIET: Final = 0.1
"""Seconds of silence that end a message without ETX. Readers leave 2 ms between characters at most, a USB
adapter holds them back for 16 ms, a network for some more; a person needs longer to swipe twice."""


_LEADS: Final = (b"", STX, ESC, STX + ESC)
NOTICES: Final = 16
"""Notices that are kept: a card in and out a few times while nobody looks."""


class Framer:
    """Cuts what comes into messages, one a swipe. Takes any bytes in any pieces; holds `MAX_MESSAGE` at most.

    A message begins with a start sentinel, before which STX and ESC may stand, and ends with ETX, with silence,
    or where another begins. Bytes before a beginning are noise. A track cut short by another's start is dropped,
    and what was before it in its message.
    """

    def __init__(self) -> None:
        self.dropped = 0
        """Bytes so far that were no part of a message."""
        self.notices: deque[bool] = deque(maxlen=NOTICES)
        """A card went in (True) or out, without any track: taken by whoever wants to know."""
        self._message = bytearray()
        self._open: int | None = None  # where the track begins that has no end sentinel yet

    @property
    def pending(self) -> bool:
        """Whether a message has begun, so that silence would end it."""
        return bool(self._message)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came, in the order of its coming; give the messages that it ends."""
        ended: list[bytes] = []
        for code in data:
            self._take(bytes((code,)), ended)
        return ended

    def quiet(self) -> list[bytes]:
        """Nothing came for a while: the message that was begun, if any, is all there will be of it."""
        ended: list[bytes] = []
        self._end(ended)
        return ended

    def _take(self, byte: bytes, ended: list[bytes]) -> None:
        message = self._message
        if bytes(message) in _LEADS:
            self._lead(byte)
            return
        if self._open == len(message) - 1 and message[-2:-1] == b"?":  # the start of a track, or the LRC of one
            if byte < b" ":
                self._open = None
            elif message.endswith(b"%"):
                message.pop()
                self._end(ended)
                self._lead(b"%")
        in_track = self._open is not None
        if byte == STX and (in_track or not message.endswith(DLE)):
            self._end(ended, whole=not in_track)
            self._lead(byte)
        elif in_track and byte in (b"%", b";"):
            self._end(ended, whole=False)
            self._lead(byte)
        elif byte == b"%" and b"?" in message and not message.endswith(b"?"):
            self._end(ended)  # track 1 comes first
            self._lead(byte)
        else:
            message += byte
            if byte == b"?":
                self._open = None
            elif byte in STARTS and not in_track:
                self._open = len(message) - 1
            if byte == ETX or len(message) == MAX_MESSAGE:
                self._end(ended)

    def _lead(self, byte: bytes) -> None:
        """What may come before the first track; anything else there is noise, or a notice of no interest."""
        message = self._message
        if byte in STARTS:
            self._open = len(message)
            message += byte
        elif bytes(message) + byte in _LEADS:
            message += byte
        else:
            if message and byte in (b"0", b"1"):
                self.notices.append(byte == b"1")
            self.dropped += len(message) + (byte not in _LEADS)
            message[:] = byte if byte in _LEADS else b""

    def _end(self, ended: list[bytes], *, whole: bool = True) -> None:
        if whole and bytes(self._message) not in _LEADS:
            ended.append(bytes(self._message))
        else:
            self.dropped += len(self._message)
        self._message.clear()
        self._open = None


def parse(message: bytes, make: str = "auto") -> StripeCard:
    """The card of one swipe, sent as a ``make`` of `FRAMES` sends it, or (auto) as the first that fits.

    Auto takes one digit 0 or 1 before the ETX of a message without DLE for MagTek's sensor; a UIC reader that
    is set to one track and sends its LRC should be named. Raises FramingError, and CardError.
    """
    for frame in FRAMES.values() if make == "auto" else (FRAMES[make],):
        found = _fit(frame, message)
        if found is not None and found.tracks:
            return _card(found.tracks)
    raise FramingError(f"{len(message)} bytes came that are no swipe of a known format")


def _fit(frame: Construct, message: bytes) -> Any:
    try:
        return frame.parse(message)
    except ConstructError:  # told as None, so that no error carries the bytes along
        return None


def _card(pieces: list[Any]) -> StripeCard:
    tracks: dict[int, str | None] = {}
    for piece in pieces:
        track = {b"%": TRACK_1, b";": TRACK_2, b"+": TRACK_3}[piece.start]
        if piece.start == b";" and TRACK_2.number in tracks:  # as it stands on the stripe, and ID TECH sends it
            track = TRACK_3
        if track.number in tracks:
            raise FramingError(f"track {track.number} came twice in one swipe")
        data = piece.data.decode("ascii")
        readable = data not in UNREADABLE and data not in BLANK
        if readable and piece.get("lrc"):
            check_lrc(track, data, piece.lrc.decode("ascii"))
        tracks[track.number] = data if readable else None
    return read_card(tracks.get(1), tracks.get(2), tracks.get(3))


def is_swipe(message: bytes) -> bool:
    """Whether it is one, readable or not, in the format of any make."""
    return any((found := _fit(frame, message)) is not None and found.tracks for frame in FRAMES.values())


def describe(message: bytes) -> str:
    """What a message is, without card data; also where it is about settings."""
    if said := setup.describe(message):
        return said
    for make, frame in FRAMES.items():
        found = _fit(frame, message)
        if found is not None and found.tracks:
            return f"swipe ({make}), {len(found.tracks)} tracks"
    return f"{len(message)} bytes"


def masked(message: bytes) -> bytes:
    """The message with nobody's card in it; where it has LRCs they are right.

    What is about settings stays as it is, and what is neither that nor a swipe is blanked.
    """
    if setup.describe(message):
        return message
    for frame in FRAMES.values():
        found = _fit(frame, message)
        if found is not None and found.tracks:
            for piece in found.tracks:
                piece.data = masked_text(piece.start + piece.data + b"?")[1:-1]
                if piece.get("lrc"):
                    track = TRACK_1 if piece.start == b"%" else TRACK_2
                    piece.lrc = lrc(track, piece.data.decode("ascii")).encode("ascii")
            return bytes(frame.build(found))
    return blanked_text(message)


LANGUAGE: Final = Language(describe=describe, masked=masked)


class MagstripeReader(Reader):
    """``magstripe://``: any of the three makes, told apart by itself or named with ``?format=``."""

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"format": ("auto", *FRAMES), "setup": ("leave", "idtech")}

    @property
    def capabilities(self) -> Capabilities:
        """A stripe, in the clear."""
        return Capabilities(stripe=True)

    async def _start(self, link: Link) -> None:
        if self.options["setup"] == "idtech":
            await setup.change(link, setup.ENABLE, b"1", self._seen)
            await setup.change(link, setup.SENTINELS, b"1", self._seen)

    def _seen(self, way: Way, frame: bytes) -> None:
        if way == "out":
            self.statistics.frames_out += 1
            self.statistics.bytes_out += len(frame)
        else:
            self.statistics.frames_in += 1
            self.statistics.bytes_in += len(frame)
        if self.tracer is not None:
            self.tracer.frame(way, frame, LANGUAGE)

    async def _next_card(self, link: Link) -> StripeCard:
        framer = Framer()
        while True:
            try:
                async with asyncio.timeout(QUIET if framer.pending else None):
                    data = await link.read()
            except TimeoutError:
                data = link.take()  # a loop that was held up may time out with bytes waiting
                messages = framer.feed(data) if data else framer.quiet()
            else:
                messages = framer.feed(data)
            self._count(framer, data, messages)
            if messages:
                return parse(messages[0], self.options["format"])

    def _count(self, framer: Framer, data: bytes, messages: list[bytes]) -> None:
        self.statistics.bytes_in += len(data)
        self.statistics.frames_in += len(messages)
        self.statistics.dropped += framer.dropped
        framer.dropped = 0
        while framer.notices:
            inserted = framer.notices.popleft()
            self.on_event(CardInserted(url=self.url) if inserted else CardRemoved(url=self.url))
        if self.tracer is not None:
            for message in messages:
                self.tracer.frame("in", message, LANGUAGE)
