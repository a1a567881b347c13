"""A magnetic stripe reader, emulated: it swipes cards over a line with the bytes that the makes send.

The frames are those of `hw.magstripe`, so that what the driver parses is what is sent here; that they are the
makers' is tested against the manuals' examples. Like a reader it decodes the stripe itself, and says E for a
track whose parity or LRC is wrong. It also misbehaves on request.

ID TECH's takes settings too, once it runs, and reading can be turned off by one; MagTek's says when a card goes in
and out. Not modelled: what the other settings do, beeper and lights, the formats of driving licences (AAMVA,
CA-DMV).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hw import magstripe_setup as setup
from hw.errors import CardError, LineGone
from hw.magstripe import CR, DLE, ESC, ETX, FRAMES, STX
from hw.stripe import TRACK_1, TRACK_2, TRACK_3, Track, decode, play
from sim.reader.line import Line, PtyLine, SocketLine
from sim.reader.stripes import CARDS, Stripe

FORMATS: Final = tuple(FRAMES)
"""magtek, idtech, uic."""

NOISE: Final = b"\x00\xff\x7fE?0\r%B47\x80;12"
"""What a bad contact makes: odd bytes, and the beginnings of tracks that never were."""


AS_SHIPPED: Final[Mapping[int, bytes]] = {
    setup.BEEP: b"2",
    setup.SENTINELS: b"1",
    setup.ENABLE: b"1",
    setup.BAUD: b"5",
    setup.BITS: b"0",
    setup.PARITY: b"0",
    setup.STOP: b"0",
}
"""Settings of an ID TECH reader as it comes: 9600 8N1, and everything is sent."""


SETTABLE: Final = ("idtech",)
"""Those of `FORMATS` whose readers are set over the line: the driver's ``?setup=`` has the same words."""


class Fault(StrEnum):
    """What may go wrong with a swipe."""

    READ_ERROR = "read-error"
    """Track 2 is scratched: its parity is wrong, and the reader says E."""
    TRACK_1_UNREADABLE = "track-1-unreadable"
    """Track 1 is scratched, the rest reads well."""
    BAD_LRC = "bad-lrc"
    """Track 2's LRC is wrong. MagTek and ID TECH say E; UIC sends the LRC on for the terminal to see."""
    GARBAGE = "garbage"
    """Noise comes right before the swipe."""
    SPLIT = "split"
    """The swipe comes a byte at a time."""
    UNPLUG = "unplug"
    """The plug is pulled when half of the swipe is out."""


def swipe_bytes(stripe: Stripe, make: str) -> bytes:
    """What a reader of this make (one of `FORMATS`) sends for a swipe."""
    tracks = [_piece(stripe, track, make) for track in (TRACK_1, TRACK_2, TRACK_3) if track.number in stripe.tracks]
    frame = FRAMES[make]
    if make == "magtek":  # a slot reader, which tells on the way out, and so says that the slot is empty
        message = frame.build({"stx": STX, "esc": ESC, "tracks": tracks, "sensor": b"0", "cr": CR, "etx": ETX})
    elif make == "idtech":
        message = frame.build({"stx": None, "esc": None, "tracks": tracks})
    else:
        tracks[0]["stx"] = STX
        for track in tracks[:-1]:
            track["dle"] = DLE
        message = frame.build({"tracks": tracks})
    return bytes(message)


def _piece(stripe: Stripe, track: Track, make: str) -> dict[str, bytes | None]:
    start = "+" if make == "magtek" and track is TRACK_3 else track.start
    found: str | None = None
    try:
        if make == "uic":
            data, found = decode(track, stripe.tracks[track.number])
        else:
            data = play(track, stripe.tracks[track.number])
    except CardError:
        data = "E"
    return {
        "stx": None,
        "start": start.encode("ascii"),
        "data": data.encode("ascii"),
        "lrc": found.encode("ascii") if found else None,
        "dle": None,
    }


_DAMAGE: Final[Mapping[Fault | None, Callable[[Stripe], Stripe]]] = {
    None: lambda stripe: stripe,
    Fault.READ_ERROR: lambda stripe: stripe.scratched(TRACK_2),
    Fault.TRACK_1_UNREADABLE: lambda stripe: stripe.scratched(TRACK_1),
    Fault.BAD_LRC: lambda stripe: stripe.with_wrong_lrc(TRACK_2),
}


class MagstripeEmulator:
    """A reader of one make at the end of a line."""

    def __init__(self, line: Line, make: str = "magtek") -> None:
        self._line = line
        self._make = make
        self.settings = dict(AS_SHIPPED)
        self.refuses: set[int] = set()
        """Settings that it does not know: it says NAK to them."""
        self.commands: list[bytes] = []

    async def run(self) -> None:
        """Be there until the plug is pulled: take settings, as ID TECH's does. It hears nothing else."""
        held = b""
        with suppress(LineGone):
            while True:
                commands, held = setup.cut(held + await self._line.read())
                for command in commands if self._make in SETTABLE else ():
                    self.commands.append(command)
                    await self._set(*setup.parse(command))

    async def _set(self, setting: int, data: bytes | None) -> None:
        if setting in self.refuses:
            await self._line.write(bytes((setup.NAK,)))
            return
        told = setup.build_settings(self.settings) if setting == setup.ALL else b""
        if setting == setup.DEFAULTS:
            self.settings = dict(AS_SHIPPED)
        elif data is not None:
            self.settings[setting] = data
        await self._line.write(bytes((setup.ACK,)) + told)

    async def insert(self) -> None:
        """MagTek: say that a card went in, before anything is read of it."""
        await self._line.write(STX + ESC + b"1" + CR + ETX)

    async def remove(self) -> None:
        """MagTek: say that a card came out of which nothing was read."""
        await self._line.write(STX + ESC + b"0" + CR + ETX)

    async def swipe(self, card: Stripe | str, fault: Fault | None = None) -> None:
        """Swipe a card of `CARDS`, or any other; raises LineGone when the line is closed already."""
        if self.settings[setup.ENABLE] == b"0":
            return
        stripe = CARDS[card] if isinstance(card, str) else card
        stripe = _DAMAGE.get(fault, _DAMAGE[None])(stripe)
        message = swipe_bytes(stripe, self._make)
        match fault:
            case Fault.GARBAGE:
                await self._line.write(NOISE + message)
            case Fault.SPLIT:
                for code in message:
                    await self._line.write(bytes((code,)))
                    await asyncio.sleep(0)
            case Fault.UNPLUG:
                await self._line.write(message[: len(message) // 2])
                await self._line.close()
            case _:
                await self._line.write(message)


@dataclass(frozen=True, slots=True)
class Emulated:
    """A reader that is emulated: its URL for the driver, and the emulator to swipe with."""

    url: str
    line: PtyLine | SocketLine
    reader: MagstripeEmulator

    async def swipe(self, card: Stripe | str, fault: Fault | None = None) -> None:
        """See `MagstripeEmulator.swipe`."""
        await self.reader.swipe(card, fault)


@asynccontextmanager
async def on_pty(make: str = "magtek") -> AsyncIterator[Emulated]:
    """A reader on a pty, for the time of the context."""
    line = PtyLine()
    try:
        yield Emulated(f"magstripe{line.address}", line, MagstripeEmulator(line, make))
    finally:
        await line.close()


@asynccontextmanager
async def on_socket(make: str = "magtek") -> AsyncIterator[Emulated]:
    """A reader behind a TCP socket on loopback, for the time of the context."""
    line = SocketLine()
    await line.open()
    try:
        yield Emulated(f"magstripe{line.address}", line, MagstripeEmulator(line, make))
    finally:
        await line.close()
