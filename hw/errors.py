"""Everything that can go wrong between the terminal and a reader, as one tree.

Each error says what happened and to what (``str(error)``) and what to do next (``error.advice``). None holds
a PAN, a track, a key or a byte of a frame.

    ReaderError
     +- BadAddress         the URL of a reader or of a line makes no sense
     +- LineError          the line to the reader: no such port, no permission, busy, not a serial port
     |   +- LineGone       it was there and is not any more
     |   +- NoAnswer       the line is there, and the reader says nothing
     +- FramingError       bytes came, and they are no frame of this reader
     +- ProtocolError      frames came, and they are not what this reader may say now
     +- CardError          the reader works, the card does not: unreadable, or not a payment card
     |   +- BadSwipe       its stripe could not be read
     |   +- CardGone       it was there and was taken away
     +- NotSupported       no such driver, or this reader cannot do that
     +- TimedOut           nobody presented a card in time
     +- Cancelled          the wait was called off
"""

from __future__ import annotations


class ReaderError(Exception):
    """The root. ``advice`` is one sentence on what to do next, or empty."""

    advice: str = ""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        if advice:
            self.advice = advice


class BadAddress(ReaderError, ValueError):
    """Example: ``magstripe:///dev/ttyS1?baud=fast: baud is a number from 50 to 4000000``."""

    advice = "A reader is named like magstripe:///dev/ttyUSB0?baud=9600 or magstripe+socket://10.0.0.7:4001."


class LineError(ReaderError):
    """Example: ``/dev/ttyUSB0: permission denied``."""

    advice = "Check the cable and the name of the port; `ls /dev/serial/by-id` shows what is plugged in."


class LineGone(LineError):
    """Example: ``magstripe:///dev/ttyUSB0: the device is gone``."""

    advice = "Plug the reader in again; the next try opens it anew."


class NoAnswer(LineError):
    """Example: ``pn532:///dev/ttyAMA0: no answer to GetFirmwareVersion within 1 s``."""

    advice = "Check power, cable and baud rate, and that it is this kind of reader: `till reader probe` asks."


class FramingError(ReaderError):
    """Example: ``57 bytes came that are no swipe of a known format``."""

    advice = "Try again; if it stays, check the line's settings (baud, bits, parity) against the reader's."


class ProtocolError(ReaderError):
    """Example: ``magstripe:///dev/ttyS1: a wait for a card is already under way``."""


class CardError(ReaderError):
    """Example: ``the card's data breaks off before a length``."""

    advice = "Present the card again; if that does not help, use another card."


class BadSwipe(CardError):
    """Example: ``track 2 could not be read``."""

    advice = "Swipe the card again; if that does not help, use another card."


class CardGone(CardError):
    """Example: ``pn532:///dev/ttyAMA0: the card was taken away``."""

    advice = "Present the card again, and leave it until it is done."


class NotSupported(ReaderError):
    """Example: ``there is no driver named 'punchcard' (there are: gemcore, magstripe, pn532)``."""


class TimedOut(ReaderError):
    """Example: ``magstripe:///dev/ttyS1: no card within 30 seconds``."""

    advice = "Present the card sooner, or wait for longer."


class Cancelled(ReaderError):
    """Example: ``magstripe:///dev/ttyS1: the wait for a card was cancelled``."""
