"""What playing back a trace has to know of each protocol: how to tell commands apart, and fit answers to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hw import magstripe, magstripe_setup, pn532_frames, pn532_trace, vivopay_trace
from hw import vivopay_frames as vivopay
from hw.acs_frames import ENVELOPE as ACS
from hw.acs_frames import ETX
from hw.ccid import Kind, Message
from hw.envelope import Envelope
from hw.errors import FramingError
from hw.gemcore_frames import ENVELOPE as GEMCORE
from hw.t1 import Block
from hw.trace import Language

APDU_HEADER: Final = 4
"""CLA INS P1 P2: what stays the same of a command to a card whose data are of the moment."""


def _as_it_is(frame: bytes, *_: bytes) -> bytes:
    return frame


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol. ``framer`` and ``language`` make one for each line.

    ``plain`` takes from a command what only counts; ``kind`` leaves of it what says which command it is; ``fitted``
    makes of a recorded answer one to the command that came; ``damaged`` is an answer that fails its check;
    ``unasked`` says of a frame that nothing is answered with it, whatever came before.
    """

    framer: Callable[[], Any]
    language: Callable[[], Language]
    kind: Callable[[bytes], bytes]
    plain: Callable[[bytes], bytes] = _as_it_is
    fitted: Callable[[bytes, bytes], bytes] = _as_it_is
    damaged: bytes = b""
    unasked: Callable[[bytes], bool] | None = None


# -- PN532 --------------------------------------------------------------------------------------------------------


def _pn532_kind(frame: bytes) -> bytes:
    try:
        payload = pn532_frames.parse(frame)
    except FramingError:
        return frame
    if payload[1:2] == bytes((pn532_frames.IN_DATA_EXCHANGE,)):
        return payload[: 3 + APDU_HEADER]
    return payload[:2]


# -- CCID ---------------------------------------------------------------------------------------------------------


def _ccid(envelope: Envelope, after_check: int) -> Dialect:
    def message(frame: bytes) -> Message | None:
        try:
            found = envelope.parse(frame)
        except FramingError:
            return None
        return found if isinstance(found, Message) else None

    def plain(frame: bytes) -> bytes:
        found = message(frame)
        if found is None:
            return frame
        return envelope.build(Message(found.kind, found.data, found.slot, 0, found.specific))

    def kind(frame: bytes) -> bytes:
        found = message(frame)
        if found is None:
            return frame
        return bytes((found.kind, found.slot)) + _apdu_header(found)

    def fitted(answer: bytes, command: bytes) -> bytes:
        found, asked = message(answer), message(command)
        if found is None or asked is None:
            return answer
        if not found.kind.is_answer:  # the reader's echo
            return command
        return envelope.build(Message(found.kind, found.data, found.slot, asked.seq, found.specific))

    whole = envelope.build(Message(Kind.SLOT_STATUS))
    check = len(whole) - after_check - 1
    bent = whole[:check] + bytes((whole[check] ^ 0xFF,)) + whole[check + 1 :]
    return Dialect(envelope.framer, envelope.language, kind, plain, fitted, bent)


def _apdu_header(message: Message) -> bytes:
    if message.kind is not Kind.XFR_BLOCK:
        return message.data[:APDU_HEADER]
    try:
        block = Block.decode(message.data)
    except FramingError:
        return message.data[:APDU_HEADER]
    return bytes((block.pcb,)) + block.inf[:APDU_HEADER]


# -- ViVOpay ------------------------------------------------------------------------------------------------------

PASS_THROUGH: Final = 0x2C, 0x13


def _vivopay_kind(frame: bytes) -> bytes:
    try:
        found = vivopay.parse(frame)
    except FramingError:
        return frame
    if not isinstance(found, vivopay.Message):
        return frame
    which = found.command, found.code
    return bytes(which) + (found.data[: 1 + APDU_HEADER] if which == PASS_THROUGH else b"")


# -- stripes ------------------------------------------------------------------------------------------------------


_SAID: Final = (bytes((magstripe_setup.ACK,)), bytes((magstripe_setup.NAK,)))


class _Stripes:
    """A framer for whole messages, as a trace has them, and for the settings that ID TECH's readers are told."""

    dropped = 0

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        if data in _SAID:
            return [data]
        commands, self._held = magstripe_setup.cut(self._held + data)
        if commands:
            return commands
        framer = magstripe.Framer()
        return [*framer.feed(data), *framer.quiet()]


DIALECTS: Final[Mapping[str, Dialect]] = {
    "pn532": Dialect(
        pn532_frames.Framer,
        pn532_trace.language,
        _pn532_kind,
        damaged=bytes.fromhex("0000FF03FDD54B00E100"),
    ),
    "vivopay": Dialect(vivopay.Framer, vivopay_trace.language, _vivopay_kind),
    "acs": _ccid(ACS, len(ETX)),
    "gemcore": _ccid(GEMCORE, 0),
    "magstripe": Dialect(_Stripes, lambda: magstripe.LANGUAGE, _as_it_is, unasked=lambda frame: frame not in _SAID),
}
"""Driver -> its protocol, the strictest first."""
