"""A chip card's own half of T=0 and T=1: what a contact reader has on its other side.

Each takes a card that answers whole APDUs, and speaks the protocol for it as the card's operating system does,
wait requests and repetitions included (ISO/IEC 7816-3). Not modelled: voltage, clock, parity, and real time.
"""

from __future__ import annotations

from typing import Final, Protocol

from hw.apdu import Command
from hw.atr import PPSS, parse_atr
from hw.errors import CardError, FramingError, ProtocolError
from hw.t0 import HEADER, NULL, characters
from hw.t1 import DEFAULT_IFS, MAX_INF, Block, R, S, i_block, r_block, s_block

GET_RESPONSE: Final = 0xC0
TAKES_DATA: Final = frozenset((0x0E, 0x16, 0x18, 0x1E, 0x20, 0x24, 0x2A, 0x2C, 0x82, 0x88, 0xA4, 0xA8, 0xAE))
"""Instructions that bring data: a card knows that of each of its own, as T=0 does not say it."""
LARGEST_COMMAND: Final = 65_544


class Chip(Protocol):
    """A card that answers APDUs: a command's bytes in, data and status words out."""

    @property
    def atr(self) -> bytes:
        """Its answer to reset."""

    def transmit(self, apdu: bytes) -> bytes:
        """One command, answered."""


class T0Card:
    """The card's half of T=0. ``nulls`` is how often it asks for time before each answer."""

    def __init__(self, chip: Chip, nulls: int = 0) -> None:
        self._chip, self.nulls = chip, nulls
        self._header = bytearray()
        self._wanted = HEADER
        self._held = b""  # what GET RESPONSE fetches: data, and the status words that go with its end

    def take(self, data: bytes) -> bytes:
        """Bytes from the reader; what the card says to them, which may be nothing yet."""
        self._header += data
        if len(self._header) < self._wanted:
            return b""
        ins, p3 = self._header[1], self._header[4]
        if self._wanted == HEADER and ins in TAKES_DATA and p3:
            self._wanted += p3
            return bytes((ins,))
        tpdu = bytes(self._header)
        self._header.clear()
        self._wanted = HEADER
        said = self._answer(tpdu)
        return bytes((NULL,)) * self.nulls + (said if len(said) == 2 else bytes((ins,)) + said)

    def _answer(self, tpdu: bytes) -> bytes:
        wanted = tpdu[4] or 256
        if tpdu[1] == GET_RESPONSE:
            return self._fetch(wanted) if self._held else b"\x69\x85"
        if len(tpdu) > HEADER:
            said = answered(self._chip, tpdu + b"\0")
            if len(said) == 2:
                return said
            self._held = said
            return self._more()
        said = answered(self._chip, tpdu)
        if len(said) == 2 or len(said) - 2 == wanted:
            return said
        if len(said) - 2 <= 256:
            return bytes((0x6C, (len(said) - 2) % 256))
        self._held = said
        return self._fetch(wanted)

    def _fetch(self, wanted: int) -> bytes:
        left = len(self._held) - 2
        if wanted > left:
            return bytes((0x6C, left % 256))
        data, self._held = self._held[:wanted], self._held[wanted:]
        if len(self._held) > 2:
            return data + self._more()
        data, self._held = data + self._held, b""
        return data

    def _more(self) -> bytes:
        left = len(self._held) - 2
        return bytes((0x61, left if left < 256 else 0))


def run_t0(card: T0Card, tpdu: bytes) -> tuple[bytes | None, int]:
    """What a reader's own program does with a TPDU: the card's answer, None where it is mute or nonsense.

    And how often the card asked for time.
    """
    line = characters(tpdu)
    waiting, times = bytearray(), 0
    try:
        sending = next(line)
        while True:
            if sending is None:
                times += 1
            elif sending:
                waiting += card.take(sending)
            if not waiting:
                return None, times
            sending = line.send(waiting.pop(0))
    except StopIteration as done:
        return bytes(done.value), times
    except CardError:
        return None, times


class T1Card:
    """The card's half of T=1. ``wtx`` are multipliers that it asks for, one before each of its answers to come.

    ``ifsc`` is asked for before the first answer, where it is not zero; ``abort`` breaks the next chain off.
    """

    def __init__(self, chip: Chip, ifsc: int = 0) -> None:
        self._chip, self._ifsc = chip, ifsc
        self.wtx: list[int] = []
        self.abort = False
        self._begin()

    def _begin(self) -> None:
        self._ifsd = DEFAULT_IFS
        self._ns = self._nr = 0
        self._command = bytearray()
        self._pending: bytes | None = None  # of the answer, what was not acknowledged yet
        self._last: Block | None = None

    def take(self, data: bytes) -> bytes:
        """A block from the reader, and the card's."""
        try:
            block = Block.decode(data)
        except FramingError:
            return self._say(r_block(self._nr, R.EDC), keep=False)
        if block.is_i:
            return self._information(block)
        if block.is_r:
            return self._ready(block)
        return self._supervised(block)

    def _say(self, block: Block, *, keep: bool = True) -> bytes:
        if keep:
            self._last = block
        return block.encode()

    def _information(self, block: Block) -> bytes:
        if block.number != self._nr or (self._pending is not None and len(self._pending) > self._ifsd):
            return self._say(r_block(self._nr, R.OTHER), keep=False)
        if self._pending is not None:  # acknowledged by what comes next
            self._ns ^= 1
            self._pending = None
        self._nr ^= 1
        self._command += block.inf
        if block.more and len(self._command) <= LARGEST_COMMAND:
            return self._say(r_block(self._nr))
        command = bytes(self._command)
        self._command.clear()
        self._pending = answered(self._chip, command)
        return self._information_or_request()

    def _information_or_request(self) -> bytes:
        if self._ifsc:
            size, self._ifsc = self._ifsc, 0
            return self._say(s_block(S.IFS, bytes((size,))))
        if self.wtx:
            return self._say(s_block(S.WTX, bytes((self.wtx.pop(0),))))
        if self.abort:
            self.abort = False
            return self._say(s_block(S.ABORT))
        assert self._pending is not None
        more = len(self._pending) > self._ifsd
        return self._say(i_block(self._ns, self._pending[: self._ifsd], more=more))

    def _ready(self, block: Block) -> bytes:
        last = self._last
        if last is None:
            return self._say(r_block(self._nr, R.OTHER), keep=False)
        if not last.is_i or block.number == last.number:
            return self._say(last)
        if not last.more or self._pending is None:  # it took our answer, and we have nothing of what it sent then
            return self._say(r_block(self._nr, R.OTHER), keep=False)
        self._pending = self._pending[self._ifsd :]
        self._ns ^= 1
        return self._information_or_request()

    def _supervised(self, block: Block) -> bytes:
        kind = S(block.pcb & 0x1F)
        if not block.is_request:
            if kind is S.ABORT:
                self._pending = None
                return self._say(r_block(self._nr))
            return self._information_or_request() if self._pending is not None else self._say(r_block(self._nr))
        if kind is S.RESYNCH:
            self._begin()
        if kind is S.IFS and 1 <= block.inf[0] <= MAX_INF:
            self._ifsd = block.inf[0]
        return self._say(s_block(kind, block.inf, answer=True))


def answers_pps(chip: Chip, data: bytes) -> int | None:
    """The protocol that a request asks for and the card offers; None where there is none such."""
    if data[:1] != bytes((PPSS,)) or len(data) < 3:
        return None
    wanted = data[1] & 0x0F
    return wanted if wanted in parse_atr(chip.atr).protocols else None


def answered(chip: Chip, data: bytes) -> bytes:
    """What a card says to these bytes: 6700 where they are no command, 6F00 where it has no status words to say."""
    try:
        Command.decode(data)
    except ProtocolError:
        return b"\x67\x00"
    said = chip.transmit(data)
    return said if len(said) >= 2 else b"\x6f\x00"
