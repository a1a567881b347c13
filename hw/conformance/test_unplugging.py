"""A reader that is pulled out and plugged in again. Only with --reader-unplug: no emulator has hands."""

from __future__ import annotations

import asyncio

import pytest

from hw.conformance.session import Bench, let_go
from hw.errors import CardError, LineError, LineGone, TimedOut
from hw.reader import Reader, ReaderBack, ReaderGone

pytestmark = pytest.mark.unplugs

LOOK = 0.5
"""Seconds between two tries to open it."""


def test_a_reader_that_is_unplugged_is_told_and_works_when_it_is_back(bench: Bench) -> None:
    """LineGone within the time that a person is waited for, and a wait as before once it is plugged in again."""

    async def work(reader: Reader) -> None:
        async def wait_on() -> None:
            while True:
                try:
                    await let_go(await reader.wait_for_card(bench.timeout))
                except CardError:
                    continue

        bench.ask("pull the reader's plug now")
        with pytest.raises(LineGone):
            await wait_on()
        assert any(isinstance(event, ReaderGone) for event in bench.events)
        bench.ask("plug the reader in again, in the same socket")
        async with asyncio.timeout(bench.timeout):
            while True:
                try:
                    await reader.open()
                    break
                except LineError:
                    await asyncio.sleep(LOOK)
        assert any(isinstance(event, ReaderBack) for event in bench.events)
        try:
            await let_go(await reader.wait_for_card(LOOK))
        except (TimedOut, CardError):
            return

    bench.run(work)
