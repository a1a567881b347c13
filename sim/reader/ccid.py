"""A contact reader that speaks CCID over a serial line, emulated: the make's envelope is handed in.

It answers what drivers send, pcscd's among them; a card is inserted, removed or torn away by a call. It also
misbehaves on request. Not modelled: the pace of the line, voltages, a second slot, PIN pads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, Generic, TypeVar

from hw.atr import check_pps, parse_atr
from hw.ccid import ANSWERS, FAILED, MUTE, TIME_EXTENSION, Icc, Kind, Message
from hw.envelope import Envelope, Signal
from hw.errors import LineGone
from sim.reader.contact import Chip, T0Card, T1Card, answered, answers_pps, run_t0
from sim.reader.line import Line, PtyLine, SocketLine

NOISE: Final = b"\x00\x03\x06\x80\x04\x00\x02\x62\x50\x03"
"""What a bad contact makes: odd bytes, and the beginnings of frames that never were."""

UNKNOWN_COMMAND: Final = 0x00

SEEN: Final = 1000
"""Commands that are kept: an emulator may stand there for days."""
NOTICES_KEPT: Final = 16
"""Notices that wait for the next command; the oldest go beyond."""


class Fault(StrEnum):
    """What may go wrong with one answer."""

    GARBAGE = "garbage"
    """Noise comes right before it."""
    SPLIT = "split"
    """It comes a byte at a time."""
    JOINED = "joined"
    """It comes twice, in one piece."""
    WRONG_CHECK = "wrong-check"
    """Its check is wrong."""
    NAK = "nak"
    """The reader says that it did not understand, and does nothing."""
    LOST_ACK = "lost-ack"
    """Nothing comes of it, though the command was carried out."""
    SLOW = "slow"
    """The card needs longer: three requests for time come first."""
    SILENCE = "silence"
    """The reader does not hear the command, nor any after it until it is told to `CcidEmulator.speak`."""
    UNPLUG = "unplug"
    """The plug is pulled when half of it is out."""
    TEAR = "tear"
    """The card is torn away while it works."""
    MUTE = "mute"
    """The card does not answer."""
    LOST_BLOCK = "lost-block"
    """The card's answer is damaged on its way to the reader: a bit of it flips, which T=1 notices."""


class CcidEmulator:
    """A reader at the end of a line. `run` is its life; it ends when the line is closed."""

    LEVEL: ClassVar[str] = "tpdu"
    """Whether it is given what a protocol sends, or whole APDUs."""
    BUSY: ClassVar[bytes] = b""
    """What asks for time outside of any frame, where the make has that."""
    ACCEPTED: ClassVar[bytes] = b""
    """What the make says at once to a command that came whole."""
    REFUSAL: ClassVar[bytes]
    """What the make says to one that did not."""
    AFTER_CHECK: ClassVar[int] = 0
    """Bytes of a frame that stand behind its check."""

    def __init__(self, line: Line, envelope: Envelope, *, slot: int = 0, echo: bool = False) -> None:
        self._slot = slot  # the others are empty
        self._line, self._envelope, self._echo = line, envelope, echo
        self._framer = envelope.framer()
        self._chip: Chip | None = None
        self._card: T0Card | T1Card | None = None
        self._active = False
        self._protocol = 0
        self._last = b""
        self._faults: deque[Fault] = deque()
        self._silent = False
        self._notices: deque[bytes] = deque(maxlen=NOTICES_KEPT)
        self.seen: deque[Message] = deque(maxlen=SEEN)
        """The last commands that were understood, in order."""

    async def insert(self, chip: Chip) -> None:
        """A card goes into the slot; its ATR says which protocol it speaks."""
        self._chip, self._active = chip, False
        await self._notice(Signal.INSERTED)

    async def remove(self) -> None:
        """The card is taken out, if there is one."""
        if self._chip is not None:
            self._chip, self._card, self._active = None, None, False
            await self._notice(Signal.REMOVED)

    async def tear(self) -> None:
        """The card is pulled while the next command is carried out."""
        self.misbehave(Fault.TEAR)

    def misbehave(self, *faults: Fault) -> None:
        """Each of these befalls one of the next answers, in order."""
        self._faults.extend(faults)

    def speak(self) -> None:
        """End a silence."""
        self._silent = False

    @property
    def card(self) -> T0Card | T1Card | None:
        """The powered card's half of the protocol."""
        return self._card

    async def run(self) -> None:
        """Answer until the line is closed."""
        try:
            while True:
                for frame in self._framer.feed(await self._line.read()):
                    await self._take(frame)
        except LineGone:
            return

    async def _take(self, frame: bytes) -> None:
        found = self._envelope.parse(frame)
        if self._silent or (isinstance(found, Message) and found.kind.is_answer):
            return
        if isinstance(found, Signal):
            if found is Signal.NAK and self._last:
                await self._line.write(self._last)
            elif found is Signal.DAMAGED:
                await self._line.write(self.REFUSAL)
            return
        if self._echo:
            await self._line.write(frame)
        fault = self._faults.popleft() if self._faults else None
        if fault is Fault.SILENCE:
            self._silent = True
        elif fault is Fault.NAK:
            await self._line.write(self.REFUSAL)
        else:
            self.seen.append(found)
            await self._line.write(b"".join(self._notices) + self.ACCEPTED)
            self._notices.clear()
            if fault is Fault.TEAR:
                await self.remove()
            await self._send(await self._carried_out(found, fault), fault)

    async def _send(self, answer: Message, fault: Fault | None) -> None:
        frame = self._last = self._envelope.build(answer)
        match fault:
            case Fault.GARBAGE:
                await self._line.write(NOISE + frame)
            case Fault.SPLIT:
                for code in frame:
                    await self._line.write(bytes((code,)))
                    await asyncio.sleep(0)
            case Fault.JOINED:
                await self._line.write(frame + frame)
            case Fault.WRONG_CHECK:
                check = len(frame) - self.AFTER_CHECK - 1
                await self._line.write(frame[:check] + bytes((frame[check] ^ 0xFF,)) + frame[check + 1 :])
            case Fault.UNPLUG:
                await self._line.write(frame[: len(frame) // 2])
                await self._line.close()
            case Fault.LOST_ACK:
                return
            case _:
                await self._line.write(frame)

    async def _carried_out(self, command: Message, fault: Fault | None) -> Message:
        """The answer to a command."""
        if command.slot != self._slot and command.kind is not Kind.ESCAPE:  # a SAM's slot, with none in it
            failed = 0 if command.kind is Kind.GET_SLOT_STATUS else FAILED
            status = bytes((Icc.ABSENT | failed, MUTE if failed else 0, 0))
            return Message(ANSWERS[command.kind], b"", command.slot, command.seq, status)
        if command.kind is Kind.XFR_BLOCK:
            return await self._exchanged(command, fault)
        if fault is Fault.SLOW:
            await self._ask_for_time(command, 3)
        if fault is Fault.MUTE and command.kind is Kind.POWER_ON:
            return self._answer(command, failed=MUTE)
        match command.kind:
            case Kind.POWER_ON if self._chip is not None:
                self._active = True
                self._protocol = parse_atr(self._chip.atr).choose()
                self._card = self._half(self._chip)
                return self._answer(command, self._chip.atr)
            case Kind.POWER_OFF:
                self._active, self._card = False, None
                return self._answer(command)
            case Kind.GET_SLOT_STATUS:
                return self._answer(command)
            case Kind.SET_PARAMETERS if self._chip is not None:
                return self._answer(command, command.data, third=command.specific[0])
            case Kind.ESCAPE:
                return self._escaped(command)
        return self._answer(command, failed=UNKNOWN_COMMAND if self._chip is not None else MUTE)

    def _half(self, chip: Chip) -> T0Card | T1Card:
        return T1Card(chip) if self._protocol else T0Card(chip)

    async def _exchanged(self, command: Message, fault: Fault | None) -> Message:
        chip, card = self._chip, self._card
        if chip is None or not self._active or fault is Fault.MUTE:
            return self._answer(command, failed=MUTE)
        if fault is Fault.SLOW:
            await self._ask_for_time(command, 3)
        said: bytes | None
        if self.LEVEL == "apdu":
            said = answered(chip, command.data)
        elif (protocol := answers_pps(chip, command.data)) is not None:
            self._protocol = protocol
            self._card, said = self._half(chip), command.data
            check_pps(command.data, said)
        elif isinstance(card, T1Card):
            said = card.take(command.data)
        elif isinstance(card, T0Card) and len(command.data) >= 5:
            said, times = run_t0(card, command.data)
            await self._ask_for_time(command, times)
        else:
            said = None
        if said is None:
            return self._answer(command, failed=MUTE)
        if fault is Fault.LOST_BLOCK:
            said = said[:-1] + bytes((said[-1] ^ 0x01,))
        return self._answer(command, said)

    async def _ask_for_time(self, command: Message, times: int) -> None:
        for _ in range(times):
            if self.BUSY:
                await self._line.write(self.BUSY)
            else:
                kind = ANSWERS[command.kind]
                waiting = Message(kind, b"", command.slot, command.seq, bytes((TIME_EXTENSION, 1, 0)))
                await self._line.write(self._envelope.build(waiting))

    def _answer(self, command: Message, data: bytes = b"", *, failed: int | None = None, third: int = 0) -> Message:
        status = Icc.ABSENT if self._chip is None else Icc.ACTIVE if self._active else Icc.INACTIVE
        first = status | (FAILED if failed is not None else 0)
        return Message(ANSWERS[command.kind], data, command.slot, command.seq, bytes((first, failed or 0, third)))

    def _escaped(self, command: Message) -> Message:
        """An escape command, of which each make has its own; the answer says that there is none such."""
        return self._answer(command, failed=UNKNOWN_COMMAND)

    async def _notice(self, signal: Signal) -> None:
        """Tell that a card came or went, where the make does."""


Kept = TypeVar("Kept", bound=CcidEmulator)


@dataclass(frozen=True, slots=True)
class Emulated(Generic[Kept]):
    """A reader that is emulated: its URL for the driver, its line, and the emulator itself."""

    url: str
    line: PtyLine | SocketLine
    reader: Kept


@asynccontextmanager
async def living(url: str, line: PtyLine | SocketLine, reader: Kept) -> AsyncIterator[Emulated[Kept]]:
    """An emulator that answers, for the time of the context; its line is closed with it."""
    life = asyncio.create_task(reader.run())
    try:
        yield Emulated(url, line, reader)
    finally:
        await line.close()
        await life
