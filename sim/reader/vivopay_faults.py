"""How an emulated ViVOpay reader speaks, and what goes wrong with that on request."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Final

from hw.vivopay_frames import build_answer, build_event
from sim.reader.line import Line

NOISE: Final = b"\x00\xffViVOtech2\x00\x02ViVOt\x45\x00\x55\xff\x01\x00\x02%B4"
"""What a bad contact makes: odd bytes, and beginnings of frames that never were."""
UNKNOWN_STATUS: Final = 0x30
"""A status that no table holds, as contact readers send it."""


class Fault(StrEnum):
    """What may go wrong with a command."""

    GARBAGE = "garbage"
    """Noise comes right before the answer."""
    SPLIT = "split"
    """The answer comes a byte at a time."""
    JOINED = "joined"
    """The answer comes in one piece with a light's event before it."""
    BAD_CHECKSUM = "bad-checksum"
    """The answer's CRC is wrong."""
    SLOW_CARD = "slow-card"
    """The answer takes its time, ``slowness`` seconds."""
    SILENCE = "silence"
    """Nothing comes at all."""
    UNKNOWN_STATUS = "unknown-status"
    """The answer's status is one that no table holds."""
    UNPLUG = "unplug"
    """The plug is pulled when half of the answer is out."""


class Mouth:
    """Writes answers to a line; the first of ``faults`` that is for any command (None) or this one applies once."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.faults: list[tuple[Fault, int | None]] = []
        self.slowness = 2.0

    def _fault(self, command: int) -> Fault | None:
        for number, (fault, on) in enumerate(self.faults):
            if on in (None, command):
                del self.faults[number]
                return fault
        return None

    async def say(self, command: int, status: int, data: bytes = b"") -> None:
        """Answer a command."""
        fault = self._fault(command)
        answer = build_answer(command, UNKNOWN_STATUS if fault is Fault.UNKNOWN_STATUS else status, data)
        if fault is Fault.SLOW_CARD:
            await asyncio.sleep(self.slowness)
        match fault:
            case Fault.SILENCE:
                pass
            case Fault.GARBAGE:
                await self._line.write(NOISE + answer)
            case Fault.SPLIT:
                for byte in answer:
                    await self._line.write(bytes((byte,)))
                    await asyncio.sleep(0)
            case Fault.JOINED:
                await self._line.write(build_event(bytes.fromhex("01110000")) + answer)
            case Fault.BAD_CHECKSUM:
                await self._line.write(answer[:-1] + bytes((answer[-1] ^ 0x10,)))
            case Fault.UNPLUG:
                await self._line.write(answer[: len(answer) // 2])
                await self._line.close()
            case _:
                await self._line.write(answer)
