"""CCID messages: what a contact reader is told and what it says, whatever envelope carries them over the line.

    Message(PowerOn, seq=12, specific=bytes((1, 0, 0))).encode()    # 62 00000000 00 0C 010000

A message is ten bytes of header (type, length of the data little-endian, slot, sequence number, three bytes of the
type's own) and its data (USB CCID 1.1, section 6). Nothing here knows of serial lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from construct import Bytes, Check, ConstructError, Int8ub, Int32ul, Rebuild, Struct, Terminated, len_, this

from hw.errors import CardError, CardGone, FramingError, ProtocolError

HEADER: Final = 10
"""Bytes before the data."""
MAX_DATA: Final = 261
"""Bytes of data: the longest is a short command with both its lengths (dwMaxCCIDMessageLength is 271 then)."""


class Kind(IntEnum):
    """bMessageType: commands are 61..7F, answers 80..84 (USB CCID 1.1, tables 6.1-1 and 6.2-1)."""

    SET_PARAMETERS = 0x61
    POWER_ON = 0x62
    POWER_OFF = 0x63
    GET_SLOT_STATUS = 0x65
    SECURE = 0x69
    T0_APDU = 0x6A
    ESCAPE = 0x6B
    GET_PARAMETERS = 0x6C
    RESET_PARAMETERS = 0x6D
    ICC_CLOCK = 0x6E
    XFR_BLOCK = 0x6F
    MECHANICAL = 0x71
    ABORT = 0x72
    SET_RATE = 0x73
    DATA_BLOCK = 0x80
    SLOT_STATUS = 0x81
    PARAMETERS = 0x82
    ESCAPE_ANSWER = 0x83
    RATE = 0x84

    @property
    def is_answer(self) -> bool:
        """Whether the reader sends it."""
        return self >= Kind.DATA_BLOCK

    @property
    def title(self) -> str:
        """As errors and traces call it: ``power on``."""
        return self.name.replace("_", " ").lower()


KINDS: Final = frozenset(Kind)
ANSWERS: Final = {
    Kind.SET_PARAMETERS: Kind.PARAMETERS,
    Kind.POWER_ON: Kind.DATA_BLOCK,
    Kind.POWER_OFF: Kind.SLOT_STATUS,
    Kind.GET_SLOT_STATUS: Kind.SLOT_STATUS,
    Kind.SECURE: Kind.DATA_BLOCK,
    Kind.T0_APDU: Kind.SLOT_STATUS,
    Kind.ESCAPE: Kind.ESCAPE_ANSWER,
    Kind.GET_PARAMETERS: Kind.PARAMETERS,
    Kind.RESET_PARAMETERS: Kind.PARAMETERS,
    Kind.ICC_CLOCK: Kind.SLOT_STATUS,
    Kind.XFR_BLOCK: Kind.DATA_BLOCK,
    Kind.MECHANICAL: Kind.SLOT_STATUS,
    Kind.ABORT: Kind.SLOT_STATUS,
    Kind.SET_RATE: Kind.RATE,
}
"""Which answer a command has (USB CCID 1.1, table 6.1-2)."""


class Icc(IntEnum):
    """bmICCStatus, the two lowest bits of bStatus."""

    ACTIVE = 0
    INACTIVE = 1
    ABSENT = 2


FAILED: Final = 0x40
TIME_EXTENSION: Final = 0x80
"""bmCommandStatus, the two highest bits of bStatus; none of them is success."""

MUTE: Final = 0xFE
ERRORS: Final = {
    0xFF: "the command was aborted",
    MUTE: "the card does not answer",
    0xFD: "the card sends with parity errors",
    0xFC: "the card sends more than the reader can take",
    0xFB: "the reader has a hardware error",
    0xF8: "the card's answer to reset is not what the reader can read",
    0xF7: "the card's answer to reset fails its check",
    0xF6: "the reader does not know the card's protocol",
    0xF5: "the reader does not know the card's class",
    0xF4: "the card breaks its protocol",
    0xF3: "the card was deactivated by the reader's own program",
    0xF2: "the reader is busy with a sequence of its own",
    0xE0: "the slot is busy",
    0x05: "there is no such slot",
    0x00: "the reader does not know the command",
}
"""bError of a command that failed; below 80h it is the place of the byte objected to (table 6.2-2)."""

MESSAGE: Final = Struct(
    "kind" / Int8ub,
    "length" / Rebuild(Int32ul, len_(this.data)),
    "in_reason" / Check(this.length <= MAX_DATA),
    "slot" / Int8ub,
    "seq" / Int8ub,
    "specific" / Bytes(3),
    "data" / Bytes(this.length),
)
"""One message; envelopes build and parse it with `Message.fields` and `Message.read`."""
_WHOLE: Final = MESSAGE + Terminated


@dataclass(frozen=True, slots=True)
class Message:
    """One command or answer. ``specific`` are bytes 7 to 9; of an answer they are bStatus, bError and one more."""

    kind: Kind
    data: bytes = field(default=b"", repr=False)
    slot: int = 0
    seq: int = 0
    specific: bytes = bytes(3)

    def encode(self) -> bytes:
        """Header and data; ProtocolError where the data is more than a reader takes."""
        return bytes(MESSAGE.build(self.fields))

    @property
    def fields(self) -> dict[str, object]:
        """What `MESSAGE` is built of; ProtocolError where the data is more than a reader takes."""
        if len(self.data) > MAX_DATA:
            raise ProtocolError(f"{len(self.data)} bytes are more than one message carries ({MAX_DATA})")
        fields = {"kind": self.kind, "slot": self.slot, "seq": self.seq, "specific": self.specific}
        return {**fields, "data": self.data}

    @classmethod
    def read(cls, found: Any) -> Message:
        """The message that `MESSAGE` has parsed; FramingError for a type that there is not."""
        if found.kind not in KINDS:
            raise FramingError(f"a message came of type {found.kind:02X}h, which there is not")
        return cls(Kind(found.kind), found.data, found.slot, found.seq, found.specific)

    @classmethod
    def decode(cls, message: bytes) -> Message:
        """The message in these bytes; FramingError where they are none."""
        try:
            return cls.read(_WHOLE.parse(message))
        except ConstructError:
            raise FramingError(f"{len(message)} bytes came that are no CCID message") from None

    @property
    def icc(self) -> Icc | None:
        """Of an answer: what is in the slot; None for what the standard does not know."""
        return Icc(self.specific[0] & 0x03) if self.specific[0] & 0x03 < 3 else None

    @property
    def extends_time(self) -> bool:
        """Of an answer: the card needs longer, and ``specific[1]`` says how many waiting times."""
        return self.specific[0] & 0xC0 == TIME_EXTENSION

    @property
    def failed(self) -> bool:
        """Of an answer: the command was not carried out, and ``specific[1]`` says why."""
        return self.specific[0] & 0xC0 not in (0, TIME_EXTENSION)

    @property
    def why(self) -> str:
        """Of an answer that failed: the reason in words."""
        return ERRORS.get(self.specific[1], f"the reader's error is {self.specific[1]:02X}h")

    def check(self, name: str) -> Message:
        """The answer itself where it is a success; else CardGone, or CardError. ``name`` is the reader."""
        if self.icc is Icc.ABSENT and self.kind is not Kind.ESCAPE_ANSWER:
            raise CardGone(f"{name}: the card was taken away")
        if self.failed:
            raise CardError(f"{name}: {self.why}", advice="Insert the card again, chip first and to the end.")
        return self

    def __str__(self) -> str:
        said = f"{self.kind.title}, slot {self.slot}, seq {self.seq}"
        if self.kind.is_answer:
            card = {Icc.ACTIVE: "card active", Icc.INACTIVE: "card present", Icc.ABSENT: "no card"}
            said += f", {card[self.icc] if self.icc is not None else 'card unknown'}"
            said += f", failed: {self.why}" if self.failed else ""
            said += ", time extension" if self.extends_time else ""
        return said + (f", {len(self.data)} bytes" if self.data else "")


def measure(head: bytes) -> int | None:
    """Bytes of the message that begins so, as soon as that is known: None before, 0 where it is none.

    A type that there is not, or a length beyond `MAX_DATA`, is told as early as the bytes tell it.
    """
    if head[:1] and head[0] not in KINDS:
        return 0
    length = int.from_bytes(head[1:5], "little")
    if length > MAX_DATA:
        return 0
    return HEADER + length if len(head) >= 5 else None
