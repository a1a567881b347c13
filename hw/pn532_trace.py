"""What a trace writes of a PN532's frames: their meaning in a line, and the frames with nobody's card.

Of an APDU that goes on over several frames nothing is shown: nobody can say where its objects begin in a later one.
"""

from __future__ import annotations

from typing import Final

from hw.apdu_trace import command_words, counted, piece_words, response_words
from hw.errors import FramingError
from hw.masking import asks_for_more, is_in_part, masked_command, masked_response
from hw.pn532_frames import (
    ACK,
    BROKEN,
    ERROR,
    FROM_HOST,
    IN_COMMUNICATE_THRU,
    IN_DATA_EXCHANGE,
    MORE,
    NACK,
    NAMES,
    STATUS,
    STATUSES,
    WAKE_UP,
    build,
    parse,
)
from hw.trace import Language

_FIXED: Final = {
    ACK: "ACK",
    NACK: "NACK",
    ERROR: "syntax error",
    BROKEN: "a frame with a wrong checksum",
}


def language() -> Language:
    """What a trace has to know, for the frames of one line in the order of their coming. It never fails."""
    told, kept = _Spoken(), _Spoken()
    return Language(describe=lambda frame: told.read(frame)[1], masked=lambda frame: kept.read(frame)[0])


class _Spoken:
    """What one line says, frame by frame: who is in the middle of an APDU."""

    def __init__(self) -> None:
        self._going_on: dict[int, bool] = {}
        self._in_part = False  # the card has not said all of its answer yet
        self._end = b""  # how the frames of its answer ended so far: its status words may be in two of them

    def read(self, frame: bytes) -> tuple[bytes, str]:
        """The same frame with nobody's card data in it, and what it says."""
        if frame.startswith(WAKE_UP):
            masked, words = self.read(frame[len(WAKE_UP) :])
            return WAKE_UP + masked, f"wake up, {words}"
        if frame in _FIXED:
            return frame, _FIXED[frame]
        try:
            payload = parse(frame)
        except FramingError:
            return bytes(len(frame)), f"{counted(len(frame))} that are no frame"
        if len(payload) < 2:
            return frame, f"a payload of {payload.hex()}"
        sender, code, data = payload[0], payload[1], payload[2:]
        if data and code & 0xFE in (IN_DATA_EXCHANGE, IN_COMMUNICATE_THRU):
            data, words = self._exchange(sender, code & 0xFE, data)
            return build(payload[:2] + data, extended=frame[3:5] == b"\xff\xff"), words
        shown = f": {data.hex(' ').upper()}" if data else ""
        if sender == FROM_HOST:
            return frame, f"{_name(code)}{shown}"
        return frame, f"{_name(code - 1)} answered{shown}"

    def _exchange(self, sender: int, asked: int, data: bytes) -> tuple[bytes, str]:
        """What is exchanged with a card: masked, and in words. Of what comes in pieces nothing is shown."""
        lead, more, is_apdu = _lead(sender, asked, data)
        begun = self._going_on.get(sender, False)
        self._going_on[sender] = more if is_apdu else begun  # what comes between the pieces ends nothing
        apdu = data[lead:]
        if more or begun:
            rest, words = bytes(len(apdu)), piece_words(len(apdu), more=more)
        elif sender == FROM_HOST:
            rest = masked_command(apdu)
            words = command_words(rest)
        else:
            in_part = self._in_part or is_in_part(apdu, begun=False)
            rest = bytes(len(apdu[:-2])) + apdu[-2:] if in_part else masked_response(apdu)
            words = response_words(rest)
        if is_apdu and sender != FROM_HOST:
            self._end = (self._end + apdu)[-3:]
            if not more:
                self._in_part, self._end = is_in_part(self._end, begun or self._in_part), b""
        elif is_apdu and sender == FROM_HOST and apdu and not begun:  # an empty one asks for the next frame
            self._in_part = self._in_part and asks_for_more(apdu)
        if not is_apdu:
            words = piece_words(len(rest), more=False)
        if sender != FROM_HOST and (error := data[0] & STATUS):
            return data[:lead] + rest, f"{_name(asked)}: {STATUSES.get(error, f'error {error:02X}')}"
        return data[:lead] + rest, f"{_name(asked)}{' answered' * (sender != FROM_HOST)}: {words}"


def _name(asked: int) -> str:
    return NAMES.get(asked, f"command {asked & 0xFF:02X}")


def _lead(sender: int, asked: int, data: bytes) -> tuple[int, bool, bool]:
    """How many bytes stand before the APDU, whether it goes on in another frame, and whether it is one at all.

    A target or a status stands before it, and in a raw block its protocol byte (ISO/IEC 14443-4, 7.1.1).
    """
    if asked == IN_DATA_EXCHANGE:
        return 1, bool(data[0] & MORE), True
    at = 0 if sender == FROM_HOST else 1
    if len(data) <= at or data[at] & 0xE2 != 0x02:
        return at, False, False
    block = data[at]
    return min(len(data), at + 1 + bool(block & 0x08) + bool(block & 0x04)), bool(block & 0x10), True
