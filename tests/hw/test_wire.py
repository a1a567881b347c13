"""Frames over a line: counted, traced, late and noisy."""

from __future__ import annotations

import asyncio
import errno
import json

import pytest

from hw.apdu import Command
from hw.card import ChipCard, EntryMode, SealedCard
from hw.errors import CardError, FramingError, NoAnswer, ProtocolError
from hw.line import Link
from hw.trace import Language, Tracer, read_trace
from hw.wire import BACKLOG, Statistics, Wire
from sim.virtual_time import run

LANGUAGE = Language(describe=lambda frame: frame[1:-1].decode(), masked=lambda frame: frame.replace(b"1", b"0"))


class Brackets:
    """Frames are what stands between ( and )."""

    def __init__(self) -> None:
        self.dropped = 0
        self._held = b""

    @property
    def begun(self) -> bool:
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        frames = []
        for code in data:
            byte = bytes((code,))
            if not self._held and byte != b"(":
                self.dropped += 1
                continue
            self._held += byte
            if byte == b")":
                frames.append(self._held)
                self._held = b""
        return frames

    def reset(self) -> None:
        self._held = b""


class Told(Link):
    """A line in memory: what is put into ``coming`` comes."""

    def __init__(self) -> None:
        super().__init__("told:")
        self.coming: asyncio.Queue[bytes] = asyncio.Queue()
        self.written = b""

    async def read(self) -> bytes:
        return await self.coming.get()

    def take(self) -> bytes:
        return b"" if self.coming.empty() else self.coming.get_nowait()

    def discard(self) -> None:
        while self.take():
            pass

    async def write(self, data: bytes) -> None:
        self.written += data

    async def close(self) -> None:
        pass


def test_frames_are_cut_counted_timed_and_traced():
    lines: list[str] = []

    async def main() -> Statistics:
        link, loop = Told(), asyncio.get_running_loop()
        wire = Wire(link, Brackets(), LANGUAGE, tracer=Tracer(lines.append, loop.time))
        await wire.send(b"(ask1)")
        loop.call_later(0.25, link.coming.put_nowait, b"xx(hel")
        loop.call_later(0.5, link.coming.put_nowait, b"lo1)(more)")
        assert await wire.receive(1.0, "ask") == b"(hello1)"
        assert await wire.receive(1.0, "ask") == b"(more)"
        assert link.written == b"(ask1)"
        return wire.counts

    counts = run(main())
    assert (counts.frames_out, counts.frames_in, counts.bytes_out, counts.bytes_in) == (1, 2, 6, 16)
    assert (counts.dropped, counts.round_trip) == (2, 0.5)
    assert [json.loads(line) for line in lines] == [
        {"t": 0.0, "way": "out", "frame": b"(ask0)".hex(), "what": "ask1"},
        {"t": 0.5, "way": "in", "frame": b"(hello0)".hex(), "what": "hello1"},
        {"t": 0.5, "way": "in", "frame": b"(more)".hex(), "what": "more"},
    ]
    assert [traced.data for traced in read_trace(lines)] == [b"(ask0)", b"(hello0)", b"(more)"]


def test_silence_is_named_and_counted():
    async def main() -> None:
        wire = Wire(Told(), Brackets(), LANGUAGE)
        with pytest.raises(NoAnswer, match=r"told:: no answer to the question within 1\.5 s"):
            await wire.receive(1.5, "the question")
        assert wire.counts.errors == {"NoAnswer": 1}
        assert wire.counts.round_trip is None

    run(main())


def test_a_frame_that_breaks_off_is_told_after_a_pause_and_one_that_goes_on_is_not():
    async def main() -> None:
        link, loop = Told(), asyncio.get_running_loop()
        wire = Wire(link, Brackets(), LANGUAGE)
        for at, piece in ((0.1, b"xx"), (0.9, b"(a"), (1.3, b"b"), (1.7, b")"), (2.5, b"(cd")):
            loop.call_later(at, link.coming.put_nowait, piece)
        assert await wire.receive(2.0, "ask", pause=0.5) == b"(ab)"
        with pytest.raises(FramingError, match="told:: the answer to ask breaks off"):
            await wire.receive(None, "ask", pause=0.5)
        assert loop.time() == pytest.approx(3.0)
        link.coming.put_nowait(b"(whole)")
        assert await wire.receive(1.0, "ask", pause=0.5) == b"(whole)"
        link.coming.put_nowait(b"(half")
        with pytest.raises(NoAnswer):
            await wire.receive(0.3, "ask", pause=0.5)

    run(main())


def test_a_line_that_takes_nothing_is_not_waited_for_without_end():
    class Full(Told):
        async def write(self, data: bytes) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        wire = Wire(Full(), Brackets(), LANGUAGE)
        with pytest.raises(NoAnswer, match="told:: the reader takes nothing for 5 s"):
            await wire.send(b"(ask)")
        assert wire.counts.errors == {"NoAnswer": 1}

    run(main())


def test_a_trace_that_cannot_be_written_ends_and_nothing_else_does(caplog):
    def full(_: str) -> None:
        written.append(_)
        raise OSError(errno.ENOSPC, "No space left on device")

    written: list[str] = []

    async def main() -> None:
        link = Told()
        tracer = Tracer(full, asyncio.get_running_loop().time)
        wire = Wire(link, Brackets(), LANGUAGE, tracer=tracer)
        await wire.send(b"(ask)")
        link.coming.put_nowait(b"(answer)")
        assert await wire.receive(1.0, "ask") == b"(answer)"
        assert isinstance(tracer.failed, OSError)

    run(main())
    assert len(written) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the trace cannot be written any more, and ends here: No space left on device"
    ]


def test_a_reader_that_talks_without_being_heard_fills_no_memory():
    async def main() -> None:
        link = Told()
        wire = Wire(link, Brackets(), LANGUAGE)
        link.coming.put_nowait(b"(a)" * 1000 + b"(z)")
        assert await wire.receive(1.0, "nothing") == b"(a)"
        rest = [await wire.receive(1.0, "nothing") for _ in range(BACKLOG - 1)]
        assert rest[-1] == b"(z)"
        link.coming.put_nowait(b"(half")
        wire.discard()
        link.coming.put_nowait(b"(whole)")
        assert await wire.receive(1.0, "nothing") == b"(whole)"

    run(main())


@pytest.mark.parametrize("line", ["{", '{"t":0,"way":"up","frame":""}', '{"t":0,"way":"in","frame":"0g"}', "[]"])
def test_what_is_no_trace_is_refused_by_its_line(line):
    with pytest.raises(ProtocolError, match="line 2 "):
        list(read_trace(["\n", line]))


class Scripted(ChipCard):
    """Answers what it was given, and stops at the first deviation."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        super().__init__(EntryMode.CHIP, b"")
        self.pairs = list(pairs)

    async def _exchange(self, command: bytes) -> bytes:
        wanted, answer = self.pairs.pop(0)
        assert command.hex() == wanted
        return bytes.fromhex(answer)

    async def release(self) -> None:
        pass


def test_what_a_card_says_in_pieces_is_put_together():
    card = Scripted(("00b2010c00", "6c03"), ("00b2010c03", "0102036102"), ("00c0000002", "04059000"))
    answer = asyncio.run(card.transmit(Command(0x00, 0xB2, 0x01, 0x0C, le=256)))
    assert (answer.data.hex(), answer.ok) == ("0102030405", True)


def test_a_card_that_never_ends_is_a_card_error():
    card = Scripted(("00b2010c00", "6101"), *[("00c0000001", "aa6101")] * 100)
    with pytest.raises(CardError, match="never says it"):
        asyncio.run(card.transmit(Command(0x00, 0xB2, 0x01, 0x0C, le=256)))


def test_a_card_that_never_answers_is_given_a_minute_and_a_half():
    class Silent(Scripted):
        async def _exchange(self, command: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

    async def main() -> None:
        with pytest.raises(CardError, match="not done within 90 s"):
            await Silent().transmit(Command(0x00, 0xB2))

    run(main())


def test_a_driver_s_own_timeout_is_not_taken_for_the_card_s():
    class Broken(Scripted):
        async def _exchange(self, command: bytes) -> bytes:
            raise TimeoutError("a bug")

    with pytest.raises(TimeoutError, match="a bug"):
        asyncio.run(Broken().transmit(Command(0x00, 0xB2)))


def test_a_sealed_card_shows_its_masked_pan_alone():
    card = SealedCard(
        scheme="dukpt-aes",
        ksn=b"\1\2",
        data=b"\3\4",
        masked_pan="476173******0119",
        entry_mode=EntryMode.CONTACTLESS,
    )
    assert repr(card) == "SealedCard(476173******0119)"


def test_what_was_not_taken_is_dropped_without_a_flush():
    async def main() -> None:
        link = Told()
        wire = Wire(link, Brackets(), LANGUAGE)
        link.coming.put_nowait(b"(a)(b)(half")
        assert await wire.receive(1.0, "nothing") == b"(a)"
        link.coming.put_nowait(b"of it)")
        wire.drop()
        link.coming.put_nowait(b"(whole)")
        assert await wire.receive(1.0, "nothing") == b"(whole)"

    run(main())
