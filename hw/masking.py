"""What of a card's own words may stand in a trace: nobody's number in the place of somebody's.

Everything keeps its length and its shape, so that what is masked can be played back and reads as a card: a PAN
keeps its first six and last four digits (PCI DSS 3.4.1), and one of the zeros between them is set so that its
check digit still holds. Expiry and service code stay; names, discretionary data and what a PAN could be computed
from (the chip's own certificates carry it, EMV 4.3 Book 2, table 7) do not. What cannot be read is blanked whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from hw.errors import CardError
from hw.pan import luhn_digit
from hw.tlv import MAX_DEPTH, Tlv, spans

_SECRET_COMMANDS: Final = frozenset(
    (0x20, 0x21, 0x24, 0x2C, 0x82, 0x84, 0xD0, 0xD1, 0xD2, 0xD6, 0xD7, 0xD8, 0xDA, 0xDB, 0xDC, 0xDD, 0xE2)
)
"""VERIFY (and its odd form), CHANGE REFERENCE DATA, RESET RETRY COUNTER, EXTERNAL AUTHENTICATE, GET CHALLENGE, and
all that writes: PINs, keys and what is made with them, or what becomes of a card (ISO/IEC 7816-4, table 4)."""


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
    return bytes.fromhex(_nibbles(text)) if "d" in text else _blank(value)


def _nibbles(text: str) -> str:
    pan, _, rest = text.partition("d")
    data = rest.rstrip("f")
    return _number(pan) + "d" + _dated(data).ljust(len(data), "0") + "f" * (len(rest) - len(data))


def _track1(value: bytes) -> bytes:
    """B, PAN, ^, name, ^, expiry, service code, discretionary data (tag 56)."""
    pan, *rest = value.decode("latin-1").split("^")
    if len(rest) != 2 or pan[:1] != "B":
        return _blank(value)
    name, data = rest
    whole = f"B{_number(pan[1:])}^{'X' * len(name)}^{_dated(data).ljust(len(data), '0')}"
    return whole.encode("latin-1")


def _dated(data: str) -> str:
    """Expiry and service code of what follows a number, where they can be those: else it may be a number itself."""
    kept = data[:7]
    return kept if kept.isascii() and kept.isdigit() and len(kept) > 3 and "01" <= kept[2:4] <= "12" else ""


def _number(pan: str) -> str:
    return masked_pan(pan) if pan.isascii() and pan.isdigit() else "0" * len(pan)


def _name(value: bytes) -> bytes:
    return b"X" * len(value)


def _zeros(value: bytes) -> bytes:
    return b"0" * len(value)


MASKS: Final[Mapping[int, Callable[[bytes], bytes]]] = {
    0x56: _track1,
    0x57: _track2,
    0x58: _blank,
    0x5A: _digits,
    0x5F20: _name,
    0x5F21: _blank,
    0x5F22: _blank,
    0x5F23: _blank,
    0x99: _blank,  # a PIN
    0x9F0B: _name,
    0x9F1F: _zeros,
    0x9F20: _blank,
    0x9F2D: _blank,
    0x9F46: _blank,
    0x9F6B: _track2,
}
"""Tag -> what stands for its value (EMV 4.3 Book 3 annex A; EMV Contactless Book C-2 for 56 and 9F6B; ISO/IEC
7816-6 for the tracks in 58 and 5F21 to 5F23)."""


def masked_objects(data: bytes) -> bytes:
    """BER-TLV with its card data masked; what is no BER-TLV is blanked."""
    masked = bytearray(data)
    try:
        _mask(masked, 0, len(data), 0)
    except CardError:
        return _blank(data)
    return bytes(masked)


def _mask(data: bytearray, start: int, end: int, depth: int) -> int:
    """How many were masked, where they stand: a length may be written in more bytes than it needs, and stays so."""
    if depth == MAX_DEPTH:
        raise CardError("nested too deep")
    count = 0
    for tag, first, last in spans(bytes(data[start:end])):
        first, last = start + first, start + last
        if tag in MASKS:
            data[first:last] = MASKS[tag](bytes(data[first:last]))
            count += 1
        elif Tlv(tag, b"").constructed:
            count += _mask(data, first, last, depth + 1)
        else:
            data[first:last] = masked_value(bytes(data[first:last]), depth + 1)
    return count


_TEXT: Final = re.compile(rb"[ -~]*")
_PAN: Final = re.compile(r"[2-6][0-9]{11,18}f*")
_SHAPE: Final = re.compile(r"[2-6][0-9]{11,18}d[0-9]{4,}")


def masked_value(value: bytes, depth: int = 0) -> bytes:
    """An object's value that is none of `MASKS`: what in it looks like a number, track or objects all the same."""
    if _TEXT.fullmatch(value):
        return masked_digits(value)
    inside = bytearray(value)
    with suppress(CardError):
        if _mask(inside, 0, len(value), depth):
            return bytes(inside)
    if _PAN.fullmatch(value.hex()):
        return _digits(value)
    return masked_digits(bytes.fromhex(_SHAPE.sub(lambda found: _nibbles(found[0]), value.hex())))


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


def asks_for_more(apdu: bytes) -> bool:
    """Whether a command fetches the rest of an answer (GET RESPONSE, ISO/IEC 7816-4, section 7.6.1)."""
    return apdu[1:2] == b"\xc0"


def is_in_part(apdu: bytes, begun: bool) -> bool:
    """Whether a card has more to say than this answer (61xx), and has said some of it, now or ``begun`` before.

    Where the objects of such an answer begin in a later piece of it nobody can say: none of it may be shown.
    """
    return apdu[-2:-1] == b"\x61" and (begun or len(apdu) > 2)


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
            kept = _dated(rest.decode("latin-1"))
            text = f"{_number(first.decode('ascii'))}={kept.ljust(len(rest), '0')}".encode("ascii")
        else:
            text = _zeros(text)
        return start + text + b"?"

    pieces, at = [], 0
    for found in _TRACK.finditer(data):
        pieces += [masked_digits(data[at : found.start()]), mask(found)]
        at = found.end()
    return b"".join([*pieces, masked_digits(data[at:])])


_WHOLE: Final = re.compile(rb"(?:[%;+!][^?%;]*\?)+")


def masked_text(data: bytes) -> bytes:
    """Tracks and nothing else, or one without its sentinels; what is neither is blanked."""
    if _WHOLE.fullmatch(data):
        return masked_tracks(data)
    with_sentinels = (b"%" if b"^" in data else b";") + data + b"?"
    if _WHOLE.fullmatch(with_sentinels):
        return masked_tracks(with_sentinels)[1:-1]
    return blanked_text(data)


_FRAMING: Final = re.compile(rb"[^\x02\x03\r\x10\x1b%;+?]")


def blanked_text(data: bytes) -> bytes:
    """Text of which nobody can say where its tracks are: nothing of it stays but what separates them."""
    return _FRAMING.sub(b"0", data)
