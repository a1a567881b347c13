"""What of a card's own words may stand in a trace: nobody's number in the place of somebody's.

Everything keeps its length and its shape, so that what is masked can be played back and reads as a card: a PAN
keeps its first six and last four digits (PCI DSS 3.4.1), and one of the zeros between them is set so that its
check digit still holds. Expiry and service code stay; names, discretionary data and what a PAN could be computed
from (the chip's own certificates carry it, EMV 4.3 Book 2, table 7) do not. What cannot be read is blanked whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from hw.errors import CardError
from hw.pan import luhn_digit
from hw.tlv import MAX_DEPTH, Tlv, spans

_SECRET_COMMANDS: Final = frozenset((0x20, 0x21, 0x24, 0x2C, 0x82, 0x84, 0xDA, 0xDB))
"""VERIFY (and its odd form), CHANGE REFERENCE DATA, RESET RETRY COUNTER, EXTERNAL AUTHENTICATE, GET CHALLENGE,
PUT DATA (and its odd form): PINs, keys and what is made with them (ISO/IEC 7816-4, table 4)."""


def masked_pan(pan: str) -> str:
    """A number of nobody, as long as ``pan`` and with its first six and last four digits.

    Of fewer than 13 digits only the last four are kept.
    """
    head, tail = (pan[:6] if len(pan) >= 13 else ""), pan[-4:]
    middle = "0" * (len(pan) - len(head) - len(tail))
    if not middle:
        return "0" * len(pan)
    for digit in "0123456789":
        number = head + middle[:-1] + digit + tail
        if luhn_digit(number[:-1]) == number[-1]:
            return number
    raise AssertionError("one of ten digits makes a sum of ten")  # each changes it by another amount


def _blank(value: bytes) -> bytes:
    return bytes(len(value))


def _digits(value: bytes) -> bytes:
    """A PAN in nibbles, padded with F (tag 5A)."""
    pan = value.hex().rstrip("f")
    return bytes.fromhex(_number(pan) + "f" * (2 * len(value) - len(pan)))


def _track2(value: bytes) -> bytes:
    """PAN, D, expiry, service code, discretionary data, padding (tags 57 and 9F6B)."""
    text = value.hex()
    pan, separator, rest = text.partition("d")
    if not separator:
        return _blank(value)
    data = rest.rstrip("f")
    kept = data[:7] if data[:7].isdecimal() else ""
    return bytes.fromhex(_number(pan) + "d" + kept.ljust(len(data), "0") + "f" * (len(rest) - len(data)))


def _track1(value: bytes) -> bytes:
    """B, PAN, ^, name, ^, expiry, service code, discretionary data (tag 56)."""
    pan, *rest = value.decode("latin-1").split("^")
    if len(rest) != 2 or pan[:1] != "B":
        return _blank(value)
    name, data = rest
    whole = f"B{_number(pan[1:])}^{'X' * len(name)}^{data[:7]}{'0' * len(data[7:])}"
    return whole.encode("latin-1")


def _number(pan: str) -> str:
    return masked_pan(pan) if pan.isascii() and pan.isdigit() else "0" * len(pan)


def _name(value: bytes) -> bytes:
    return b"X" * len(value)


def _zeros(value: bytes) -> bytes:
    return b"0" * len(value)


MASKS: Final[Mapping[int, Callable[[bytes], bytes]]] = {
    0x56: _track1,
    0x57: _track2,
    0x5A: _digits,
    0x5F20: _name,
    0x99: _blank,  # a PIN
    0x9F0B: _name,
    0x9F1F: _zeros,
    0x9F20: _blank,
    0x9F2D: _blank,
    0x9F46: _blank,
    0x9F6B: _track2,
}
"""Tag -> what stands for its value (EMV 4.3 Book 3 annex A, and EMV Contactless Book C-2 for 56 and 9F6B)."""


def masked_objects(data: bytes) -> bytes:
    """BER-TLV with its card data masked; what is no BER-TLV is blanked."""
    masked = bytearray(data)
    try:
        _mask(masked, 0, len(data), 0)
    except CardError:
        return _blank(data)
    return bytes(masked)


def _mask(data: bytearray, start: int, end: int, depth: int) -> None:
    """Where they stand: a length may be written in more bytes than it needs, and has to stay so."""
    if depth == MAX_DEPTH:
        raise CardError("nested too deep")
    for tag, first, last in spans(bytes(data[start:end])):
        first, last = start + first, start + last
        if tag in MASKS:
            data[first:last] = MASKS[tag](bytes(data[first:last]))
        elif Tlv(tag, b"").constructed:
            _mask(data, first, last, depth + 1)


def masked_command(apdu: bytes) -> bytes:
    """A command APDU without PINs, cryptograms and keys; the header stays."""
    if len(apdu) <= 5:
        return apdu
    header, body = apdu[:5], apdu[5:]
    if apdu[1] in _SECRET_COMMANDS:
        return header + _blank(body)
    return apdu


def masked_response(apdu: bytes) -> bytes:
    """A response APDU with its card data masked; the status words stay."""
    if len(apdu) < 2:
        return _blank(apdu)
    return masked_objects(apdu[:-2]) + apdu[-2:]


_TRACK: Final = re.compile(rb"([%;+!])([^?%;]*)\?")
_NUMBER: Final = re.compile(rb"[0-9]{8,}")
_HIDDEN: Final = re.compile(rb"(\*?[0-9]{0,6}\*{2,}[0-9]{0,4})(=|\^[^^]*\^)([0-9*]*)")
"""A track whose number the reader has masked by itself."""
_DIGIT: Final = re.compile(rb"[0-9]")


def masked_digits(data: bytes) -> bytes:
    """Every run of eight digits or more in ASCII blanked."""
    return _NUMBER.sub(lambda run: b"0" * len(run[0]), data)


def masked_tracks(data: bytes) -> bytes:
    """Stripe tracks in ASCII, among anything else; every other run of eight digits or more is blanked."""

    def mask(found: re.Match[bytes]) -> bytes:
        start, text = found.groups()
        first, _, rest = text.partition(b"=")
        if hidden := _HIDDEN.fullmatch(text):
            number, name, rest = hidden.groups()
            text = number + re.sub(rb"[^^=]", b"X", name) + rest[:7] + _DIGIT.sub(b"0", rest[7:])
        elif len(text) == 1:  # that a track could not be read
            pass
        elif start == b"%":
            text = _track1(text) if text[:1] == b"B" and text.count(b"^") == 2 else _zeros(text)
        elif rest and first.isdigit():
            text = _number(first.decode("ascii")).encode("ascii") + b"=" + rest[:7] + b"0" * len(rest[7:])
        else:
            text = _zeros(text)
        return start + text + b"?"

    pieces, at = [], 0
    for found in _TRACK.finditer(data):
        pieces += [masked_digits(data[at : found.start()]), mask(found)]
        at = found.end()
    return b"".join([*pieces, masked_digits(data[at:])])
