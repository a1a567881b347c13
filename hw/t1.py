"""T=1: blocks between a terminal and a contact card, one way at a time (ISO/IEC 7816-3, section 11).

`T1` is the terminal's half as pure generators: each yields an `Ask`, a block to send, and is sent the block that
the card answered, or None where it did not answer.

    t1 = T1(ifsc=atr.ifsc)
    response = yield from t1.exchange(bytes.fromhex("00A4040007A0000000031010"))

Node addresses are zero and blocks end in an LRC, as EMV wants it (EMV 4.3 Book 1, section 9.2.4).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import reduce
from operator import xor
from typing import Final

from construct import Bytes, Checksum, ConstructError, Int8ub, RawCopy, Rebuild, Struct, Terminated, len_, this

from hw.apdu import MAX_RESPONSE
from hw.errors import CardError, FramingError

MAX_INF: Final = 254
"""Bytes in one block; FFh is reserved."""
DEFAULT_IFS: Final = 32
"""What either side takes in one block until it says otherwise."""
TRIES: Final = 3
"""Times that a block is sent before the next measure is taken (rules 7.4.2 and 6.4)."""
MAX_WTX: Final = 600
"""Requests of the card for time, and others, within one exchange; at a second each that is patience enough."""

MORE: Final = 0x20
SEQUENCE: Final = 0x40
_R: Final = 0x80
_S: Final = 0xC0
ANSWER: Final = 0x20
"""The bit that tells an S-block's answer from its request."""

_ADVICE: Final = "Insert the card again; wipe its contacts. If it stays, use another card."


class S(IntEnum):
    """The five lowest bits of an S-block's PCB."""

    RESYNCH = 0
    IFS = 1
    ABORT = 2
    WTX = 3


class R(IntEnum):
    """The four lowest bits of an R-block's PCB."""

    OK = 0
    EDC = 1
    OTHER = 2


_BLOCK: Final = Struct(
    "body"
    / RawCopy(
        Struct("nad" / Int8ub, "pcb" / Int8ub, "size" / Rebuild(Int8ub, len_(this.inf)), "inf" / Bytes(this.size))
    ),
    "lrc" / Checksum(Int8ub, lambda data: reduce(xor, data), this.body.data),
    Terminated,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: PCB and information field."""

    pcb: int
    inf: bytes = field(default=b"", repr=False)
    nad: int = 0

    def encode(self) -> bytes:
        """NAD, PCB, LEN, INF, LRC."""
        return bytes(_BLOCK.build({"body": {"value": {"nad": self.nad, "pcb": self.pcb, "inf": self.inf}}}))

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """The block in these bytes; FramingError for a wrong length or LRC, or a LEN or PCB that there is not."""
        try:
            body = _BLOCK.parse(data).body.value
        except ConstructError:
            raise FramingError(f"{len(data)} bytes came that are no block") from None
        block = cls(body.pcb, body.inf, body.nad)
        if body.size > MAX_INF or not block._is_known():
            raise FramingError(f"a block came with PCB {body.pcb:02X}h and LEN {body.size}")
        return block

    def _is_known(self) -> bool:
        """Tables of section 11.3.2.2: no bit is set that is reserved, and the field is as long as the type says."""
        if self.is_i:
            return not self.pcb & 0x1F
        if self.is_r:
            return not self.pcb & 0x20 and self.pcb & 0x0F <= R.OTHER and not self.inf
        if self.pcb & 0x1F in (S.IFS, S.WTX):
            return len(self.inf) == 1
        return self.pcb & 0x1F in (S.RESYNCH, S.ABORT) and not self.inf

    @property
    def is_i(self) -> bool:
        """An information block."""
        return not self.pcb & 0x80

    @property
    def is_r(self) -> bool:
        """A receive-ready block."""
        return self.pcb & 0xC0 == _R

    @property
    def is_request(self) -> bool:
        """A supervisory block that wants an answer."""
        return self.pcb & 0xE0 == _S

    @property
    def number(self) -> int:
        """N(S) of an I-block, N(R) of an R-block."""
        return int(bool(self.pcb & (SEQUENCE if self.is_i else 0x10)))

    @property
    def more(self) -> bool:
        """Of an I-block: it is not the last of its chain."""
        return bool(self.pcb & MORE)

    def __str__(self) -> str:
        if self.is_i:
            return f"I({self.number}{', more' if self.more else ''}), {len(self.inf)} bytes"
        if self.is_r:
            return f"R({self.number}) {('ok', 'EDC error', 'other error')[self.pcb & 0x03]}"
        way = "request" if self.is_request else "answer"
        return f"S({S(self.pcb & 0x1F).name} {way}){f' {self.inf[0]}' if self.inf else ''}"


def i_block(number: int, inf: bytes, *, more: bool = False) -> Block:
    """Information; ``number`` is N(S), taken modulo 2."""
    return Block((SEQUENCE if number % 2 else 0) | (MORE if more else 0), inf)


def r_block(number: int, kind: R = R.OK) -> Block:
    """Receive ready for the block with N(S) ``number``, taken modulo 2."""
    return Block(_R | (0x10 if number % 2 else 0) | kind)


def s_block(kind: S, inf: bytes = b"", *, answer: bool = False) -> Block:
    """Supervisory request or answer."""
    return Block(_S | (ANSWER if answer else 0) | kind, inf)


@dataclass(frozen=True, slots=True)
class Ask:
    """A block to send; ``waits`` is how many block waiting times the card may take for its answer."""

    block: bytes = field(repr=False)
    waits: int = 1


Asking = Generator[Ask, bytes | None, bytes]
"""Yields what to send; is sent what came, or None; returns the response."""


class T1:
    """The terminal's half of one card's session: sequence numbers and sizes, kept from one exchange to the next."""

    def __init__(self, ifsc: int = DEFAULT_IFS) -> None:
        self._first_ifsc = ifsc
        self._out_of_step = False
        self._begin()

    def _begin(self) -> None:
        self.ifsc, self.ifsd = self._first_ifsc, DEFAULT_IFS
        self._ns = self._nr = 0
        self._requests = 0

    def negotiate(self, ifsd: int = MAX_INF) -> Generator[Ask, bytes | None, None]:
        """Tell the card how much we take in one block. A card that refuses goes on with the default (rule 4)."""
        self._requests = 0
        if (yield from self._supervise(S.IFS, bytes((ifsd,)))):
            self.ifsd = ifsd

    def exchange(self, command: bytes) -> Asking:
        """Send a command APDU, in a chain where it is long, and return the response, put together.

        Raises CardError for a card that cannot be understood. Blocks that went astray are asked for again three
        times; then both sides begin anew (RESYNCH), and the command is sent once more.
        """
        for last in (False, True):
            self._requests = 0
            if self._out_of_step:
                yield from self._resynchronise()
            self._out_of_step = True
            response = yield from self._send_and_receive(command)
            if response is not None:
                self._out_of_step = False
                return response
            if last:
                break
        raise CardError("the card's blocks cannot be understood", advice=_ADVICE)

    def _send_and_receive(self, command: bytes) -> Generator[Ask, bytes | None, bytes | None]:
        """None where the two are out of step."""
        at = 0
        while True:
            # IFSC may have changed since the block before, which is why the next one is cut here.
            inf, at = command[at : at + self.ifsc], at + self.ifsc
            block = i_block(self._ns, inf, more=at < len(command))
            answer = yield from self._ask(block)
            if answer is None:
                return None
            self._ns ^= 1
            if not block.more:
                break
        response = bytearray(answer.inf)
        while answer.more:
            self._nr ^= 1
            answer = yield from self._ask(r_block(self._nr))
            if answer is None:
                return None
            response += answer.inf
            if len(response) > MAX_RESPONSE:
                raise CardError("the card's answer never ends", advice=_ADVICE)
        self._nr ^= 1
        return bytes(response)

    def _ask(self, block: Block) -> Generator[Ask, bytes | None, Block | None]:
        """Send a block until it is answered by what may follow it; None where that is hopeless.

        An I-block that has more after it is followed by R with the next N(R), any other block by I with the number
        that is awaited. The card's requests in between are answered.
        """
        sending, waits, failures = block, 1, 0
        while True:
            came = _decode((yield Ask(sending.encode(), waits)))
            waits = 1
            if came is not None and came.is_request:
                failures = 0
                sending, waits = self._answer(came)
                if came.pcb & 0x1F == S.ABORT:
                    yield Ask(sending.encode())
                    raise CardError("the card broke off", advice=_ADVICE)
                continue
            if came is not None and self._follows(block, came):
                return came
            failures += 1
            if failures == TRIES:
                return None
            if came is not None and came.is_r:  # the card asks for the last block again (rule 7.2 and 7.3)
                sending = block
            elif block.is_r:
                sending = r_block(block.number, R.OTHER if came is not None else R.EDC)
            else:
                sending = r_block(self._nr, R.OTHER if came is not None else R.EDC)

    def _follows(self, sent: Block, came: Block) -> bool:
        if sent.is_i and sent.more:
            return came.is_r and came.number != sent.number
        return came.is_i and came.number == self._nr and len(came.inf) <= self.ifsd

    def _answer(self, request: Block) -> tuple[Block, int]:
        """What a request of the card is answered with, and the waiting times that it is granted."""
        self._requests += 1
        if self._requests > MAX_WTX:
            raise CardError("the card always wants more time", advice=_ADVICE)
        kind = S(request.pcb & 0x1F)
        if kind is S.IFS and 1 <= request.inf[0] <= MAX_INF:
            self.ifsc = request.inf[0]
        if kind is S.RESYNCH:  # only the terminal may ask for that (rule 6.1)
            raise CardError("the card breaks its protocol", advice=_ADVICE)
        return s_block(kind, request.inf, answer=True), max(1, request.inf[0]) if kind is S.WTX else 1

    def _supervise(self, kind: S, inf: bytes = b"") -> Generator[Ask, bytes | None, bool]:
        """Send a request until it is answered; whether it was. The card may ask for time meanwhile."""
        wanted = s_block(kind, inf, answer=True)
        sending, waits, failures = s_block(kind, inf), 1, 0
        while failures < TRIES:
            came = _decode((yield Ask(sending.encode(), waits)))
            if came == wanted:
                return True
            if came is not None and came.is_request and came.pcb & 0x1F == S.WTX:
                sending, waits = self._answer(came)
                continue
            failures += 1
            sending, waits = s_block(kind, inf), 1
        return False

    def _resynchronise(self) -> Generator[Ask, bytes | None, None]:
        self._begin()
        if not (yield from self._supervise(S.RESYNCH)):
            raise CardError("the card does not answer any more", advice=_ADVICE)
        yield from self.negotiate()


def _decode(data: bytes | None) -> Block | None:
    if data is None:
        return None
    try:
        return Block.decode(data)
    except FramingError:
        return None
