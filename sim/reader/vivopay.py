"""An ID TECH ViVOpay or NEO reader, emulated: cards are tapped, inserted, swiped, taken away and torn out.

The frames are those of `hw.vivopay_frames`; that they are the maker's is tested against published ones alone. It
answers every command of those, and the rest with "unknown command". It also misbehaves on request. Not modelled:
the pace of its line, PIN entry, menus, and what `sim.reader.vivopay_kernel` names; which answers follow a
transaction that was called off is a guess (the cancel's alone).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal

from hw.errors import CardError, CardGone, LineGone, ProtocolError
from hw.vivopay_commands import AUTO_POLL, CONTACT, ON_DEMAND
from hw.vivopay_frames import (
    MSR_APPLICATION,
    BurstPayload,
    Framer,
    Message,
    build_answer,
    build_event,
    build_payload,
    command_order,
    crc_order,
    parse,
)
from hw.vivopay_result import Source
from hw.vivopay_status import ACCEPTED, BAD_CRC, FAILED, OK, ONLINE, TIMEOUT, USER_INTERFACE
from hw.vivopay_tlv import BURST, Item, encode
from hw.vivopay_tlv import parse as parse_items
from sim.reader.line import Line, PtyLine, SocketLine
from sim.reader.stripes import CARDS, Stripe
from sim.reader.vivopay_faults import Fault, Mouth
from sim.reader.vivopay_held import Card, Held
from sim.reader.vivopay_kernel import Kernel, read, transmit

FIRMWARE: Final = b"NEO v1.00.000\0"
MODULE: Final = b"Emulated reader\0"
LIGHT: Final = b"\xe1\x01"
_UNKNOWN_COMMAND: Final = 0x02
_BAD_PARAMETER: Final = 0x05
_NOT_NOW: Final = 0x0B

Seal = Literal["tdes", "aes"]


class VivopayEmulator:
    """A reader at the end of a line, once it `run`s. ``seal``: how it encrypts, None for not at all."""

    def __init__(self, line: Line, *, seal: Seal | None = None, seed: int = 0) -> None:
        self._line = line
        self.kernel = Kernel(seal, seed)
        self._framer = Framer()
        self._mouth = Mouth(line)
        self._job: asyncio.Task[None] | None = None
        self._held = Held()
        self._waiting = asyncio.Event()
        self.poll_mode, self.passing_through = AUTO_POLL, False
        self.settings: dict[int, bytes] = {0x5F2A: b"\x08\x40", BURST: b"\x01"}
        """Tag -> value, as a reader comes out of the box: burst mode on."""
        self.last_result = b""
        self.heard: deque[Message] = deque(maxlen=1000)
        """The last commands."""
        self._obeys: dict[int, Callable[[Message], Awaitable[None]]] = {
            0x01: self._poll_mode_or_display,
            0x02: self._transaction,
            0x03: self._about_result,
            0x04: self._configure,
            0x05: self._call_off,
            0x09: self._module,
            0x0B: self._done,
            0x18: self._done,
            0x29: self._firmware,
            0x2C: self._pass_through,
            0x60: self._contact,
            0x61: self._screen,
            0x83: self._light,
        }

    def tap(self, card: Card | str, *, as_stripe: bool = False) -> None:
        """Hold a card to the reader until it is removed; ``as_stripe``: an old one that imitates a stripe."""
        self._present(Source.MSD if as_stripe else Source.CONTACTLESS, card)

    def insert(self, card: Card | str) -> None:
        """Push a card into the slot until it is removed."""
        self._present(Source.CONTACT, card)

    def swipe(self, card: Stripe | str) -> None:
        """Swipe a card; nobody waiting, it is lost."""
        if self._job is not None or self._polling:
            self._present(Source.STRIPE, card)

    def crowd(self) -> None:
        """A second card comes into the field, until they are removed."""
        self._held.crowded = True

    def remove(self) -> None:
        """Take the card away, or both."""
        self._held.remove()

    def tear(self) -> None:
        """Take the card away in the middle of the next exchange with it."""
        self._held.tear()

    async def waiting(self) -> None:
        """Until somebody waits for a card, or talks to one."""
        await self._waiting.wait()

    def misbehave(self, fault: Fault, on: int | None = None, times: int = 1) -> None:
        """Do so with the next command, or the next with this command byte."""
        self._mouth.faults += [(fault, on)] * times

    def _present(self, source: Source, card: Card | str) -> None:
        self._held.card = found = source, CARDS[card] if isinstance(card, str) else card
        if self._job is not None or source is Source.CONTACT or not self._polling:
            self._held.tell()
        elif self._bursting:
            self._later(self._burst())
        else:
            self._later(self._unasked(*found))

    @property
    def _polling(self) -> bool:
        return self.poll_mode == AUTO_POLL and not self.passing_through

    @property
    def _bursting(self) -> bool:
        return self._polling and self.settings[BURST] != b"\0" and self.kernel.scheme is None

    async def _unasked(self, source: Source, card: Card) -> None:
        """A card that comes while it polls by itself: what became of it is there to be asked for."""
        await self._read(source, card)
        self._held.tell()

    async def run(self) -> None:
        """Answer until the plug is pulled."""
        with suppress(LineGone):
            try:
                while True:
                    for frame in self._framer.feed(await self._line.read()):
                        message = parse(frame)
                        if isinstance(message, Message):
                            self.heard.append(message)
                            await self._obey(message, frame)
            finally:
                self._drop_job()

    def _drop_job(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
            self._waiting.clear()

    async def _obey(self, message: Message, frame: bytes) -> None:
        if crc_order(frame) != command_order(message.command, message.code):
            await self._say(message, BAD_CRC)
            return
        self._drop_job()  # whatever comes in the middle of a transaction calls it off
        await self._obeys.get(message.command, self._unknown)(message)

    async def _say(self, message: Message, status: int, data: bytes = b"") -> None:
        await self._mouth.say(message.command, status, data)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        async def guarded() -> None:
            with suppress(LineGone):
                await work
            self._job = None
            self._waiting.clear()

        self._job = asyncio.create_task(guarded())
        self._job.add_done_callback(lambda _: work.close())  # it may be called off before it begins
        self._waiting.set()

    async def _unknown(self, message: Message) -> None:
        await self._say(message, _UNKNOWN_COMMAND)

    async def _done(self, message: Message) -> None:
        await self._say(message, OK)

    async def _firmware(self, message: Message) -> None:
        await self._say(message, OK, FIRMWARE)

    async def _module(self, message: Message) -> None:
        await self._say(message, OK, MODULE)

    async def _light(self, message: Message) -> None:
        await self._say(message, OK, LIGHT)

    async def _screen(self, message: Message) -> None:
        """Of the screens that may be asked for, there is the first alone."""
        await self._say(message, OK, bytes((message.data == b"Screen1\0",)) if message.code == 0x13 else b"")

    async def _poll_mode_or_display(self, message: Message) -> None:
        if message.code == 0x01:
            if message.data not in (bytes((AUTO_POLL,)), bytes((ON_DEMAND,))):
                await self._say(message, _BAD_PARAMETER)
                return
            self.poll_mode = message.data[0]
        await self._say(message, OK)

    async def _configure(self, message: Message) -> None:
        try:
            items = parse_items(message.data)
        except ProtocolError:
            await self._say(message, _BAD_PARAMETER)
            return
        self.settings |= {item.tag: item.value for item in items}
        if self.kernel.scheme is not None:
            self.settings[BURST] = b"\0"
        await self._say(message, OK)

    async def _call_off(self, message: Message) -> None:
        await self._say(message, OK)

    async def _about_result(self, message: Message) -> None:
        if message.code == 0x02:
            await self._say(message, OK, encode(Item(tag, value) for tag, value in self.settings.items()))
        elif message.code == 0x03:
            await self._say(message, OK if message.data[:1] == b"\0" else FAILED)
        elif message.code == 0x40:
            result, self.last_result = self.last_result, b""
            await self._say(message, OK, result)
        else:
            await self._unknown(message)

    async def _transaction(self, message: Message) -> None:
        if message.code != 0x40:
            await self._unknown(message)
        elif self.passing_through:
            await self._say(message, _NOT_NOW)
        elif not message.data:
            await self._say(message, _BAD_PARAMETER)
        else:
            self._later(self._activated(message))

    async def _activated(self, message: Message) -> None:
        try:
            async with asyncio.timeout(message.data[0]):
                source, card = await self._held.next(*Source)
        except TimeoutError:
            await self._say(message, TIMEOUT)
            return
        await self._line.write(build_answer(message.command, USER_INTERFACE, b"\1"))
        status, data = await self._read(source, card)
        await self._say(message, ONLINE if status == OK and source is not Source.STRIPE else status, data)

    async def _read(self, source: Source, card: Card) -> tuple[int, bytes]:
        if self._held.torn():
            return FAILED, self.kernel.failure(source, 0x24)
        if self._held.is_crowded(source):
            return FAILED, self.kernel.failure(source, 0x21)
        try:
            self.last_result = await self.kernel.result(source, card)
        except CardGone:
            return FAILED, self.kernel.failure(source, 0x24)
        except CardError:
            return FAILED, self.kernel.failure(source, 0x27)
        return OK, self.last_result

    async def _contact(self, message: Message) -> None:
        if message.code not in (0x10, 0x11, 0x12):
            await self._done(message)
            return
        if self.passing_through:
            await self._say(message, _NOT_NOW)
            return
        await self._line.write(build_answer(message.command, ACCEPTED))
        self._later(self._contact_step(message))

    async def _contact_step(self, message: Message) -> None:
        if message.code == 0x10:
            if len(message.data) < 5:
                return
            fallback = (Source.STRIPE,) if message.data[0] else ()
            try:
                async with asyncio.timeout(int.from_bytes(message.data[1:3], "big")):
                    source, card = await self._held.next(Source.CONTACT, *fallback)
            except TimeoutError:
                await self._say(message, TIMEOUT)
                return
            status, data = await self._read(source, card)
            await self._say(message, status, b"\0\0" + data[1:])
        elif self._held.card is None or self._held.torn():
            await self._say(message, FAILED)
        else:
            await self._say(message, OK, b"\0\4" if message.code == 0x11 else b"\0\0")

    async def _pass_through(self, message: Message) -> None:
        if message.code == 0x01:
            self.passing_through = message.data == b"\1"
            await self._say(message, OK)
        elif not self.passing_through:
            await self._say(message, _NOT_NOW)
        elif message.code == 0x02 and len(message.data) == 2:
            self._later(self._poll_card(message))
        elif message.code == 0x12:
            atr = getattr(self._held.there(Source.CONTACT), "atr", b"")
            await self._say(message, OK if atr else FAILED, atr)
        elif message.code == 0x13 and message.data:
            self._later(self._exchange(message))
        elif message.code == 0x18:
            await self._say(message, OK)
        else:
            await self._say(message, _BAD_PARAMETER)

    async def _poll_card(self, message: Message) -> None:
        try:
            async with asyncio.timeout(message.data[0] + message.data[1] / 100):
                _, card = await self._held.next(Source.CONTACTLESS)
        except TimeoutError:
            await self._say(message, TIMEOUT)
            return
        if self._held.crowded:
            await self._say(message, FAILED)
            return
        speaks = not isinstance(card, Stripe)
        await self._say(message, OK, bytes((1 if speaks else 3,)) + getattr(card, "uid", b"\1\2\3\4"))

    async def _exchange(self, message: Message) -> None:
        wanted = Source.CONTACT if message.data[0] == CONTACT else Source.CONTACTLESS
        card = self._held.there(wanted)
        if card is None or isinstance(card, Stripe) or self._held.torn():
            await self._say(message, FAILED)
            return
        try:
            answer = await transmit(card, message.data[1:])
        except CardGone:
            await self._say(message, FAILED)
            return
        await self._say(message, OK, answer)

    async def _burst(self) -> None:
        """A card in burst mode is told at once: a light, then its tracks. A chip stays in the field."""
        assert self._held.card is not None
        source, card = self._held.card
        if isinstance(card, Stripe):
            self._held.card = None
        try:
            got = await read(card, source)
        except CardError:  # nothing is said of a card that does not read
            return
        shown = got.texts or {2: got.track2.hex().upper().rstrip("F").replace("D", "=")}
        texts = "".join(f"{'%' if track == 1 else ';'}{text}?" for track, text in shown.items()).encode("ascii")
        application = MSR_APPLICATION if source is Source.STRIPE else 0x02
        await self._line.write(build_event(bytes.fromhex("03030000")))
        await self._line.write(build_payload(BurstPayload(OK, application, texts)))


@dataclass(frozen=True, slots=True)
class Emulated:
    """A reader that is emulated: its URL for the driver, its line, and itself."""

    url: str
    line: PtyLine | SocketLine
    reader: VivopayEmulator


@asynccontextmanager
async def on_pty(seal: Seal | None = None) -> AsyncIterator[Emulated]:
    """A reader on a pty, for the time of the context."""
    async with _running(PtyLine(), seal) as emulated:
        yield emulated


@asynccontextmanager
async def on_socket(seal: Seal | None = None) -> AsyncIterator[Emulated]:
    """A reader behind a TCP socket on loopback, for the time of the context."""
    line = SocketLine()
    await line.open()
    async with _running(line, seal) as emulated:
        yield emulated


@asynccontextmanager
async def _running(line: PtyLine | SocketLine, seal: Seal | None) -> AsyncIterator[Emulated]:
    reader = VivopayEmulator(line, seal=seal)
    running = asyncio.create_task(reader.run())
    try:
        yield Emulated(f"vivopay{line.address}", line, reader)
    finally:
        await line.close()
        await running
