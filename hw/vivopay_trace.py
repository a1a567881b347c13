"""What a trace writes of a ViVOpay reader's frames: their meaning in a line, and the frames with nobody's card.

Masked frames keep their layout and are closed with a CRC that is right, so that they play back. Ciphertext is
blanked, PIN entry too; what cannot be read is blanked whole.
"""

from __future__ import annotations

from typing import Final

from hw import vivopay_msr as msr
from hw.errors import FramingError, ProtocolError
from hw.masking import MASKS, masked_command, masked_digits, masked_response, masked_tracks
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
from hw.vivopay_status import status_text
from hw.vivopay_tlv import MAX_DEPTH, MSR, TRACK_1, TRACK_2, Cover, Span, holds_others, spans, walk
from hw.vivopay_tlv import parse as parse_items

_HARMLESS: Final = 8
"""Bytes of data that may stand as they are where no objects are found: no number of a card fits."""
_PIN_PAD: Final = 0x62
_ASCII: Final = frozenset((*TRACK_1, *TRACK_2, 0x58, 0x5F21, 0x5F22, 0x5F23, 0xDF812A, 0xDF812B))
"""Tags whose values are tracks in ASCII, or parts of them."""
_SECRET: Final = _ASCII | {MSR, *MASKS}
_OFFSETS: Final = {0x02: (1, 0), 0x03: (1, 0, 5), 0x04: (0,), 0x60: (2, 3, 1, 0, 4, 5)}
"""Where the objects may begin in a command's data and in its answer's, likely places first."""


def describe(frame: bytes) -> str:
    """What a frame says, without card data."""
    try:
        found = parse(frame)
    except FramingError:
        return f"{len(frame)} bytes"
    if isinstance(found, BurstEvent):
        return f"burst event {found.data.hex(' ')}"
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


def _rebuilt(found: Frame, frame: bytes) -> bytes:
    if isinstance(found, BurstEvent):
        return build_event(found.data)
    if isinstance(found, BurstPayload):
        return build_payload(BurstPayload(found.status, found.application, masked_tracks(found.tracks)))
    data = _masked_data(found, is_command(frame, found))
    return build_command(found.command, found.code, data, crc_order(frame))


def _masked_data(message: Message, command: bool) -> bytes:
    data = message.data
    if message.command == 0x2C:
        return _passed_through(message.code, data, command)
    if message.command == _PIN_PAD or (message.command == 0x61 and message.code == 0x02):
        return bytes(len(data))
    if message.command not in _OFFSETS:
        return masked_tracks(data)
    if len(data) <= _HARMLESS:
        return data
    return _masked_somewhere(data, _OFFSETS[message.command])


def _masked_somewhere(data: bytes, offsets: tuple[int, ...]) -> bytes:
    """By the place for the objects to begin at which most of them are secret: others may make sense by chance."""
    best, found = bytes(len(data)), -1
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
    if command:
        return data[:1] + masked_command(data[1:]) if code == 0x13 else masked_command(data)
    if len(data) <= 11 and data[:1] < b"\x10":  # what kind of card, and its number in the field
        return data
    if data[:1] in (b"\x3b", b"\x3f"):  # an answer to reset
        return data
    return masked_response(data)


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
    if one.cover is Cover.MASKED:
        return value
    if one.tag == MSR:
        return msr.masked(value, masked_tracks)
    if one.tag in _ASCII:
        text = masked_tracks(value)
        return text if text != value else b"0" * len(value)
    return MASKS[one.tag](value) if one.tag in MASKS else masked_digits(value)


LANGUAGE: Final = Language(describe=describe, masked=masked)
