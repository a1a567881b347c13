"""Frames of the NXP PN532 over HSU, its serial port (NXP UM0701-02, section 6.2.1).

    normal     00  00 FF  LEN LCS            TFI PD0..PDn  DCS  00      LEN: 1 to 255 bytes of TFI and PD
    extended   00  00 FF  FF FF  LEN(2) LCS  TFI PD0..PDn  DCS  00      LEN: up to 265
    ACK        00  00 FF  00 FF  00
    NACK       00  00 FF  FF 00  00
    error      00  00 FF  01 FF  7F  81  00

LEN and LCS add up to zero modulo 256, as do TFI, PD and DCS. TFI is D4 from the host and D5 from the chip. Any
number of zeros may stand before a frame, and in the chip's "no amble" mode none stands after it.

A frame's payload is what stands between its length and its DCS, so it begins with TFI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from construct import (
    Bytes,
    Check,
    Const,
    Construct,
    ConstructError,
    Int8ub,
    Int16ub,
    Rebuild,
    Struct,
    Terminated,
    this,
)

from hw.errors import FramingError

START: Final = b"\x00\xff"
ACK: Final = bytes.fromhex("0000ff00ff00")
NACK: Final = bytes.fromhex("0000ffff0000")
ERROR: Final = bytes.fromhex("0000ff01ff7f8100")
"""The chip did not understand the command."""
BROKEN: Final = b""
"""Stands for a frame that came whole by its length and whose DCS is wrong: one that may be asked for again."""

WAKE_UP: Final = bytes.fromhex("5555" + "00" * 14)
"""Sent right before the first command: the chip sleeps until the line moves, and loses what comes meanwhile."""

FROM_HOST: Final = 0xD4
FROM_CHIP: Final = 0xD5
REFUSED: Final = 0x7F

NORMAL_LIMIT: Final = 255
"""Bytes of the longest payload of a normal frame."""
PAYLOAD_LIMIT: Final = 265
"""Bytes of the longest payload of an extended frame (UM0701-02, section 6.2.1.2)."""
FRAME_LIMIT: Final = PAYLOAD_LIMIT + 10

DIAGNOSE: Final = 0x00
GET_FIRMWARE_VERSION: Final = 0x02
GET_GENERAL_STATUS: Final = 0x04
READ_REGISTER: Final = 0x06
WRITE_REGISTER: Final = 0x08
SET_SERIAL_BAUD_RATE: Final = 0x10
SET_PARAMETERS: Final = 0x12
SAM_CONFIGURATION: Final = 0x14
POWER_DOWN: Final = 0x16
RF_CONFIGURATION: Final = 0x32
IN_DATA_EXCHANGE: Final = 0x40
IN_COMMUNICATE_THRU: Final = 0x42
IN_DESELECT: Final = 0x44
IN_LIST_PASSIVE_TARGET: Final = 0x4A
IN_RELEASE: Final = 0x52
IN_SELECT: Final = 0x54
IN_AUTO_POLL: Final = 0x60

NAMES: Final[Mapping[int, str]] = {
    DIAGNOSE: "Diagnose",
    GET_FIRMWARE_VERSION: "GetFirmwareVersion",
    GET_GENERAL_STATUS: "GetGeneralStatus",
    READ_REGISTER: "ReadRegister",
    WRITE_REGISTER: "WriteRegister",
    SET_SERIAL_BAUD_RATE: "SetSerialBaudRate",
    SET_PARAMETERS: "SetParameters",
    SAM_CONFIGURATION: "SAMConfiguration",
    POWER_DOWN: "PowerDown",
    RF_CONFIGURATION: "RFConfiguration",
    IN_DATA_EXCHANGE: "InDataExchange",
    IN_COMMUNICATE_THRU: "InCommunicateThru",
    IN_DESELECT: "InDeselect",
    IN_LIST_PASSIVE_TARGET: "InListPassiveTarget",
    IN_RELEASE: "InRelease",
    IN_SELECT: "InSelect",
    IN_AUTO_POLL: "InAutoPoll",
}
"""Command -> its name in the manual (UM0701-02, table 12); an answer's code is its command's and one."""

BAUD_CODES: Final[Mapping[int, int]] = {
    9600: 0, 19200: 1, 38400: 2, 57600: 3, 115200: 4, 230400: 5, 460800: 6, 921600: 7,
}  # fmt: skip
"""Speeds of the serial port by SetSerialBaudRate's code (section 7.2.7); 1,288,000 is none that a host has."""

NO_AMBLE: Final = 0x40
"""In SetParameters: no zeros before and after frames (section 7.2.9)."""
MORE: Final = 0x40
"""In the target or the status of InDataExchange: the data goes on in another frame (section 7.3.8)."""
STATUS: Final = 0x3F
"""The error code in a status."""

STATUSES: Final[Mapping[int, str]] = {
    0x00: "success",
    0x01: "timeout, the target has not answered",
    0x02: "CRC error",
    0x03: "parity error",
    0x04: "wrong bit count in anticollision",
    0x05: "MIFARE framing error",
    0x06: "collision",
    0x07: "buffer too small",
    0x09: "RF buffer overflow",
    0x0A: "RF field not on in time",
    0x0B: "RF protocol error",
    0x0D: "overheated",
    0x0E: "internal buffer overflow",
    0x10: "invalid parameter",
    0x12: "DEP command not supported",
    0x13: "DEP data format",
    0x14: "MIFARE authentication",
    0x23: "wrong UID check byte",
    0x25: "DEP: not in this state",
    0x26: "not allowed in this configuration",
    0x27: "wrong context",
    0x29: "released by its initiator",
    0x2A: "wrong card ID",
    0x2B: "the card was exchanged",
    0x2C: "wrong NFCID3",
    0x2D: "over-current",
    0x2E: "NAD missing",
}
"""Error code -> what it means (UM0701-02, section 7.1)."""


def _adds_up(*fields: Any) -> Any:
    def check(context: Any) -> bool:
        total = 0
        for name in fields:
            value = context[name]
            total += value if isinstance(value, int) else sum(value)
        return total & 0xFF == 0

    return check


_BODY: Final = (
    "payload" / Bytes(this.length),
    "dcs" / Rebuild(Int8ub, lambda context: -sum(context.payload) & 0xFF),
    Check(_adds_up("payload", "dcs")),
    Const(b"\x00"),
    Terminated,
)
_HEAD: Final = Const(b"\x00" + START)

NORMAL: Final[Construct] = Struct(
    _HEAD,
    "length" / Rebuild(Int8ub, lambda context: len(context.payload)),
    "lcs" / Rebuild(Int8ub, lambda context: -context.length & 0xFF),
    Check(lambda context: context.length > 0 and (context.length + context.lcs) & 0xFF == 0),
    *_BODY,
)
EXTENDED: Final[Construct] = Struct(
    _HEAD,
    Const(b"\xff\xff"),
    "length" / Rebuild(Int16ub, lambda context: len(context.payload)),
    "lcs" / Rebuild(Int8ub, lambda context: -sum(divmod(context.length, 256)) & 0xFF),
    Check(lambda context: 0 < context.length <= PAYLOAD_LIMIT),
    Check(lambda context: (sum(divmod(context.length, 256)) + context.lcs) & 0xFF == 0),
    *_BODY,
)


def build(payload: bytes, *, extended: bool = False) -> bytes:
    """The frame of a payload; an extended one where it has to be, or is asked for.

    Raises FramingError for a payload that no frame holds.
    """
    if not 0 < len(payload) <= PAYLOAD_LIMIT:
        raise FramingError(f"a frame of the PN532 holds 1 to {PAYLOAD_LIMIT} bytes, not {len(payload)}")
    form = EXTENDED if extended or len(payload) > NORMAL_LIMIT else NORMAL
    frame: bytes = form.build({"payload": payload})
    return frame


def parse(frame: bytes) -> bytes:
    """The payload of a whole frame that is neither ACK nor NACK; raises FramingError."""
    form = EXTENDED if frame[3:5] == b"\xff\xff" else NORMAL
    try:
        payload: bytes = form.parse(frame).payload
    except ConstructError:  # whose own words carry the bytes along
        payload = b""
    if not payload:
        raise FramingError(f"{len(frame)} bytes came that are no frame of a PN532")
    return payload


def payload(frame: bytes) -> bytes:
    """The payload of a frame that a `Framer` gave, which has checked it."""
    return frame[8 if frame[3:5] == b"\xff\xff" else 5 : -2]


def command(code: int, data: bytes = b"", *, extended: bool = False) -> bytes:
    """The frame of a command to the chip."""
    return build(bytes((FROM_HOST, code)) + data, extended=extended)


def answer(code: int, data: bytes = b"", *, extended: bool = False) -> bytes:
    """The frame of the chip's answer to the command with this code."""
    return build(bytes((FROM_CHIP, code + 1 & 0xFF)) + data, extended=extended)


class Framer:
    """Cuts a stream into frames: checked, each with one zero before and one after; `BROKEN` for a bent one.

    A frame is given as soon as its DCS is there, or once it is ``ambled`` with the zero behind it. A zero that the
    line has lost is not noticed otherwise: the DCS is taken for data then, that last zero for the DCS, and the sums
    are right. What only looks like the beginning of a frame is looked through
    again for one, so that nothing is lost behind it. Holds `FRAME_LIMIT` bytes at most.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.ambled = False
        self._held = bytearray()

    @property
    def begun(self) -> bool:
        """Whether it holds the beginning of a frame: more than zeros, which may stand anywhere."""
        return len(self._held) > 1

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came, in the order of its coming; give the frames that it ends."""
        frames: list[bytes] = []
        held = self._held
        for at in range(0, len(data), FRAME_LIMIT):
            held += data[at : at + FRAME_LIMIT]
            self._cut(frames)
        return frames

    def reset(self) -> None:
        """Forget what was begun."""
        self._held.clear()

    def _cut(self, frames: list[bytes]) -> None:
        held = self._held
        while True:
            start = held.find(START)
            if start < 0:
                self._skip(len(held) - held.endswith(START[:1]))
                return
            self._skip(start)
            size = _size(held)
            if size is None:
                return
            if size == 0:
                self._skip(1)
                continue
            if len(held) < size:
                return
            acknowledges = size == len(ACK) - 2
            good = acknowledges or sum(held[_body(held) : size]) & 0xFF == 0
            if good and self.ambled and not acknowledges:
                if len(held) == size:
                    return
                good = held[size] == 0
            if good:
                frames.append(b"\0" + bytes(held[:size]) + b"\0")
                del held[:size]
            else:
                frames.append(BROKEN)
                self._skip(1)

    def _skip(self, count: int) -> None:
        """Zeros between frames are nobody's; anything else was no part of one."""
        self.dropped += count - self._held.count(0, 0, count)
        del self._held[:count]


def _body(held: bytearray) -> int:
    """Where the payload begins behind a start code."""
    return 7 if held[2:4] == b"\xff\xff" else 4


def _size(held: bytearray) -> int | None:
    """Bytes of the frame that begins here, from start code to DCS; None: too early to say; 0: it is none."""
    if len(held) < 4:
        return None
    length, check = held[2], held[3]
    if (length, check) in ((0x00, 0xFF), (0xFF, 0x00)):
        return 4
    body = _body(held)
    if body == 7:
        if len(held) < 7:
            return None
        length = held[4] << 8 | held[5]
        if length > PAYLOAD_LIMIT or (held[4] + held[5] + held[6]) & 0xFF:
            return 0
    elif (length + check) & 0xFF:
        return 0
    if length == 0:
        return 0
    if len(held) == body:
        return None
    known = held[body] in (FROM_HOST, FROM_CHIP) and length > 1
    return body + length + 1 if known or (held[body] == REFUSED and length == 1) else 0
