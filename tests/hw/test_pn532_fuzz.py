"""The PN532's driver against a line that says anything: what comes out is a card or one of `hw.errors`."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hw import pn532_frames as frames
from hw.apdu import Command
from hw.errors import ReaderError
from hw.pn532 import Pn532Card
from sim.virtual_time import run
from tests.hw.pn532s import Plastic, bench

codes = st.sampled_from(sorted(frames.NAMES))
said = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([frames.ACK, frames.NACK, frames.ERROR, b"\0\0\xff\2\xfe\xd5\x41\0\0", b""]),
    st.builds(frames.answer, codes, st.binary(max_size=40)),
    st.builds(frames.answer, codes, st.binary(min_size=100, max_size=251)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_only_typed_errors_come_out(monkeypatch, data):
    async def main():
        async with bench(monkeypatch) as here:
            obeyed = here.chip._hear

            async def hear(asked):
                """Obey, or say anything; with an ACK before it as often as not."""
                for _ in range(data.draw(st.integers(0, 3))):
                    await here.line.write(data.draw(st.sampled_from([b"", frames.ACK])) + data.draw(said))
                if data.draw(st.booleans()):
                    await obeyed(asked)

            here.chip._hear = hear
            here.chip.tap(Plastic())
            for _ in range(3):
                with suppress(ReaderError):
                    card = await here.reader.wait_for_card(2)
                    assert isinstance(card, Pn532Card)
                    await card.transmit(Command(0x00, 0xB2, 1, 0x0C, le=256))
                    await card.is_present()
                    await card.release()
            here.chip._hear = obeyed
            here.chip.remove()
            await asyncio.sleep(1)  # what was begun is said
            with suppress(ReaderError):  # and this clears what it left
                await here.reader.wait_for_card(2)
            here.chip.tap(Plastic(uid=b"\1\2\3\4"))
            assert (await here.reader.wait_for_card(10)).uid == b"\1\2\3\4"

    run(main())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_a_card_may_say_anything(monkeypatch, answers):
    async def main():
        async with bench(monkeypatch) as here:
            saying = iter(answers)
            card = await here.card(Plastic(says=lambda _: next(saying, b"\x90\0")))
            for _ in answers:
                with suppress(ReaderError):
                    await card.transmit(Command(0x00, 0xB2, 1, 0x0C, le=256))
            assert (await card.transmit(Command(0x00, 0xB2, 1, 0x0C, le=256))).ok

    run(main())


@pytest.mark.parametrize("ends", [b"", b"\0"])
def test_bytes_that_never_end_hold_no_memory(monkeypatch, ends):
    async def main():
        async with bench(monkeypatch) as here:

            async def flood(_):
                while not here.line.unplugged:
                    await here.line.write(b"\0\xff\xff\xff\1\x09\xf6\xd5" * 500 + ends)
                    await asyncio.sleep(0)

            here.chip._hear = flood
            with pytest.raises(ReaderError):
                async with asyncio.timeout(60):
                    await here.reader.open()
            await here.line.close()

    run(main())
