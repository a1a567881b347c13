"""The reader's base, over the stripe driver and its emulator: deadlines, cancelling, stale swipes, lost lines."""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.card import Card, StripeCard
from hw.errors import (
    BadAddress,
    Cancelled,
    CardError,
    FramingError,
    LineError,
    LineGone,
    NotSupported,
    ProtocolError,
    ReaderError,
    TimedOut,
)
from hw.reader import Address, Capabilities, Reader, ReaderEvent, open_reader, parse_address
from sim.reader.line import PtyLine
from sim.reader.magstripe import FORMATS, Emulated, Fault, MagstripeEmulator, on_pty, on_socket, swipe_bytes
from sim.reader.stripes import CARDS

PLACES = {"pty": on_pty, "socket": on_socket}
OnLine = Callable[[str], AbstractAsyncContextManager[Emulated]]


async def waiting(reader: Reader, timeout: float | None = 10.0) -> asyncio.Task[Card]:
    """A wait for a card that has begun: what comes from now on counts."""
    wait = asyncio.create_task(reader.wait_for_card(timeout))
    await asyncio.sleep(0)
    return wait


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("place", PLACES)
def test_every_card_comes_through_every_make_over_every_line(place: str, make: str) -> None:
    async def main() -> None:
        async with PLACES[place](make) as emulated, open_reader(emulated.url) as reader:
            await emulated.line.listening()
            for stripe in CARDS.values():
                wait = await waiting(reader)
                await emulated.swipe(stripe)
                card = await wait
                assert isinstance(card, StripeCard)
                assert (card.pan, card.expiry) == (stripe.pan, "2812")
                assert (card.track3 is not None) == (3 in stripe.tracks)

    asyncio.run(main())


@pytest.mark.parametrize("make", FORMATS)
def test_faults_are_card_errors_or_survived_and_the_next_swipe_counts(make: str) -> None:
    outcomes = {
        Fault.READ_ERROR: "track 2 could not be read",
        Fault.BAD_LRC: "track 2 fails its LRC" if make == "uic" else "track 2 could not be read",
        Fault.TRACK_1_UNREADABLE: None,
        Fault.GARBAGE: None,
        Fault.SPLIT: None,
    }
    assert set(outcomes) | {Fault.UNPLUG} == set(Fault)

    async def main() -> None:
        async with on_pty(make) as emulated, open_reader(emulated.url) as reader:
            for fault, why in outcomes.items():
                wait = await waiting(reader)
                await emulated.swipe("visa", fault)
                if why is None:
                    assert (await wait).pan == CARDS["visa"].pan
                else:
                    with pytest.raises(CardError, match=why) as caught:
                        await wait
                    assert "Swipe the card again" in caught.value.advice

    asyncio.run(main())


GONE = {
    "pty": ("the device is gone", "Plug the reader in again"),
    "socket": ("the connection is gone", "the serial server or the emulator at {} runs"),
}
"""What is said of it, and what to do about the other end."""


@pytest.mark.parametrize("place", PLACES)
def test_a_reader_pulled_out_in_the_middle_of_a_swipe(place: str) -> None:
    async def main() -> None:
        async with PLACES[place]("magtek") as emulated, open_reader(emulated.url) as reader:
            await emulated.line.listening()
            wait = await waiting(reader)
            await emulated.swipe("visa", Fault.UNPLUG)
            with pytest.raises(LineGone, match=GONE[place][0]) as caught:
                await wait
            assert str(caught.value).startswith(f"{emulated.url}: ")
            assert GONE[place][1].format(emulated.url.rpartition("/")[2]) in caught.value.advice
            with pytest.raises(LineError):  # it tries to open it again
                await reader.wait_for_card(10)

    asyncio.run(main())


def test_a_reader_that_is_plugged_in_again_works_again(tmp_path: Path) -> None:
    async def main() -> None:
        device = tmp_path / "reader"

        def plug_in() -> MagstripeEmulator:
            line = PtyLine()
            device.unlink(missing_ok=True)
            device.symlink_to(line.path)
            lines.append(line)
            return MagstripeEmulator(line)

        lines: list[PtyLine] = []
        emulator = plug_in()
        async with open_reader(f"magstripe://{device}?baud=19200") as reader:
            for _ in range(3):
                wait = await waiting(reader)
                await lines[-1].close()
                with pytest.raises(LineGone):
                    await wait
                emulator = plug_in()
                wait = await waiting(reader)
                await lines[-1].listening()
                await emulator.swipe("amex")
                assert (await wait).pan == CARDS["amex"].pan
        await lines[-1].close()

    asyncio.run(main())


@pytest.mark.parametrize("place", PLACES)
def test_a_swipe_before_the_wait_does_not_count(place: str) -> None:
    async def main() -> None:
        async with PLACES[place]("magtek") as emulated, open_reader(emulated.url) as reader:
            await emulated.line.listening()
            await emulated.swipe("visa")
            wait = await waiting(reader)
            await emulated.swipe("amex")
            assert (await wait).pan == CARDS["amex"].pan

    asyncio.run(main())


def test_a_notice_and_noise_are_waited_out() -> None:
    async def main() -> None:
        async with on_pty("idtech") as emulated, open_reader(emulated.url) as reader:
            wait = await waiting(reader)
            await emulated.line.write(b"\x02\x1b1\r\x03\x00\xff")
            await emulated.line.write(b"\x02")  # silence ends it, and it is nothing
            await asyncio.sleep(0)
            await emulated.swipe("visa")
            assert (await wait).pan == CARDS["visa"].pan

    asyncio.run(main())


def test_a_swipe_that_never_ends_is_a_framing_error_after_a_silence() -> None:
    async def main() -> None:
        async with on_pty() as emulated, open_reader(emulated.url) as reader:
            wait = await waiting(reader)
            await emulated.line.write(b"%B47617390")
            with pytest.raises(FramingError, match="10 bytes came that are no swipe"):
                await wait

    asyncio.run(main())


def test_a_named_format_takes_no_other() -> None:
    async def main() -> None:
        async with on_pty("uic") as emulated, open_reader(f"{emulated.url}?format=idtech") as reader:
            wait = await waiting(reader)
            await emulated.swipe("visa")
            with pytest.raises(FramingError):
                await wait
        async with on_pty("uic") as emulated, open_reader(f"{emulated.url}?format=uic&baud=9600") as reader:
            wait = await waiting(reader)
            await emulated.swipe("visa")
            assert (await wait).pan == CARDS["visa"].pan

    asyncio.run(main())


def test_nobody_comes() -> None:
    async def main() -> None:
        async with on_pty() as emulated, open_reader(emulated.url) as reader:
            with pytest.raises(TimedOut, match=r"no card within 0\.01 seconds") as caught:
                await reader.wait_for_card(0.010004)
            assert str(caught.value).startswith(emulated.url)
            wait = await waiting(reader)
            await emulated.swipe("visa")
            assert (await wait).pan == CARDS["visa"].pan

    asyncio.run(main())


def test_a_wait_that_is_called_off() -> None:
    async def main() -> None:
        async with on_pty() as emulated, open_reader(emulated.url) as reader:
            reader.cancel()  # nothing to cancel
            for timeout in (10.0, None):
                wait = await waiting(reader, timeout)
                reader.cancel()
                reader.cancel()
                with pytest.raises(Cancelled, match="the wait for a card was cancelled"):
                    await wait
            wait = await waiting(reader)
            await emulated.swipe("visa")
            assert (await wait).pan == CARDS["visa"].pan

    asyncio.run(main())


def test_the_task_of_a_wait_may_be_cancelled_as_any_other() -> None:
    async def main() -> None:
        async with on_pty() as emulated, open_reader(emulated.url) as reader:
            wait = await waiting(reader)
            await emulated.line.write(b"%B476")
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
            wait = await waiting(reader)
            await emulated.swipe("visa")
            assert (await wait).pan == CARDS["visa"].pan

    asyncio.run(main())


def test_one_wait_at_a_time() -> None:
    async def main() -> None:
        async with on_pty() as emulated, open_reader(emulated.url) as reader:
            wait = await waiting(reader)
            with pytest.raises(ProtocolError, match="already under way"):
                await reader.wait_for_card(10)
            await emulated.swipe("visa")
            assert (await wait).pan == CARDS["visa"].pan

    asyncio.run(main())


def test_closing_the_reader_ends_the_wait() -> None:
    async def main() -> None:
        async with on_pty() as emulated:
            reader = open_reader(emulated.url)
            await reader.open()
            await reader.open()
            wait = await waiting(reader)
            await reader.close()
            await reader.close()
            with pytest.raises(LineGone, match="the line is closed"):
                await wait

    asyncio.run(main())


def test_what_is_closed_while_it_is_opened_is_not_open() -> None:
    """As a reader that is looked for again when its terminal ends: the port is another's to open, at once."""
    starts, goes_on = asyncio.Event(), asyncio.Event()

    class Slow(Reader):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities()

        async def _start(self, link: object) -> None:
            starts.set()
            await goes_on.wait()

        async def _next_card(self, link: object) -> Card:
            raise AssertionError("nobody waits any more")

    async def main() -> None:
        told: list[ReaderEvent] = []
        async with on_pty() as emulated:
            reader = Slow(parse_address(emulated.url))
            reader.on_event = told.append
            wait = asyncio.create_task(reader.wait_for_card(None))
            await starts.wait()
            await reader.close()
            goes_on.set()
            with pytest.raises(LineGone, match="the reader was closed"):
                await wait
            async with open_reader(emulated.url):  # which nobody else holds
                pass
            await reader.open()
            await reader.close()
        assert told == []

    asyncio.run(main())


def test_a_driver_s_own_timeout_is_not_taken_for_the_deadline() -> None:
    class Broken(Reader):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities()

        async def _next_card(self, link: object) -> Card:
            raise TimeoutError("a bug")

    async def main() -> None:
        async with on_pty() as emulated, Broken(parse_address(emulated.url)) as reader:
            with pytest.raises(TimeoutError, match="a bug"):
                await reader.wait_for_card(10)

    asyncio.run(main())


def test_a_silence_that_a_busy_loop_only_imagined_does_not_tear_a_swipe() -> None:
    async def main() -> None:
        message = swipe_bytes(CARDS["visa"], "idtech")
        async with on_pty("idtech") as emulated, open_reader(emulated.url) as reader:
            wait = await waiting(reader)
            await emulated.line.write(message[:20])
            link = reader._link
            assert link is not None
            take, asked = link.take, asyncio.Event()

            def late() -> bytes:
                asked.set()  # the silence is over: here is the rest, which the loop was too late to see
                monkey.undo()
                os.write(emulated.line._link._descriptor, message[20:])  # type: ignore[union-attr]
                data = b""
                while not data:
                    data = take()
                return data

            monkey = pytest.MonkeyPatch()
            monkey.setattr(link, "take", late)
            assert (await wait).pan == CARDS["visa"].pan
            assert asked.is_set()

    asyncio.run(main())


def test_what_the_driver_can_do() -> None:
    reader = open_reader("magstripe:///dev/ttyS1")
    assert reader.capabilities == Capabilities(stripe=True)
    assert not reader.capabilities.encrypts


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("nowhere_at_all:Reader", "does not load: No module named 'nowhere_at_all'"),
        ("hw.reader:Nothing", "does not load: module 'hw.reader' has no attribute 'Nothing'"),
        ("hw.reader:Sale", "is no driver of readers"),
        ("hw.reader:open_reader", "is no driver of readers"),
    ],
)
def test_another_package_s_driver_that_is_none(target: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = EntryPoint("acme", target, "tillwright.readers")
    monkeypatch.setattr("hw.reader.entry_points", lambda group: [theirs] if group == theirs.group else [])
    with pytest.raises(NotSupported) as caught:
        open_reader("acme:///dev/ttyS1")
    assert f"'acme' ({target}) {why}" in str(caught.value)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("url", "driver", "line", "options"),
    [
        ("magstripe:///dev/ttyS1?baud=9600", "magstripe", "/dev/ttyS1", {"baud": "9600"}),
        ("magstripe:///dev/serial/by-id/usb-FTDI-if00", "magstripe", "/dev/serial/by-id/usb-FTDI-if00", {}),
        ("magstripe+socket://10.0.0.7:4001?format=uic", "magstripe", "socket://10.0.0.7:4001", {"format": "uic"}),
        ("magstripe+rfc2217://[::1]:2217", "magstripe", "rfc2217://[::1]:2217", {}),
        ("pcsc://ACS*", "pcsc", "ACS*", {}),
        ("sim://visa-credit", "sim", "visa-credit", {}),
    ],
)
def test_addresses(url: str, driver: str, line: str, options: dict[str, str]) -> None:
    assert parse_address(url) == Address(url, driver, line, options)


@pytest.mark.parametrize(
    ("url", "error", "why"),
    [
        ("/dev/ttyS1", BadAddress, "begins with its driver"),
        ("", BadAddress, "begins with its driver"),
        ("magstripe+socket://[::1", BadAddress, "Invalid IPv6"),
        ("magstripe:///dev/ttyS1?baud", BadAddress, "bad query field"),
        ("magstripe:///dev/ttyS1?format=hex", BadAddress, "format is one of auto, magtek, idtech, uic"),
        ("punchcard:///dev/ttyS1", NotSupported, r"no driver named 'punchcard' \(there are: .*magstripe"),
    ],
)
def test_addresses_that_are_none(url: str, error: type[ReaderError], why: str) -> None:
    with pytest.raises(error, match=why):
        open_reader(url)


@pytest.mark.parametrize(
    "url",
    ["magstripe://", "magstripe:///dev/ttyS1?colour=red", "magstripe+socket://127.0.0.1", "magstripe+ftp://x:1"],
)
def test_lines_that_are_none_are_found_on_opening(url: str) -> None:
    async def main() -> None:
        with pytest.raises(BadAddress):
            await open_reader(url).open()

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(noise=st.lists(st.binary(max_size=300) | st.sampled_from([b"%B476?", b";", b"\x02", b"\x03"]), max_size=8))
def test_whatever_a_line_says_only_typed_errors_come_out_and_the_next_card_is_read(noise: list[bytes]) -> None:
    async def main() -> None:
        master, device = pty.openpty()
        tty.setraw(device)
        try:
            async with open_reader(f"magstripe://{os.ttyname(device)}") as reader:
                wait = await waiting(reader, 0.001)
                for piece in noise:
                    os.write(master, piece)
                    await asyncio.sleep(0)
                with pytest.raises((TimedOut, CardError, FramingError)):
                    await wait
                wait = await waiting(reader)
                os.write(master, swipe_bytes(CARDS["visa"], "magtek"))
                assert (await wait).pan == CARDS["visa"].pan
        finally:
            os.close(master)
            os.close(device)

    asyncio.run(main())
