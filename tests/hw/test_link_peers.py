"""Links against peers that are not ours: socat and ser2net."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from hw.errors import LineError, LineGone
from hw.line import Link
from hw.link import open_link
from tests.hw.peers import pty_pair, ser2net, socat, until

EVERY_BYTE = bytes(range(256))


async def read_exactly(link: Link, size: int) -> bytes:
    """The next ``size`` bytes; more is a failure."""
    data = b""
    async with asyncio.timeout(10):
        while len(data) < size:
            data += await link.read()
    assert len(data) == size
    return data


async def write_for_ever(link: Link) -> None:
    """At least until it fails."""
    async with asyncio.timeout(10):
        while True:
            await link.write(b"x")
            await asyncio.sleep(0)


async def exchange(here: Link, there: Link) -> None:
    """Every byte there is, both ways."""
    await here.write(EVERY_BYTE)
    assert await read_exactly(there, 256) == EVERY_BYTE
    await there.write(EVERY_BYTE[::-1])
    assert await read_exactly(here, 256) == EVERY_BYTE[::-1]


def test_a_serial_device_carries_every_byte_both_ways_through_socat(tmp_path: Path) -> None:
    async def main() -> None:
        async with pty_pair(tmp_path) as (here, there, _):
            a = await open_link(f"{here}?baud=115200&bits=8&parity=even&stop=2&flow=none")
            b = await open_link(there)
            await exchange(a, b)
            await a.close()
            await b.close()

    asyncio.run(main())


def test_more_than_the_line_holds_arrives_whole_and_in_order_through_socat(tmp_path: Path) -> None:
    async def main() -> None:
        payload = EVERY_BYTE * 256
        async with pty_pair(tmp_path) as (here, there, _):
            a, b = await open_link(here), await open_link(there)
            writing = asyncio.create_task(a.write(payload))
            assert await read_exactly(b, len(payload)) == payload
            await writing
            await a.close()
            await b.close()

    asyncio.run(main())


def test_a_serial_device_that_vanishes_is_gone_for_read_and_write(tmp_path: Path) -> None:
    async def main() -> None:
        async with pty_pair(tmp_path) as (here, _, cable):
            link = await open_link(here)
            reading = asyncio.create_task(link.read())
            await asyncio.sleep(0)
            cable.kill()
            with pytest.raises(LineGone, match=f"{here}: the device is gone"):
                await asyncio.wait_for(reading, 10)
            with pytest.raises(LineGone):
                await write_for_ever(link)  # the kernel hangs up a moment after it has told the reader
            await link.close()
            with pytest.raises(LineError):
                await open_link(here)

    asyncio.run(main())


def test_a_socket_carries_every_byte_both_ways_through_socat(tmp_path: Path) -> None:
    async def main() -> None:
        device = tmp_path / "device"
        listen = ("TCP-LISTEN:0,bind=127.0.0.1", f"PTY,rawer,link={device}")
        async with socat(*listen, says="listening on") as (cable, said):
            port = int(said[-1].rsplit(":", 1)[1])
            network = await open_link(f"socket://127.0.0.1:{port}")
            await until(device.exists)  # socat makes it once somebody has connected
            serial = await open_link(str(device))
            await exchange(network, serial)
            cable.kill()
            with pytest.raises(LineGone):
                await asyncio.wait_for(network.read(), 10)
            await network.close()
            await serial.close()

    asyncio.run(main())


def test_a_socket_of_ser2net_carries_every_byte_both_ways(tmp_path: Path) -> None:
    async def main() -> None:
        async with pty_pair(tmp_path) as (here, there, _), ser2net("tcp", there) as port:
            network, serial = await open_link(f"socket://127.0.0.1:{port}"), await open_link(here)
            await exchange(network, serial)
            await network.close()
            await serial.close()

    asyncio.run(main())


pyserial_is_old = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")


@pyserial_is_old
def test_rfc2217_of_ser2net_carries_every_byte_both_ways_and_leaves_no_thread(tmp_path: Path) -> None:
    async def main() -> None:
        async with pty_pair(tmp_path) as (here, there, _), ser2net("telnet(rfc2217),tcp", there) as port:
            network = await open_link(f"rfc2217://127.0.0.1:{port}?baud=19200&bits=8&parity=none&stop=2")
            serial = await open_link(here)
            await exchange(network, serial)
            await serial.write(b"stale")
            await read_exactly(network, 5)
            await serial.write(b"stale")
            await until(network.take)
            network.discard()
            await serial.close()
            reading = asyncio.create_task(network.read())
            await asyncio.sleep(0)
            await network.close()
            await network.close()
            with pytest.raises(LineGone, match="closed"):
                await reading
            with pytest.raises(LineGone, match="closed"):
                await network.write(b"x")

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if "rfc2217" in thread.name.lower()]


@pyserial_is_old
def test_an_rfc2217_server_that_goes_away_is_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        async with pty_pair(tmp_path) as (_, there, _):
            async with ser2net("telnet(rfc2217),tcp", there) as port:
                network = await open_link(f"rfc2217://127.0.0.1:{port}")
                reading = asyncio.create_task(network.read())
                await asyncio.sleep(0)
            with pytest.raises(LineGone, match="the connection is gone") as caught:
                await asyncio.wait_for(reading, 10)
            assert f"at 127.0.0.1:{port} runs" in caught.value.advice
            with pytest.raises(LineGone):
                await network.read()
            await network.close()

    asyncio.run(main())


@pyserial_is_old
def test_a_deadline_ends_a_silent_rfc2217_read_and_takes_nothing_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with pty_pair(tmp_path) as (here, there, _), ser2net("telnet(rfc2217),tcp", there) as port:
            network, serial = await open_link(f"rfc2217://127.0.0.1:{port}"), await open_link(here)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await network.read()
            await serial.write(b"later")
            assert await read_exactly(network, 5) == b"later"
            await network.close()
            await serial.close()

    asyncio.run(main())


@pyserial_is_old
def test_what_does_not_speak_rfc2217_is_told_apart_from_what_does_not_answer() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            port = mute.getsockname()[1]
            with pytest.raises(LineError, match="does not speak RFC 2217"):
                await open_link(f"rfc2217://127.0.0.1:{port}")
        with pytest.raises(LineError, match="cannot connect"):
            await open_link(f"rfc2217://127.0.0.1:{port}")

    asyncio.run(main())


@pyserial_is_old
def test_an_rfc2217_link_that_nobody_waits_for_any_more_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with pty_pair(tmp_path) as (_, there, _), ser2net("telnet(rfc2217),tcp", there) as port:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await open_link(f"rfc2217://127.0.0.1:{port}")
            async with asyncio.timeout(10):
                while True:  # ser2net gives the line to one at a time: it is free once the first was closed
                    try:
                        second = await open_link(f"rfc2217://127.0.0.1:{port}")
                    except LineError:
                        continue
                    break
            await second.close()

    asyncio.run(main())
