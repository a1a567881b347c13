"""Settings of ID TECH's stripe readers, told over the line (MiniMag RS-232 manual, section 3; SecureMag the same).

    set       02 53  id  length  data  03  check        the default settings have neither length nor data
    review    02 52  1F  03  check                      answered by 06 and 02  (id length data) ...  03  check
    answer    06 taken, 15 refused

The check is the XOR of everything before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import reduce
from operator import xor
from typing import Final

from hw.errors import NoAnswer, NotSupported, ProtocolError
from hw.line import Link
from hw.trace import Way

ACK: Final = 0x06
NAK: Final = 0x15
STX, ETX = 0x02, 0x03
SET, REVIEW = 0x53, 0x52

BEEP: Final = 0x11
DEFAULTS: Final = 0x18
SENTINELS: Final = 0x19
ENABLE: Final = 0x1A
DIRECTION: Final = 0x1D
ALL: Final = 0x1F
BAUD: Final = 0x41
BITS: Final = 0x42
PARITY: Final = 0x43
HANDSHAKE: Final = 0x44
STOP: Final = 0x45
XON: Final = 0x47
XOFF: Final = 0x48

SETTINGS: Final[Mapping[int, str]] = {
    BEEP: "beep volume",
    DEFAULTS: "default settings",
    SENTINELS: "sentinels, and how much of track 2",
    ENABLE: "reading",
    DIRECTION: "direction of a swipe",
    ALL: "all settings",
    BAUD: "baud rate",
    BITS: "data bits",
    PARITY: "parity",
    HANDSHAKE: "handshake",
    STOP: "stop bits",
    XON: "X-On character",
    XOFF: "X-Off character",
}

BAUD_RATES: Final[Mapping[int, bytes]] = {2400: b"3", 4800: b"4", 9600: b"5", 19200: b"6"}

ANSWER: Final = 0.3
"""Seconds for an answer: the reader takes 5 ms, an adapter holds it back for 16, a network for more."""
LONGEST: Final = 64
"""Bytes of a command: the longest settings are some ten."""
MAX_REVIEW: Final = 1024
"""Bytes of a review: a few dozen settings of at most some ten bytes."""


def build(setting: int, data: bytes | None = None) -> bytes:
    """The command that sets one setting; without ``data`` for one that has none."""
    middle = b"" if data is None else bytes((len(data),)) + data
    return _closed(bytes((STX, SET, setting)) + middle)


def build_review() -> bytes:
    """The command that asks for all settings."""
    return _closed(bytes((STX, REVIEW, ALL)))


def build_settings(settings: Mapping[int, bytes]) -> bytes:
    """What a review is answered with, behind the ACK."""
    blocks = b"".join(bytes((setting, len(data))) + data for setting, data in settings.items())
    return _closed(bytes((STX,)) + blocks)


def parse(command: bytes) -> tuple[int, bytes | None]:
    """The setting and the data of a command, with `ALL` for a review; ProtocolError for what is none."""
    body = _opened(command)
    if len(body) == 2 and (body[0] == SET or body == bytes((REVIEW, ALL))):
        return body[1], None
    if len(body) < 3 or body[0] != SET or len(body) != 3 + body[2]:
        raise ProtocolError(f"{len(command)} bytes are no setting")
    return body[1], body[3:]


def parse_settings(answer: bytes) -> dict[int, bytes]:
    """All settings, out of the answer to a review without its ACK; ProtocolError for what is none."""
    body, found, at = _opened(answer), {}, 0
    while at < len(body):
        size = body[at + 1] if at + 1 < len(body) else len(body)
        if at + 2 + size > len(body):
            raise ProtocolError(f"the reader told its settings in {len(answer)} bytes that break off")
        found[body[at]] = body[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def pause(data: bytes | None) -> float:
    """Seconds before the next command: the reader writes the setting down first, and hears nothing meanwhile."""
    return 0.080 + 0.010 * len(data or b"")


def _closed(body: bytes) -> bytes:
    body += bytes((ETX,))
    return body + bytes((reduce(xor, body),))


def _opened(frame: bytes) -> bytes:
    if len(frame) < 3 or frame[0] != STX or frame[-2] != ETX or reduce(xor, frame):
        raise ProtocolError(f"{len(frame)} bytes are no message about settings, or fail their check")
    return frame[1:-2]


def cut(held: bytes) -> tuple[list[bytes], bytes]:
    """The commands in what came so far, and what may be the beginning of another. Noise around them is dropped."""
    found: list[bytes] = []
    while (place := _first(held)) is not None:
        found.append(held[place])
        held = held[place.stop :]
    start = held.find(STX)
    return found, held[start:][-LONGEST:] if start >= 0 else b""


def _first(held: bytes) -> slice | None:
    starts = (at for at, byte in enumerate(held) if byte == STX)
    places = (slice(at, end) for at in starts for end in range(at + 4, min(len(held), at + LONGEST) + 1))
    return next((place for place in places if _is_command(held[place])), None)


def _is_command(data: bytes) -> bool:
    try:
        parse(data)
    except ProtocolError:
        return False
    return True


def describe(frame: bytes) -> str:
    """What is said about settings; empty for a frame that says nothing of them."""
    if frame in (bytes((ACK,)), bytes((NAK,))):
        return "taken" if frame[0] == ACK else "refused"
    if not _is_command(frame):
        return ""
    setting, data = parse(frame)
    name = SETTINGS.get(setting, f"setting {setting:02X}h")
    return f"asks for {name}" if setting == ALL else f"sets {name}" + (f": {data.hex()}" if data else "")


Seen = Callable[[Way, bytes], None]
"""Is told each frame."""


def _unseen(_way: Way, _frame: bytes) -> None:
    return None


async def change(link: Link, setting: int, data: bytes | None = None, seen: Seen = _unseen) -> None:
    """Set one setting; raises NotSupported where the reader refuses it, NoAnswer and LineGone."""
    await _ask(link, build(setting, data), SETTINGS.get(setting, f"setting {setting:02X}h"), seen)
    await asyncio.sleep(pause(data))


async def review(link: Link) -> dict[int, bytes]:
    """All settings; raises as `change`, and ProtocolError."""
    rest = await _ask(link, build_review(), "all settings", _unseen)
    try:
        async with asyncio.timeout(ANSWER):
            while not _whole(rest):
                if len(rest) > MAX_REVIEW:
                    break
                rest += await link.read()
    except TimeoutError:
        raise NoAnswer(f"{link.name}: the settings break off") from None
    finally:
        await asyncio.sleep(pause(None))
    return parse_settings(rest)


def _whole(answer: bytes) -> bool:
    return len(answer) >= 3 and answer[-2] == ETX and not reduce(xor, answer)


async def _ask(link: Link, command: bytes, what: str, seen: Seen) -> bytes:
    """Send it, and give what comes behind the ACK; a swipe that comes first is gone."""
    link.discard()
    seen("out", command)
    await link.write(command)
    try:
        async with asyncio.timeout(ANSWER):
            while True:
                said = await link.read()
                for at, byte in enumerate(said):
                    if byte in (ACK, NAK):
                        seen("in", bytes((byte,)))
                    if byte == NAK:
                        raise NotSupported(f"{link.name}: the reader refuses {what}")
                    if byte == ACK:
                        return said[at + 1 :]
    except TimeoutError:
        raise NoAnswer(f"{link.name}: no answer to {what} within {ANSWER:g} s") from None
