"""Every frame that passes a line, as JSON lines: when, which way, the bytes, and what they say.

    {"t": 0.000153, "way": "out", "frame": "0000ff02fed4022a00", "what": "GetFirmwareVersion"}

Nothing secret is in it: each protocol masks the card data in its frames and frames them anew, so that what is
written is a frame that the reader could have sent, of a card that is nobody's. Hence a trace can be played back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from hw.errors import ProtocolError

_log = logging.getLogger(__name__)

Way = Literal["out", "in"]
"""From us to the reader, or from the reader to us."""

MAX_LINE: Final = 200_000
"""Characters of a line: the longest frame of any protocol, in hex, with room."""


class Traced(msgspec.Struct, frozen=True):
    """One line: seconds since the trace began, the way, the frame in hex, and what it says."""

    t: float
    way: Way
    frame: str
    what: str = ""

    @property
    def data(self) -> bytes:
        """The frame's bytes; ProtocolError where it is not hex."""
        try:
            return bytes.fromhex(self.frame)
        except ValueError:
            raise ProtocolError("the trace holds a frame that is not hex") from None


@dataclass(frozen=True, slots=True)
class Language:
    """What a trace has to know of a protocol. Both take whole frames, and neither fails."""

    describe: Callable[[bytes], str]
    """What a frame says, in a line and without card data."""
    masked: Callable[[bytes], bytes]
    """The same frame with nobody's card data in it, framed anew."""


@dataclass(slots=True)
class Tracer:
    """Writes lines. ``clock`` gives seconds; the first frame is at zero.

    Where ``write`` raises OSError the trace ends, which ``failed`` keeps: no payment ends with it.
    """

    write: Callable[[str], object]
    clock: Callable[[], float]
    failed: OSError | None = field(default=None, init=False)
    _began: float | None = field(default=None, init=False)

    def frame(self, way: Way, frame: bytes, language: Language) -> None:
        """One frame has passed."""
        if self.failed is not None:
            return
        now = self.clock()
        if self._began is None:
            self._began = now
        line = {
            "t": round(now - self._began, 6),
            "way": way,
            "frame": language.masked(frame).hex(),
            "what": language.describe(frame),
        }
        try:
            self.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            self.failed = error
            _log.warning("the trace cannot be written any more, and ends here: %s", error.strerror or error)


def read_trace(lines: Iterable[str]) -> Iterator[Traced]:
    """The frames of a trace; raises ProtocolError, naming the line, for what is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE:
                raise ValueError
            traced = msgspec.json.decode(line, type=Traced)
            bytes.fromhex(traced.frame)
        except (ValueError, msgspec.DecodeError):
            raise ProtocolError(f"line {number} of the trace is no frame") from None
        yield traced
