"""A line on which a script of bytes says what becomes of what the reader sends, until the script is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hw.errors import FramingError
from sim.reader.memory import MemoryLine

Rebuild = Callable[[bytes, bytes], bytes]
"""A frame of the reader's, and other contents; a whole frame with these. FramingError where it is no such frame."""

PAUSE = 0.06
"""Seconds of a pause within a frame, times 0 to 15."""


class Script:
    """Bytes that are taken one after the other; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        return self.take(1)[0] if not self.over else 0

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self) -> bytes:
        """So many bytes as the next one says."""
        return self.take(self.byte())

    def stop(self) -> None:
        self._at = len(self._data)


class ScriptedLine:
    """The emulator's end; see the module. Once the script is over it is a line like any other."""

    def __init__(self, line: MemoryLine, script: Script, rebuild: Rebuild) -> None:
        self.line, self._script, self._rebuild = line, script, rebuild

    @property
    def baud(self) -> int:
        return self.line.baud

    async def read(self) -> bytes:
        return await self.line.read()

    async def close(self) -> None:
        await self.line.close()

    async def write(self, data: bytes) -> None:
        script, line = self._script, self.line
        if script.over:
            await line.write(data)
            return
        action = script.byte()
        match action & 0x0F:
            case 1:
                await line.write(script.text())
            case 2:
                await line.write(script.text() + data)
            case 3:
                await line.write(data + script.text())
            case 4:
                await line.write(self._rebuilt(data, script.text()))
            case 5:
                await line.write(self._rebuilt(data, script.text()) + data)
            case 6:
                await line.write(data + self._rebuilt(data, script.text()))
            case 7:
                at, bits = script.byte() % max(1, len(data)), script.byte()
                await line.write(data[:at] + bytes(byte ^ bits for byte in data[at : at + 1]) + data[at + 1 :])
            case 8:
                await line.write(data[: script.byte() % max(1, len(data))])
            case 9:
                at = script.byte() % max(1, len(data))
                await line.write(data[:at])
                await asyncio.sleep(PAUSE * (action >> 4))
                await line.write(data[at:])
            case 10:
                return
            case 11:
                await line.write(data * (1 + (action >> 4)))
            case 12:
                at, size = script.byte() % max(1, len(data)), script.byte()
                await line.write(data[:at] + data[at : at + 1] * size + data[at:])
            case 13:
                await line.write(data[: len(data) // 2])
                await line.close()
            case _:
                await line.write(data)

    def _rebuilt(self, frame: bytes, contents: bytes) -> bytes:
        try:
            return self._rebuild(frame, contents)
        except FramingError:
            return contents
