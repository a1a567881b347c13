"""Ports as the system lists them, and what answers on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hw.card import StripeCard
from hw.errors import BadAddress, LineError, LineGone
from hw.finding import ASKED, Port, Whereabouts, found_again, port_at, ports
from hw.probing import QUESTIONS, probe, reader_url
from hw.reader import DRIVERS, ReaderBack, ReaderEvent, ReaderGone, open_reader
from sim.reader import acs, gemcore, magstripe, pn532, vivopay
from sim.reader.line import PtyLine, SocketLine

Started = Callable[[], AbstractAsyncContextManager[Any]]
PATIENT = 20.0
"""Times the usual patience: a busy machine is no silent reader."""


@dataclass
class Info:
    device: str
    vid: int | None = None
    pid: int | None = None
    serial_number: str | None = None
    location: str | None = None
    manufacturer: str | None = None
    product: str | None = None


def test_ports_are_listed_with_their_stable_names(tmp_path: Path) -> None:
    device = tmp_path / "ttyUSB0"
    device.touch()
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    (by_id / "usb-FTDI_A1-if00-port0").symlink_to(device)
    board = tmp_path / "serial0"
    board.touch()
    found = ports(
        lambda: [Info(str(device), 0x0403, 0x6001, "A1", "1-1.2", "FTDI", "FT232R\x1b[2J"), Info("/dev/ttyACM9")],
        by_id,
        [str(board), str(tmp_path / "absent")],
    )
    assert [port.path for port in found] == sorted(["/dev/ttyACM9", str(device), str(board)])
    usb = port_at(str(device), found)
    assert usb is not None
    assert usb == Port(
        str(device), 0x0403, 0x6001, "A1", "1-1.2", "FTDI FT232R?[2J", str(by_id / "usb-FTDI_A1-if00-port0")
    )
    assert usb.name == usb.stable
    assert usb.what == "FTDI FT232R?[2J (0403:6001)"
    assert port_at(usb.stable, found) == usb
    assert port_at(str(board), found) == Port(str(board))
    assert port_at("/dev/null", found) is None


def test_a_board_port_that_is_listed_is_not_listed_twice(tmp_path: Path) -> None:
    uart = tmp_path / "ttyAMA0"
    uart.touch()
    link = tmp_path / "serial0"
    link.symlink_to(uart)
    (only,) = ports(lambda: [Info(str(uart))], tmp_path / "nothing", [str(link)])
    assert (only.path, only.what) == (str(uart), "a UART of this board")


def test_the_ports_of_this_machine_can_be_listed() -> None:
    assert all(port.path.startswith("/dev/") for port in ports())


@pytest.mark.parametrize(
    ("vid", "pid", "likely", "left_alone"),
    [
        (None, None, (), False),
        (0x0ACD, 0x3810, ("vivopay", "magstripe"), False),
        (0x1A86, 0x7523, ("pn532",), False),
        (0x1A86, 0x0001, (), False),
        (0x0403, 0x6001, (), False),
        (0x2341, 0x0043, (), True),
    ],
)
def test_usb_ids_say_what_to_ask_first(
    vid: int | None, pid: int | None, likely: tuple[str, ...], left_alone: bool
) -> None:
    port = Port("/dev/ttyUSB0", vid, pid)
    assert port.likely == likely
    assert port.drivers[: len(likely)] == likely
    assert sorted(port.drivers) == sorted(ASKED)
    assert bool(port.not_asked) is left_alone


LOST = Port("/dev/ttyUSB0", 0x0403, 0x6001, "A1", "1-1.2")


@pytest.mark.parametrize(
    ("now", "where"),
    [
        ([], None),
        ([("/dev/ttyUSB1", "A1", "1-1.2")], "/dev/ttyUSB1"),
        ([("/dev/ttyUSB1", "A1", "1-1.4")], "/dev/ttyUSB1"),  # in another socket
        ([("/dev/ttyUSB0", "B2", "1-1.2")], None),  # another one in its socket, under its name
        ([("/dev/ttyUSB0", "A1", "1-1.3"), ("/dev/ttyUSB1", "A1", "1-1.2")], "/dev/ttyUSB1"),  # twins
        ([("/dev/ttyUSB0", "A1", "1-1.3"), ("/dev/ttyUSB1", "A1", "1-1.4")], None),  # nobody can tell
    ],
)
def test_a_port_that_comes_back_is_found(now: list[tuple[str, str, str]], where: str | None) -> None:
    found = [Port(path, 0x0403, 0x6001, serial, location) for path, serial, location in now]
    again = found_again(LOST, found)
    assert (again.path if again else None) == where


def test_one_without_a_number_is_found_by_its_socket_alone() -> None:
    lost = Port("/dev/ttyUSB0", 0x1A86, 0x7523, "", "1-1.2")
    back = Port("/dev/ttyUSB3", 0x1A86, 0x7523, "", "1-1.2")
    assert found_again(lost, [Port("/dev/ttyUSB0", 0x1A86, 0x7523, "", "1-1.1"), back]) == back
    moved = Port("/dev/ttyUSB0", 0x1A86, 0x7523, "", "1-1.1")
    assert found_again(lost, [moved]) == moved  # by its name, as nothing says otherwise
    assert found_again(lost, [Port("/dev/ttyUSB1", 0x1A86, 0x7523, "", "1-1.1")]) is None
    uart = Port("/dev/ttyAMA0")
    assert found_again(uart, [Port("/dev/ttyAMA0"), back]) == uart


def test_where_a_line_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[Port] = [LOST]
    monkeypatch.setattr("hw.finding.ports", lambda: tuple(there))
    where = Whereabouts("/dev/ttyUSB0?baud=9600")
    assert where.now() == "/dev/ttyUSB0?baud=9600"
    where.seen()
    assert where.now() == "/dev/ttyUSB0?baud=9600"
    for path, socket in (("/dev/ttyUSB4", "1-1.4"), ("/dev/ttyUSB7", "1-1.3"), ("/dev/ttyUSB0", "1-1.2")):
        there[:] = [Port(path, 0x0403, 0x6001, "A1", socket)]
        assert where.now() == f"{path}?baud=9600"
        where.seen()
    there[:] = []
    assert where.now() == "/dev/ttyUSB0?baud=9600"
    there[:] = [Port("/dev/ttyUSB0", 0x12D1, 0x1001, "C3", "1-1.2", "HUAWEI Mobile")]
    with pytest.raises(LineError, match="another device has this name now, HUAWEI Mobile"):
        where.now()


def test_what_is_no_usb_device_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw.finding.ports", lambda: (Port("/dev/ttyAMA0"),))
    for line in ("/dev/ttyAMA0?baud=115200", "/dev/pts/3", "socket://127.0.0.1:4001"):
        where = Whereabouts(line)
        where.seen()
        assert where.now() == line


def test_a_reader_that_was_unplugged_is_opened_under_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with magstripe.on_pty() as first, magstripe.on_pty() as second:
            here, there = first.line, second.line
            assert isinstance(here, PtyLine)
            assert isinstance(there, PtyLine)
            paths = [here.path]
            monkeypatch.setattr("hw.finding.ports", lambda: (Port(paths[0], 0x0403, 0x6001, "A1", "1-1"),))
            told: list[type[ReaderEvent]] = []
            async with open_reader(first.url) as reader:
                reader.on_event = lambda event: told.append(type(event))
                wait = asyncio.create_task(reader.wait_for_card(30))
                await asyncio.sleep(0)
                paths[:] = [there.path]
                await here.close()
                with pytest.raises(LineGone):
                    await wait
                await reader.open()
                again = asyncio.create_task(reader.wait_for_card(30))
                await asyncio.sleep(0)  # it has dropped what came before
                await second.swipe("visa")
                assert isinstance(await again, StripeCard)
            assert told == [ReaderGone, ReaderBack]

    asyncio.run(main())


EMULATED: dict[str, tuple[Started, Started, str]] = {
    "pn532": (pn532.on_pty, pn532.on_socket, "PN532 1.6"),
    "gemcore": (gemcore.on_pty, gemcore.on_socket, "GemCore-Tillwright-1.0"),
    "acs": (acs.on_pty, acs.on_socket, "a reader of ACS's; contactless cards come with ?slot=picc"),
    "vivopay": (vivopay.on_pty, vivopay.on_socket, "NEO v1.00.000"),
}


@pytest.mark.parametrize("place", [0, 1], ids=["pty", "socket"])
@pytest.mark.parametrize("driver", EMULATED)
def test_each_driver_finds_its_reader_and_the_url_opens_it(driver: str, place: int) -> None:
    async def main() -> None:
        async with EMULATED[driver][place]() as emulated:
            line = str(emulated.line.address).removeprefix("://").removeprefix("+")
            probed = await probe(line, [driver], patience=PATIENT)
            assert (probed.error, probed.driver, probed.says) == (None, driver, EMULATED[driver][2])
            async with open_reader(probed.url):
                pass

    asyncio.run(main())


@pytest.mark.parametrize("there", EMULATED)
def test_wrong_questions_come_to_nothing_and_the_right_one_is_answered_after_them(there: str) -> None:
    async def main() -> None:
        async with EMULATED[there][0]() as emulated:
            others = [driver for driver in ASKED if driver != there]
            wrong = await probe(emulated.line.path, others, patience=0.3)
            assert (wrong.driver, wrong.asked, wrong.error) == ("", tuple(others), None)
            assert (await probe(emulated.line.path, [there], patience=PATIENT)).driver == there

    asyncio.run(main())


def test_a_port_where_nobody_answers_has_been_asked_everything() -> None:
    async def main() -> None:
        async with magstripe.on_pty() as emulated:
            assert isinstance(emulated.line, PtyLine)
            probed = await probe(emulated.line.path, ASKED, patience=0.3)
            assert (probed.driver, probed.asked, probed.heard, probed.error) == ("", ASKED, 0, None)

    asyncio.run(main())


def test_who_talks_and_is_not_understood_is_heard() -> None:
    async def main() -> None:
        line = SocketLine()
        await line.open()

        async def babble() -> None:
            while True:
                await line.read()
                await line.write(b"login: ")

        babbling = asyncio.create_task(babble())
        probed = await probe(f"socket://127.0.0.1:{line.port}", ["magstripe", "acs"])
        babbling.cancel()
        await line.close()
        assert (probed.driver, probed.error) == ("", None)
        assert probed.heard >= len(b"login: ")

    asyncio.run(main())


def test_a_stripe_reader_that_takes_commands_is_known_by_its_ack() -> None:
    async def main() -> None:
        line = PtyLine()

        async def obey() -> None:
            assert await line.read() == bytes.fromhex("02521F034C")
            await line.write(b"\x06")

        obeying = asyncio.create_task(obey())
        probed = await probe(line.path, ["magstripe"], "/dev/serial/by-id/x", patience=PATIENT)
        await obeying
        await line.close()
        assert probed.url == "magstripe:///dev/serial/by-id/x"

    asyncio.run(main())


@pytest.mark.parametrize("make", magstripe.FORMATS)
@pytest.mark.parametrize("driver", [driver for driver in ASKED if driver != "magstripe"])
def test_a_stripe_reader_is_known_by_a_swipe_whatever_is_asked(driver: str, make: str) -> None:
    async def main() -> None:
        line = PtyLine()

        async def swipe() -> None:
            await line.read()
            await magstripe.MagstripeEmulator(line, make).swipe("visa")

        swiping = asyncio.create_task(swipe())
        probed = await probe(line.path, [driver])
        await swiping
        await line.close()
        assert (probed.driver, probed.url) == ("magstripe", f"magstripe://{line.path}")
        assert "4111111111111111" not in repr(probed)

    asyncio.run(main())


def test_a_reader_that_goes_away_while_it_is_asked() -> None:
    async def main() -> None:
        async with pn532.on_pty() as emulated:
            emulated.reader.misbehave(pn532.Fault.UNPLUG)
            assert isinstance(emulated.line, PtyLine)
            probed = await probe(emulated.line.path, ASKED, patience=PATIENT)
            assert probed.driver == ""
            assert isinstance(probed.error, LineError)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("line", "kind", "why"),
    [
        ("/dev/ttyNowhere0", LineError, "there is no such port"),
        ("/dev/null", LineError, "not a serial port"),
        ("socket://127.0.0.1:9", LineError, "cannot connect"),
        ("carrier-pigeon://x:1", BadAddress, "a line is a device's path"),
    ],
)
def test_a_port_that_cannot_be_asked_says_why(line: str, kind: type[Exception], why: str) -> None:
    probed = asyncio.run(probe(line, ASKED))
    assert isinstance(probed.error, kind)
    assert why in str(probed.error)
    assert probed.asked == ()


def test_every_question_is_of_a_driver_and_every_driver_is_asked_about() -> None:
    assert set(QUESTIONS) == set(ASKED)
    assert set(QUESTIONS) <= set(DRIVERS)


def test_urls() -> None:
    assert reader_url("pn532", "/dev/ttyUSB0") == "pn532:///dev/ttyUSB0"
    assert reader_url("acs", "rfc2217://10.0.0.7:2217") == "acs+rfc2217://10.0.0.7:2217"


@pytest.mark.parametrize("trouble", [TypeError, OSError])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_device_that_vanishes_while_ports_are_listed(
    monkeypatch: pytest.MonkeyPatch, trouble: type[Exception], times: int
) -> None:
    """pyserial asks for the number of a device that is not there any more: ``int(None, 16)``."""
    troubles = [trouble] * times

    def comports() -> list[object]:
        if troubles:
            raise troubles.pop()
        return [Info("/dev/ttyUSB0")]

    monkeypatch.setattr("serial.tools.list_ports.comports", comports)
    found = ports(by_id=Path("/none"), board_ports=())
    assert [port.path for port in found] == (["/dev/ttyUSB0"] if times < 3 else [])
