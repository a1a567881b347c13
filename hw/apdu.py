"""Commands and responses of chip cards (ISO/IEC 7816-4, section 5): what every reader carries.

    SELECT = Command(0x00, 0xA4, 0x04, 0x00, b"2PAY.SYS.DDF01", le=256)
    SELECT.encode().hex()      # 00a404000e325041592e5359532e444446303100

What the bytes mean to a payment is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from hw.errors import CardError, ProtocolError

SHORT_DATA: Final = 255
SHORT_LE: Final = 256
EXTENDED_DATA: Final = 65_535
EXTENDED_LE: Final = 65_536
MAX_RESPONSE: Final = EXTENDED_LE + 2
"""Bytes of the longest response, with its status words."""

MAX_CHAIN: Final = 64
"""GET RESPONSE commands for one answer: no card has more to say than that."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command APDU. ``le``: how many bytes are wanted at most, None for none; 256 (65,536 extended) is all.

    It is encoded short where that can say it, else extended. Raises ProtocolError for what cannot be encoded.
    """

    cla: int
    ins: int
    p1: int = 0
    p2: int = 0
    data: bytes = field(default=b"", repr=False)
    le: int | None = None

    def __post_init__(self) -> None:
        if not all(0 <= byte <= 0xFF for byte in (self.cla, self.ins, self.p1, self.p2)):
            raise ProtocolError("a command's header has four bytes")
        if len(self.data) > EXTENDED_DATA or (self.le is not None and not 0 < self.le <= EXTENDED_LE):
            raise ProtocolError("a command carries 65,535 bytes at most, and asks for 1 to 65,536")

    @property
    def extended(self) -> bool:
        """Whether its lengths need more than a byte."""
        return len(self.data) > SHORT_DATA or (self.le or 0) > SHORT_LE

    def encode(self) -> bytes:
        """Header, Lc and data where there are any, Le where there is one (ISO/IEC 7816-4, table 1)."""
        header, size = bytes((self.cla, self.ins, self.p1, self.p2)), len(self.data)
        if not self.extended:
            body = bytes((size,)) + self.data if size else b""
            return header + body + (bytes((self.le % SHORT_LE,)) if self.le is not None else b"")
        body = b"\0" + size.to_bytes(2, "big") + self.data if size else b""
        if self.le is None:
            return header + body
        return header + body + (b"" if size else b"\0") + (self.le % EXTENDED_LE).to_bytes(2, "big")

    @classmethod
    def decode(cls, data: bytes) -> Command:
        """The command in these bytes; ProtocolError where they are none."""
        if len(data) < 4:
            raise ProtocolError(f"{len(data)} bytes are no command")
        made, body = partial(cls, data[0], data[1], data[2], data[3]), data[4:]
        if not body:
            return made()
        if len(body) == 1:
            return made(le=body[0] or SHORT_LE)
        if body[0]:
            size, rest = body[0], body[1:]
            if len(rest) == size:
                return made(rest)
            if len(rest) == size + 1:
                return made(rest[:size], rest[size] or SHORT_LE)
        elif len(body) == 3:
            return made(le=int.from_bytes(body[1:], "big") or EXTENDED_LE)
        elif len(body) > 3 and (size := int.from_bytes(body[1:3], "big")):
            rest = body[3:]
            if len(rest) == size:
                return made(rest)
            if len(rest) == size + 2:
                return made(rest[:size], int.from_bytes(rest[size:], "big") or EXTENDED_LE)
        raise ProtocolError(f"{len(data)} bytes whose lengths do not fit are no command")


@dataclass(frozen=True, slots=True)
class Response:
    """A response APDU: data, and the status words as one number (0x9000 is success)."""

    data: bytes = field(repr=False)
    sw: int

    @property
    def sw1(self) -> int:
        """The first status word."""
        return self.sw >> 8

    @property
    def sw2(self) -> int:
        """The second status word."""
        return self.sw & 0xFF

    @property
    def ok(self) -> bool:
        """Whether the card did what it was told."""
        return self.sw == 0x9000

    def encode(self) -> bytes:
        """Data, SW1, SW2."""
        return self.data + self.sw.to_bytes(2, "big")

    @classmethod
    def decode(cls, data: bytes) -> Response:
        """The response in these bytes; CardError where they are none."""
        if not 2 <= len(data) <= MAX_RESPONSE:
            raise CardError(f"the card answered {len(data)} bytes, which are no response")
        return cls(data[:-2], int.from_bytes(data[-2:], "big"))


def follow_up(command: Command, response: Response) -> Command | None:
    """What is sent next where a response is not the whole answer; None where it is (ISO/IEC 7816-3, T=0).

    61xx: GET RESPONSE for xx bytes more, in the class of the command. 6Cxx: the command again, asking for xx bytes.
    """
    if response.sw1 == 0x61:
        return Command(command.cla & 0x03, 0xC0, le=response.sw2 or SHORT_LE)
    if response.sw1 == 0x6C:
        return replace(command, le=response.sw2 or SHORT_LE)
    return None
