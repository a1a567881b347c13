"""What carries CCID messages over a serial line: each make's own few bytes around them.

An `Envelope` says how a frame begins, how long it is and what is around its message. To cut frames out of a
stream, to read them and to mask them is written here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import ClassVar, Final

from construct import Construct, ConstructError

from hw.apdu_trace import command_words, piece_words, response_words
from hw.atr import DIRECT, INVERSE
from hw.ccid import Kind, Message
from hw.errors import FramingError
from hw.masking import asks_for_more, is_in_part, masked_command, masked_response
from hw.t1 import Block, S
from hw.trace import Language


class Signal(Enum):
    """What a frame says that carries no message."""

    NAK = "not understood: send that again"
    ACCEPTED = "accepted"
    WAIT = "the card needs longer"
    INSERTED = "card inserted"
    REMOVED = "card removed"
    DAMAGED = "a damaged frame"


class Envelope(ABC):
    """One make's frames. ``FRAME`` is a construct whose ``body.value.message`` is the CCID message."""

    FRAME: ClassVar[Construct]
    LEAD: ClassVar[bytes]
    """The bytes with which every message's frame begins. Alone they stand for a frame that came damaged."""
    NAK: ClassVar[bytes]
    """What asks the reader for its last answer again."""
    SIGNALS: ClassVar[Mapping[bytes, Signal]]

    @abstractmethod
    def measure(self, head: bytes) -> int | None:
        """Bytes of the frame that begins so, as soon as that is known: None before, 0 where none begins so."""

    def build(self, message: Message) -> bytes:
        """The frame around a message."""
        return bytes(self.FRAME.build({"body": {"value": {"message": message.fields}}}))

    def parse(self, frame: bytes) -> Message | Signal:
        """What a frame says; FramingError where it is none."""
        signal = self.signal(frame)
        if signal is not None:
            return signal
        try:
            found = self.FRAME.parse(frame).body.value.message
        except ConstructError:
            raise FramingError(f"{len(frame)} bytes came that are no frame") from None
        return Message.read(found)

    def signal(self, frame: bytes) -> Signal | None:
        """The signal that a frame is, or None."""
        return Signal.DAMAGED if frame == self.LEAD else self.SIGNALS.get(frame)

    def framer(self) -> Framer:
        """A new framer of this make."""
        return Framer(self)

    def language(self) -> Language:
        """What a trace has to know of one line; it follows the conversation, so each line has its own."""
        told, kept = _Reading(self), _Reading(self)
        return Language(describe=lambda frame: told.read(frame)[1], masked=lambda frame: kept.read(frame)[0])


class Framer:
    """Cuts a stream into one make's frames. Holds one frame at most.

    A frame whose check fails is given as the bytes that it began with, so that it can be asked for again at once;
    the next is looked for behind its beginning, as it may have said a wrong length.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._held = bytearray()
        self.dropped = 0

    @property
    def begun(self) -> bool:
        """Whether it holds the beginning of a frame."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came, in the order of its coming; give the whole frames that it ends."""
        self._held += data
        frames: list[bytes] = []
        lead = self._envelope.LEAD
        while self._held:
            size = self._envelope.measure(bytes(self._held[:16]))
            if size is None or size > len(self._held):
                break
            frame = bytes(self._held[:size])
            if size == 0:
                self._drop(1)
            elif _is_whole(self._envelope, frame):
                frames.append(frame)
                del self._held[:size]
            else:
                frames.append(lead)
                again = self._held.find(lead, 1, size + len(lead) - 1)
                self._drop(again if again > 0 else size)
        return frames

    def reset(self) -> None:
        """Forget what was begun."""
        self._drop(len(self._held))

    def _drop(self, size: int) -> None:
        del self._held[:size]
        self.dropped += size


def _is_whole(envelope: Envelope, frame: bytes) -> bool:
    try:
        envelope.parse(frame)
    except FramingError:
        return False
    return True


_UNREADABLE: Final = "bytes that are no frame"
_ATR: Final = bytes((DIRECT,)), bytes((INVERSE,))
"""How an answer to reset begins."""


class _Reading:
    """Follows one line's conversation: what an answer is depends on what was asked."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._asked = Kind.GET_SLOT_STATUS
        self._blocks = False  # T=1 is spoken
        self._goes_on = False  # the card has not said all of its answer yet
        self._end = b""  # how its blocks ended so far: the status words may be in two of them
        self._chained = False  # nor we of our command
        self._last: Block | None = None  # of ours with information
        self._later = False  # whether that was not the first of its command

    def read(self, frame: bytes) -> tuple[bytes, str]:
        """The frame with nobody's card in it, and what it says."""
        try:
            found = self._envelope.parse(frame)
        except FramingError:
            return self._envelope.LEAD, _UNREADABLE
        if isinstance(found, Signal):
            return frame, found.value
        if not found.kind.is_answer:
            self._asked = found.kind
        if found.kind is Kind.POWER_ON:
            self._goes_on = False
            self._begin()
        words = ""
        if found.kind is Kind.XFR_BLOCK:
            data, words = self._command(found.data)
        elif found.kind is Kind.DATA_BLOCK and self._asked is Kind.XFR_BLOCK and not found.extends_time:
            data, words = self._answer(found.data)
        elif found.kind is Kind.DATA_BLOCK and (self._asked is Kind.XFR_BLOCK or found.data[:1] not in _ATR):
            data = bytes(len(found.data))
        else:
            return frame, str(found)
        masked = self._envelope.build(Message(found.kind, data, found.slot, found.seq, found.specific))
        return masked, f"{found}: {words}" if words else str(found)

    def _command(self, data: bytes) -> tuple[bytes, str]:
        block = _block(data)
        self._blocks = block is not None
        if block is not None:
            return self._sent(block) if block.is_i else self._between(block, data)
        self._goes_on = self._goes_on and asks_for_more(data)
        masked = masked_command(data)
        return masked, command_words(masked)

    def _sent(self, block: Block) -> tuple[bytes, str]:
        """Of a command in pieces the first has its header; what the others have, nobody can say.

        The last one once more, number and all, was sent again or echoed: it is what it was.
        """
        if block != self._last:
            self._last, self._later = block, self._chained
        self._chained = block.more
        if self._later:
            inf = bytes(len(block.inf))
            words = piece_words(len(inf), more=block.more)
        else:
            self._goes_on = self._goes_on and asks_for_more(block.inf)
            inf = masked_command(block.inf)
            words = command_words(inf, more=block.more)
        return Block(block.pcb, inf, block.nad).encode(), f"I({block.number}) {words}"

    def _between(self, block: Block, data: bytes) -> tuple[bytes, str]:
        if not block.is_r and block.pcb & 0x1F == S.RESYNCH:  # after which the command is sent from its beginning
            self._begin()
        return data, str(block)

    def _begin(self) -> None:
        self._last, self._chained, self._later = None, False, False

    def _answer(self, data: bytes) -> tuple[bytes, str]:
        if not self._blocks:
            goes_on, self._goes_on = self._goes_on, is_in_part(data, self._goes_on)
            masked = _piece(data) if goes_on or self._goes_on else masked_response(data)
            return masked, response_words(masked)
        block = _block(data)
        if block is None:
            return bytes(len(data)), ""
        if not block.is_i:
            return data, str(block)
        end = (self._end + block.inf)[-3:]
        self._end = end if block.more else b""
        goes_on, self._goes_on = self._goes_on, block.more or is_in_part(end, self._goes_on)
        inf = _piece(block.inf) if goes_on or self._goes_on else masked_response(block.inf)
        words = piece_words(len(inf), more=True) if block.more else response_words(inf)
        return Block(block.pcb, inf, block.nad).encode(), f"I({block.number}) {words}"


def _piece(data: bytes) -> bytes:
    """A part of an answer, of which nobody can say where its objects begin: nothing of it stays but SW1 and SW2."""
    return bytes(max(0, len(data) - 2)) + data[-2:] if data[-2:-1] in (b"\x61", b"\x90") else bytes(len(data))


def _block(data: bytes) -> Block | None:
    try:
        return Block.decode(data)
    except FramingError:
        return None
