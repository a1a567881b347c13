"""A bad serial line: what a driver makes of a swipe that arrives in pieces, twice, changed, late, or not at all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hw.errors import CardError, FramingError, LineError, LineGone, TimedOut
from hw.link import open_link
from hw.reader import open_reader
from sim.faults import Chooser, FaultError, parse_document
from sim.reader.line import FaultyLine, PtyLine
from sim.reader.magstripe import MagstripeEmulator, swipe_bytes
from sim.reader.stripes import CARDS
from sim.seed import seeded
from sim.virtual_time import run

VISA = CARDS["visa"]


class Kept:
    """A line that keeps what was written, with the time."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.closed = False

    async def read(self) -> bytes:
        return b"\x05"

    async def write(self, data: bytes) -> None:
        self.pieces.append((asyncio.get_running_loop().time(), data))

    async def close(self) -> None:
        self.closed = True


def faults(*rules: dict[str, Any]) -> Any:
    return Chooser(seeded(7, "line"), parse_document(json.dumps({"line": rules})).line)


def written(data: bytes, *rules: dict[str, Any]) -> Kept:
    kept = Kept()

    async def main() -> None:
        await FaultyLine(kept, faults(*rules)).write(data)

    run(main())
    return kept


class TestWhatArrives:
    def test_without_a_rule_all_of_it(self) -> None:
        assert written(b"card").pieces == [(0.0, b"card")]

    def test_drop(self) -> None:
        assert written(b"card", {"do": "drop"}).pieces == []

    def test_split(self) -> None:
        assert written(b"cards", {"do": "split", "size": 2, "seconds": 0.5}).pieces == [
            (0.0, b"ca"),
            (0.5, b"rd"),
            (1.0, b"s"),
        ]

    def test_double(self) -> None:
        assert written(b"card", {"do": "double"}).pieces == [(0.0, b"cardcard")]

    def test_corrupt(self) -> None:
        ((_, at_one),) = written(b"card", {"do": "corrupt", "at": 1}).pieces
        assert (at_one[:1], at_one[2:]) == (b"c", b"rd")
        assert at_one != b"card"
        ((_, somewhere),) = written(b"card", {"do": "corrupt"}).pieces
        assert sum(a != b for a, b in zip(somewhere, b"card", strict=True)) == 1

    def test_stall(self) -> None:
        assert written(b"card", {"do": "stall", "seconds": 3}).pieces == [(0.0, b"ca"), (3.0, b"rd")]

    def test_unplug(self) -> None:
        kept = written(b"card", {"do": "unplug"})
        assert (kept.pieces, kept.closed) == ([(0.0, b"ca")], True)

    def test_what_the_driver_says_is_heard(self) -> None:
        assert run(FaultyLine(Kept(), faults({"do": "drop"})).read()) == b"\x05"

    def test_only_the_one_that_matches(self) -> None:
        kept, wrong = Kept(), faults({"do": "drop", "match": {"nth": 2}})

        async def main() -> None:
            line = FaultyLine(kept, wrong)
            for piece in (b"a", b"b", b"c"):
                await line.write(piece)

        run(main())
        assert [piece for _, piece in kept.pieces] == [b"a", b"c"]
        assert wrong.by_kind == {"drop": 1}

    @pytest.mark.parametrize(
        "rule", [{"do": "explode"}, {"do": "stall"}, {"do": "drop", "match": {"call": "charge"}}]
    )
    def test_an_unknown_word_is_refused(self, rule: dict[str, Any]) -> None:
        with pytest.raises(FaultError, match=r"^faults: "):
            faults(rule)


class TestWhatTheDriverMakesOfIt:
    async def swipe(self, *rules: dict[str, Any], timeout: float = 5.0) -> Any:
        line = PtyLine()
        emulator = MagstripeEmulator(FaultyLine(line, faults(*rules)))
        try:
            async with open_reader(f"magstripe{line.address}") as reader:
                waiting = asyncio.create_task(reader.wait_for_card(timeout))
                await line.listening()
                await emulator.swipe(VISA)
                return await waiting
        finally:
            await line.close()

    @pytest.mark.parametrize(
        "rule",
        [{"do": "split"}, {"do": "double"}, {"do": "stall", "seconds": 0.01}, {"do": "split", "size": 7}],
        ids=lambda rule: rule["do"],
    )
    def test_a_card_all_the_same(self, rule: dict[str, Any]) -> None:
        assert asyncio.run(self.swipe(rule)).masked_pan == VISA.masked_pan

    def test_a_lost_swipe_is_no_card(self) -> None:
        with pytest.raises(TimedOut):
            asyncio.run(self.swipe({"do": "drop"}, timeout=0.05))

    def test_the_plug_is_pulled(self) -> None:
        with pytest.raises(LineGone):
            asyncio.run(self.swipe({"do": "unplug"}))

    @pytest.mark.parametrize("at", range(0, len(swipe_bytes(VISA, "magtek")), 5))
    def test_a_changed_byte_is_never_another_card(self, at: int) -> None:
        try:
            card = asyncio.run(self.swipe({"do": "corrupt", "at": at}, timeout=0.2))
        except (CardError, FramingError, TimedOut):
            return
        assert card.masked_pan == VISA.masked_pan


def test_the_path_of_a_reader_that_was_pulled_out_is_nobody_else_s() -> None:
    async def main() -> None:
        line = PtyLine()
        await line.close()
        others = [PtyLine() for _ in range(3)]
        assert line.path not in {other.path for other in others}
        with pytest.raises(LineError, match="there is no such port"):
            await open_link(line.path)
        for other in others:
            await other.close()

    asyncio.run(main())
