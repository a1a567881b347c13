"""What a trace writes of a ViVOpay reader's frames: their meaning in a line, and the frames with nobody's card.

Masked frames keep their layout and are closed with a CRC that is right, so that they play back. Ciphertext is
blanked, PIN entry too; what cannot be read is blanked whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from hw import vivopay_msr as msr
from hw.apdu import Command
from hw.apdu_trace import command_words, response_words
from hw.atr import parse_atr
from hw.errors import FramingError, ProtocolError, ReaderError
from hw.masking import (
    MASKS,
    asks_for_more,
    is_in_part,
    masked_command,
    masked_response,
    masked_text,
    masked_tracks,
    masked_value,
)
from hw.trace import Language
from hw.vivopay_frames import (
    COMMANDS,
    FAMILIES,
    BurstEvent,
    BurstPayload,
    Frame,
    Message,
    build_command,
    build_event,
    build_payload,
    crc_order,
    is_command,
    parse,
)
from hw.vivopay_status import OK, status_text
from hw.vivopay_tlv import KSN, MAX_DEPTH, MSR, TRACK_1, TRACK_2, Cover, Span, holds_others, is_own, spans, walk
from hw.vivopay_tlv import parse as parse_items

_HARMLESS: Final = 3
"""Bytes that may stand as they are wherever they are: six digits of a number may be shown."""
_LIGHTS: Final = 4
"""Bytes that say a message, beeps, a light, and whether it is on."""
_SETTING: Final = 10
"""Bytes of a setting of the maker's own that may stand as they are: a key's serial number, a time, a limit."""
_PASS_THROUGH: Final = 0x2C
_EXCHANGE: Final = 0x13
_INTERFACE: Final = 1
"""Bytes of an exchange that say which of its interfaces the reader is to speak on."""
_UIDS: Final = (4, 7, 10)
"""Bytes of a card's anticollision number (ISO/IEC 14443-3)."""
_SPOKEN: Final = frozenset((0x01, 0x05, 0x09, 0x0A, 0x0B, 0x18, 0x29, 0x61, 0x83))
"""Commands that have nothing to do with a card: their data are numbers of lights and screens, or text."""
_EVENTS: Final = frozenset((0x01, 0x02, 0x03))
"""Kinds of burst mode events."""
_ASKS_FOR_A_PIN: Final = (0x61, 0x02)
_ASCII: Final = frozenset((*TRACK_1, *TRACK_2, 0x58, 0x5F21, 0x5F22, 0x5F23, 0xDF812A, 0xDF812B))
"""Tags whose values are tracks in ASCII, or parts of them."""
_SECRET: Final = _ASCII | {MSR, *MASKS}
_OFFSETS: Final = {0x02: (1, 0), 0x03: (1, 0), 0x04: (0,), 0x60: (2, 0, 1)}
"""Command -> where the objects may begin in its data and in its answer's, likely places first."""
_START: Final = (0x60, 0x10)
"""Contact: whether a swipe will do, and two times, come before the objects."""
_TIMES: Final = 5


def describe(frame: bytes) -> str:
    """What a frame says, without card data."""
    try:
        found = parse(frame)
    except FramingError:
        return f"{len(frame)} bytes"
    if isinstance(found, BurstEvent):
        return f"burst event {_event(found.data).hex(' ')}"
    if isinstance(found, BurstPayload):
        return f"burst card, application {found.application:02X}h, {len(found.tracks)} bytes"
    size = f", {len(found.data)} bytes" if found.data else ""
    if is_command(frame, found):
        unnamed = f"command {found.command:02X}-{found.code:02X}"
        return COMMANDS.get((found.command, found.code), unnamed) + size
    return f"{FAMILIES.get(found.command, f'{found.command:02X}')}: {status_text(found.code)}{size}"


def masked(frame: bytes) -> bytes:
    """The frame with its card data masked."""
    try:
        found = parse(frame)
    except FramingError:
        return bytes(len(frame))
    return _rebuilt(found, frame)


class _Spoken:
    """Follows one line: a card that is spoken to through the reader may answer in pieces (61xx), of which nobody
    can say where their objects begin."""

    def __init__(self) -> None:
        self._goes_on = False
        self._exchanges = False

    def masked(self, frame: bytes) -> bytes:
        """The frame with its card data masked."""
        try:
            found = parse(frame)
        except FramingError:
            return masked(frame)
        if not isinstance(found, Message) or found.command != _PASS_THROUGH:
            return masked(frame)
        if is_command(frame, found):
            self._goes_on = self._goes_on and asks_for_more(found.data[_INTERFACE:])
            return masked(frame)
        if not found.data:  # refused, and asked again: it is no answer of the card's
            return masked(frame)
        goes_on, self._goes_on = self._goes_on, _is_piece(found.data, self._goes_on)
        if not goes_on and not self._goes_on:
            return masked(frame)
        data = bytes(len(found.data[:-2])) + found.data[-2:]
        return build_command(found.command, found.code, data, crc_order(frame))

    def describe(self, frame: bytes) -> str:
        """What the frame says; of an exchange with a card, what it says to the card, or the card."""
        try:
            found = parse(self.masked(frame))
        except FramingError:
            return describe(frame)
        if not isinstance(found, Message) or found.command != _PASS_THROUGH:
            return describe(frame)
        if is_command(frame, found):
            self._exchanges = found.code == _EXCHANGE
            if self._exchanges and len(found.data) > _INTERFACE:
                return f"{COMMANDS[_PASS_THROUGH, _EXCHANGE]}: {command_words(found.data[_INTERFACE:])}"
        elif self._exchanges and found.code == OK and found.data:
            return f"{FAMILIES[_PASS_THROUGH]}: {response_words(found.data)}"
        return describe(frame)


def _is_piece(data: bytes, goes_on: bool) -> bool:
    """Whether a card has more to say, and has said something already; it may look like something else."""
    if not is_in_part(data, goes_on):
        return False
    return goes_on or not (_is_card(data) or _makes_sense(lambda: parse_atr(data)))


def _is_card(data: bytes) -> bool:
    """Whether a card is there: what kind, and its number in the field."""
    return len(data) - 1 in _UIDS and data[0] < 0x10


def language() -> Language:
    """What a trace has to know, for the frames of one line in the order of their coming."""
    return Language(_Spoken().describe, _Spoken().masked)


def _rebuilt(found: Frame, frame: bytes) -> bytes:
    if isinstance(found, BurstEvent):
        return build_event(_event(found.data))
    if isinstance(found, BurstPayload):
        return build_payload(BurstPayload(found.status, found.application, masked_text(found.tracks)))
    data = _masked_data(found, is_command(frame, found))
    return build_command(found.command, found.code, data, crc_order(frame))


def _event(data: bytes) -> bytes:
    """Lights, sounds and messages, four bytes each; what is none of them is blanked."""
    return data if len(data) % 4 == 0 and set(data[::4]) <= _EVENTS else bytes(len(data))


def _masked_data(message: Message, command: bool) -> bytes:
    data = message.data
    if message.command == _PASS_THROUGH:
        return _passed_through(message.code, data, command)
    if (message.command, message.code) == _ASKS_FOR_A_PIN:
        return bytes(len(data))
    if message.command in _SPOKEN and (_is_text(data) or len(data) <= _LIGHTS):
        return masked_tracks(data)
    if command and (message.command, message.code) == _START:
        return data[:_TIMES] + _masked_somewhere(data[_TIMES:], (0,))
    return _masked_somewhere(data, _OFFSETS.get(message.command, ()))


def _is_text(data: bytes) -> bool:
    return all(byte in (0x00, 0x0A, 0x0D, 0x1C) or 0x20 <= byte < 0x7F for byte in data)


def _masked_somewhere(data: bytes, offsets: tuple[int, ...]) -> bytes:
    """By the place for the objects to begin at which most of them are secret: others may make sense by chance."""
    best, found = data if len(data) <= _HARMLESS else bytes(len(data)), -1
    for offset in offsets:
        try:
            items = tuple(walk(parse_items(data[offset:])))
            secrets = sum(item.tag in _SECRET for item in items)
            if secrets > found:
                best, found = data[:offset] + masked_objects(data[offset:]), secrets
        except ProtocolError:
            continue
    return best


def _passed_through(code: int, data: bytes, command: bool) -> bytes:
    if command and code == _EXCHANGE and _makes_sense(lambda: Command.decode(data[1:])):
        return data[:1] + masked_command(data[1:])
    if len(data) <= _HARMLESS or (code == 0 and _is_card(data)):
        return data
    if _makes_sense(lambda: parse_atr(data)):
        return data
    return masked_response(data)


def _makes_sense(read: Callable[[], object]) -> bool:
    try:
        read()
    except ReaderError:
        return False
    return True


def masked_objects(data: bytes) -> bytes:
    """A reader's data objects with their card data masked; raises ProtocolError for what is none."""
    copy = bytearray(data)
    _mask(copy, 0, len(data), 0)
    return bytes(copy)


def _mask(data: bytearray, start: int, end: int, depth: int) -> None:
    if depth == MAX_DEPTH:
        raise ProtocolError("nested too deep")
    for one in spans(bytes(data[start:end])):
        first, last = start + one.start, start + one.end
        if one.cover is Cover.CLEAR and one.tag not in MASKS and holds_others(one.tag):
            _mask(data, first, last, depth + 1)
        else:
            data[first:last] = _value(one, bytes(data[first:last]))


def _value(one: Span, value: bytes) -> bytes:
    if one.cover is Cover.SEALED:
        return bytes(len(value))
    if one.cover is Cover.MASKED and _HIDDEN.fullmatch(value.hex()):
        return value
    if one.tag == MSR:
        return msr.masked(value, masked_text)
    if one.tag in _ASCII:
        return masked_text(value)
    if one.tag in MASKS:
        return MASKS[one.tag](value)
    if is_own(one.tag) and one.tag != KSN and len(value) > _SETTING:
        return masked_tracks(value) if _is_text(value) else bytes(len(value))
    return masked_value(value)


_HIDDEN: Final = re.compile(r"[0-9]{0,6}c{2,}[0-9]{0,4}(?:d[0-9]{0,7}c*)?f*")
"""A number, and what may follow it, of which the reader leaves out enough; some say masked and forget it."""
