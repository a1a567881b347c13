"""Frames of ID TECH's ViVOpay and NEO readers, protocol 2 (Kiosk V User Manual, NEO 2 Developer's Guide).

    command   ViVOtech2 00  command  sub-command  length(2)  data  CRC(2)     the CRC's low byte first, but for some
    answer    ViVOtech2 00  command  status       length(2)  data  CRC(2)     the CRC's high byte first
    event     45 00 55                            length(2)  data  CRC(2)     burst mode: lights, sounds, messages
    payload   01  status  application  %T1? ;T2? ;T3?              CRC(2)     burst mode: a card; no length at all

The CRC is CRC-16/CCITT-FALSE over everything before it. A frame whose CRC is right in either order is taken:
the guide contradicts itself on who sends which.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from construct import Bytes, Const, GreedyBytes, Int8ub, Int16ub, Prefixed, Rebuild, Struct, Terminated, len_, this

from hw.errors import FramingError

Order = Literal["little", "big"]

HEADER: Final = b"ViVOtech2\0"
EVENT: Final = b"\x45\x00\x55"
MAX_DATA: Final = 4096
"""Bytes of data: the longest answers (a card's result, a whole configuration) stay far below."""
MAX_FRAME: Final = len(HEADER) + 4 + MAX_DATA + 2
MAX_EVENT: Final = 64
"""Bytes of an event's data: four for each light, sound or message that changes."""
MAX_PAYLOAD: Final = 256
"""Bytes of a payload: three full tracks (79, 40 and 107 with their sentinels) and seven around them."""
GAP: Final = 1.0
"""Seconds of silence inside a frame after which the rest will not come: adapters hold bytes back for 16 ms, a
network for some hundreds."""

MESSAGE: Final = Struct(
    "header" / Const(HEADER),
    "command" / Int8ub,
    "code" / Int8ub,
    "size" / Rebuild(Int16ub, len_(this.data)),
    "data" / Bytes(this.size),
    Terminated,
)
BURST_EVENT: Final = Struct("start" / Const(EVENT), "data" / Prefixed(Int16ub, GreedyBytes), Terminated)
BURST_PAYLOAD: Final = Struct(
    "start" / Const(b"\1"), "status" / Int8ub, "application" / Int8ub, "tracks" / GreedyBytes, Terminated
)
"""All three without their CRC."""

HIGH_FIRST: Final[frozenset[tuple[int, int | None]]] = frozenset(
    {(0x2C, None), (0x0B, None), (0x19, 0x16), (0x90, 0x07)}
)
"""Commands whose CRC goes with its high byte first, by command and sub-command (None: all of them)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A command or an answer. ``code`` is the sub-command of the one and the status of the other."""

    command: int
    code: int
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class BurstEvent:
    """Lights, sounds and messages that the reader changed: four bytes each, kind first."""

    data: bytes


@dataclass(frozen=True, slots=True)
class BurstPayload:
    """A card in burst mode: how it was read, what it is, and its tracks with their sentinels."""

    status: int
    application: int
    tracks: bytes = field(repr=False)


Frame = Message | BurstEvent | BurstPayload

MSR_APPLICATION: Final = 0x0C
"""`BurstPayload.application` of a card that was swiped; the others were held to the reader."""


def crc(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 1021, first value FFFF, nothing reflected."""
    return crc_hqx(data, 0xFFFF)


def command_order(command: int, code: int) -> Order:
    """In which order a command's CRC is sent."""
    return "big" if {(command, None), (command, code)} & HIGH_FIRST else "little"


def build_command(command: int, code: int, data: bytes = b"", order: Order | None = None) -> bytes:
    """A command's frame; ``order`` where it is not to be the command's own."""
    return _closed(_message(Message(command, code, data)), order or command_order(command, code))


def build_answer(command: int, status: int, data: bytes = b"") -> bytes:
    """An answer's frame."""
    return _closed(_message(Message(command, status, data)), "big")


def build_event(data: bytes) -> bytes:
    """A burst mode event's frame."""
    return _closed(bytes(BURST_EVENT.build({"data": data})), "big")


def build_payload(payload: BurstPayload) -> bytes:
    """A burst mode card's frame."""
    fields = {"status": payload.status, "application": payload.application, "tracks": payload.tracks}
    return _closed(bytes(BURST_PAYLOAD.build(fields)), "big")


def _message(message: Message) -> bytes:
    if len(message.data) > MAX_DATA:
        raise FramingError(f"{len(message.data)} bytes are more than a frame carries ({MAX_DATA})")
    return bytes(MESSAGE.build({"command": message.command, "code": message.code, "data": message.data}))


def _closed(body: bytes, order: Order) -> bytes:
    return body + crc(body).to_bytes(2, order)


def crc_order(frame: bytes) -> Order | None:
    """In which order a frame's last two bytes are the CRC of the rest; None where they are not."""
    value = crc(frame[:-2])
    if frame[-2:] == value.to_bytes(2, "big"):
        return "big"
    return "little" if frame[-2:] == value.to_bytes(2, "little") else None


def parse(frame: bytes) -> Frame:
    """What a frame says; FramingError for what is none."""
    if len(frame) < 5 or crc_order(frame) is None or _measure(frame) != len(frame):
        raise FramingError(f"{len(frame)} bytes came that are no frame of a ViVOpay reader")
    body = frame[:-2]
    if frame[:1] == HEADER[:1]:
        found = MESSAGE.parse(body)
        return Message(found.command, found.code, found.data)
    if frame[:1] == EVENT[:1]:
        return BurstEvent(BURST_EVENT.parse(body).data)
    found = BURST_PAYLOAD.parse(body)
    return BurstPayload(found.status, found.application, found.tracks)


def is_command(frame: bytes, message: Message) -> bool:
    """Whether the host sent it: told by the order of its CRC, and where that says nothing by its data."""
    if crc_order(frame) == "little":
        return True
    if command_order(message.command, message.code) == "little":
        return False
    return bool(message.code) and (bool(message.data) or message.code == 0x18)


def _measure(data: bytes | bytearray) -> int:
    """Bytes of the frame that begins here: 0 while that is not known yet, -1 where none does."""
    first = data[:1]
    if first == HEADER[:1]:
        return _counted(data, HEADER, len(HEADER) + 2, MAX_DATA)
    if first == EVENT[:1]:
        return _counted(data, EVENT, len(EVENT), MAX_EVENT)
    if first == b"\1":
        return _payload(data)
    return -1


def _counted(data: bytes | bytearray, start: bytes, at: int, most: int) -> int:
    if data[: len(start)] != start[: len(data)]:
        return -1
    if len(data) < at + 2:
        return 0
    size = int.from_bytes(data[at : at + 2], "big")
    return at + 4 + size if size <= most else -1


def _payload(data: bytes | bytearray) -> int:
    """It ends behind an end sentinel, where the CRC is right. Only the CRC may be no character of a track."""
    if data[1:2] not in (b"", b"\0") or data[3:4] not in (b"", b"%", b";"):
        return -1
    other = _NO_CHARACTER.search(data, 3)
    last = min(other.start() if other else len(data), MAX_PAYLOAD - 2)
    for end in re.finditer(rb"\?", data[:last]):
        stop = end.end() + 2
        if stop <= len(data) and crc_order(bytes(data[:stop])) is not None:
            return stop
    settled = len(data) >= MAX_PAYLOAD or (other is not None and not _may_end(data, other.start()))
    return -1 if settled else 0


def _may_end(data: bytes | bytearray, at: int) -> bool:
    """Whether the byte there may be the CRC's first, and its second is still to come."""
    return data[at - 1 : at] == b"?" and len(data) < at + 2


_NO_CHARACTER: Final = re.compile(rb"[^ -_]")
_STARTS: Final = re.compile(rb"[VE\x01]")


class Framer:
    """Cuts what comes into frames with a right CRC; holds one frame at most. See `hw.wire.Framer`.

    What looks like a frame and fails its CRC is gone through again from its second byte. With a ``clock``
    (seconds) so is a frame in which nothing came for `GAP`: its length was wrong. What looks like a frame inside
    a good one is data.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.dropped = 0
        self._held = bytearray()
        self._clock, self._last = clock, 0.0

    @property
    def begun(self) -> bool:
        """Whether it holds the beginning of a frame."""
        return bool(self._held)

    @property
    def held(self) -> int:
        """Bytes of a frame that was begun."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """See `hw.wire.Framer`."""
        frames: list[bytes] = []
        if self._clock is not None:
            now = self._clock()
            if self._held and now - self._last > GAP:
                self._drop(1)
                while self._held:  # what the pause leaves unfinished will never be whole
                    self._cut(frames)
                    self._drop(1)
            self._last = now
        self._held += data
        self._cut(frames)
        return frames

    def reset(self) -> None:
        """See `hw.wire.Framer`."""
        self._drop(len(self._held))

    def _cut(self, frames: list[bytes]) -> None:
        held = self._held
        while held:
            size = _measure(held)
            if size > 0 and len(held) < size:
                return
            if size > 0 and crc_order(bytes(held[:size])) is not None:
                frames.append(bytes(held[:size]))
                del held[:size]
            elif size == 0:
                return
            else:
                found = _STARTS.search(held, 1)
                self._drop(found.start() if found else len(held))

    def _drop(self, count: int) -> None:
        count = min(count, len(self._held))
        self.dropped += count
        del self._held[:count]


COMMANDS: Final[Mapping[tuple[int, int], str]] = {
    (0x01, 0x01): "set poll mode",
    (0x01, 0x02): "control user interface",
    (0x02, 0x01): "activate transaction (legacy)",
    (0x02, 0x40): "activate transaction",
    (0x03, 0x00): "get transaction result (legacy)",
    (0x03, 0x02): "get configuration",
    (0x03, 0x03): "update balance",
    (0x03, 0x40): "get transaction result",
    (0x04, 0x00): "set configuration",
    (0x05, 0x01): "cancel transaction",
    (0x05, 0x02): "stop transaction",
    (0x09, 0x20): "get module information",
    (0x0A, 0x03): "lights",
    (0x0B, 0x01): "short beeps",
    (0x0B, 0x02): "long beep",
    (0x18, 0x01): "ping",
    (0x29, 0x00): "get firmware version",
    (0x2C, 0x01): "pass-through mode",
    (0x2C, 0x02): "poll for a card",
    (0x2C, 0x03): "exchange contactless data",
    (0x2C, 0x12): "get answer to reset",
    (0x2C, 0x13): "exchange APDU",
    (0x2C, 0x18): "contact power off",
    (0x60, 0x06): "contact: set terminal data",
    (0x60, 0x10): "contact: start transaction",
    (0x60, 0x11): "contact: authenticate",
    (0x60, 0x12): "contact: apply host response",
    (0x60, 0x16): "contact: set configuration",
    (0x61, 0x01): "the reader asks for the display",
    (0x61, 0x02): "the reader asks for a PIN",
    (0x61, 0x03): "the reader asks for a swipe",
    (0x61, 0x11): "list screens",
    (0x61, 0x13): "query screen",
    (0x61, 0x17): "query system screen",
    (0x83, 0x50): "get light sensor",
}
"""Command and sub-command -> what it is for."""

FAMILIES: Final[Mapping[int, str]] = {
    0x01: "user interface",
    0x02: "transaction",
    0x03: "result",
    0x04: "configuration",
    0x05: "call off",
    0x09: "module",
    0x0A: "lights",
    0x0B: "buzzer",
    0x18: "ping",
    0x29: "firmware",
    0x2C: "pass-through",
    0x60: "contact",
    0x61: "screen",
    0x62: "PIN pad",
    0x83: "device",
}
"""Command -> what its answers, which do not repeat the sub-command, are about."""
