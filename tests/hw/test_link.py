"""Links on ptys and sockets of the test's own: errors, deadlines, closing. For peers not ours: test_link_peers."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import socket
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import serial

import hw.link
from hw.errors import BadAddress, LineError, LineGone, ReaderError
from hw.line import CHUNK, RECEIVE_LIMIT, DescriptorLink, Link
from hw.link import LineSettings, line_settings, open_link
from hw.rfc2217 import Rfc2217Link, mend
from sim.virtual_time import run


@contextmanager
def serial_device() -> Iterator[tuple[int, str]]:
    """A pty: its master, and the path of the device."""
    master, device = pty.openpty()
    tty.setraw(device)
    try:
        yield master, os.ttyname(device)
    finally:
        os.close(master)
        os.close(device)


@asynccontextmanager
async def socket_pair() -> AsyncIterator[tuple[DescriptorLink, socket.socket]]:
    """A link, and the plain socket at its other end."""
    here, there = socket.socketpair()
    link = DescriptorLink(here.fileno(), "pair", here.close)
    try:
        yield link, there
    finally:
        await link.close()
        there.close()


def test_it_reads_what_has_come_and_waits_for_the_first_byte() -> None:
    async def main() -> None:
        with serial_device() as (master, path):
            link = await open_link(path)
            assert link.take() == b""
            os.write(master, b"now")
            assert await link.read() == b"now"
            reading = asyncio.create_task(link.read())
            await asyncio.sleep(0)
            assert not reading.done()
            os.write(master, b"later")
            assert await asyncio.wait_for(reading, 10) == b"later"
            await link.write(b"out")
            assert os.read(master, 10) == b"out"
            await link.close()

    asyncio.run(main())


def test_opening_a_serial_device_drops_what_it_held() -> None:
    async def main() -> None:
        with serial_device() as (master, path):
            os.write(master, b"stale")
            link = await open_link(path)
            os.write(master, b"fresh")
            assert await link.read() == b"fresh"
            await link.close()

    asyncio.run(main())


def test_discarding_drops_what_came_and_is_not_taken_for_the_end() -> None:
    async def main() -> None:
        with serial_device() as (master, path):
            link = await open_link(path)
            reading = asyncio.create_task(link.read())
            await asyncio.sleep(0)
            os.write(master, b"stale")
            link.discard()
            await asyncio.sleep(0)
            os.write(master, b"fresh")
            assert await asyncio.wait_for(reading, 10) == b"fresh"
            await link.close()
            link.discard()

        async with socket_pair() as (link, there):
            there.send(b"stale" * 1000)
            link.discard()
            there.send(b"fresh")
            assert await link.read() == b"fresh"
            there.close()
            link.discard()
            with pytest.raises(LineGone):
                await link.read()

    asyncio.run(main())


def test_discarding_from_a_device_that_is_gone_leaves_it_to_the_next_read_to_say() -> None:
    async def main() -> None:
        master, device = pty.openpty()
        tty.setraw(device)
        link = await open_link(os.ttyname(device))
        os.close(device)
        os.close(master)
        link.discard()
        with pytest.raises(LineGone):
            await link.read()
        await link.close()

    asyncio.run(main())


def test_a_cancelled_read_takes_no_byte_with_it() -> None:
    async def main() -> None:
        async with socket_pair() as (link, there):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await link.read()
            reading = asyncio.create_task(link.read())
            await asyncio.sleep(0)
            there.send(b"kept")
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await link.read() == b"kept"

    asyncio.run(main())


def test_a_flood_does_not_hold_off_a_deadline() -> None:
    async def main() -> None:
        zeros = os.open("/dev/zero", os.O_RDONLY)
        link = DescriptorLink(zeros, "flood", lambda: None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await drain(link)
        assert len(link.take()) == CHUNK
        link.discard()  # comes back, though there is always more
        os.close(zeros)

    asyncio.run(main())


async def drain(link: Link) -> bytes:
    """All there is until it ends."""
    held = b""
    with suppress(LineGone):
        while True:
            held = (held + await link.read())[-2 * RECEIVE_LIMIT :]
    return held


def test_a_write_waits_until_there_is_room() -> None:
    async def main() -> None:
        async with socket_pair() as (link, there):
            payload = bytes(range(256)) * 16384
            writing = asyncio.create_task(link.write(payload))
            await asyncio.sleep(0)
            assert not writing.done()
            loop, came = asyncio.get_running_loop(), bytearray()
            there.setblocking(False)
            while len(came) < len(payload):
                came += await asyncio.wait_for(loop.sock_recv(there, 65536), 10)
            await writing
            assert bytes(came) == payload

    asyncio.run(main())


def test_closing_ends_a_read_and_a_write_that_wait() -> None:
    async def main() -> None:
        async with socket_pair() as (link, _):
            reading = asyncio.create_task(link.read())
            writing = asyncio.create_task(link.write(b"x" * 4_000_000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await link.close()
            await link.close()
            for waiting in (reading, writing):
                with pytest.raises(LineGone, match="pair: the line is closed"):
                    await asyncio.wait_for(waiting, 10)
            with pytest.raises(LineGone):
                await link.read()
            with pytest.raises(LineGone):
                await link.write(b"x")
            assert link.take() == b""

    asyncio.run(main())


def test_two_readers_of_one_line_are_a_mistake_that_is_told() -> None:
    async def main() -> None:
        async with socket_pair() as (link, _):
            first = asyncio.create_task(link.read())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="two coroutines"):
                await link.read()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first

    asyncio.run(main())


def test_a_peer_that_hangs_up_or_resets_is_gone() -> None:
    async def main() -> None:
        async with socket_pair() as (link, there):
            there.close()
            with pytest.raises(LineGone, match="pair: the device is gone"):
                await link.read()
            with pytest.raises(LineGone, match="Broken pipe"):
                await link.write(b"x")
        with socket.create_server(("127.0.0.1", 0)) as server:
            network = await open_link(f"socket://127.0.0.1:{server.getsockname()[1]}")
            accepted, _ = server.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            accepted.close()
            with pytest.raises(LineGone, match="Connection reset"):
                await network.read()
            assert network.take() == b""
            await network.close()

    asyncio.run(main())


def test_a_socket_sends_small_frames_without_delay() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            link = await open_link(f"socket://127.0.0.1:{server.getsockname()[1]}")
            assert isinstance(link, DescriptorLink)
            option = os.dup(link._descriptor)
            with socket.socket(fileno=option) as same:
                assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await link.close()

    asyncio.run(main())


async def refusal(url: str, name: str | None = None) -> ReaderError:
    """The error that opening this gives."""
    with pytest.raises(ReaderError) as caught:
        await open_link(url, name=name)
    assert caught.value.advice
    assert str(caught.value).startswith(f"{name or url}: ")
    return caught.value


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://127.0.0.1:1", "a line is a device's path or one of socket://, rfc2217://"),
        ("socket://127.0.0.1", "host and port are missing"),
        ("socket://:4001", "host and port are missing"),
        ("socket://127.0.0.1:4001/x", "host and port are missing"),
        ("socket://127.0.0.1:99999", "Port out of range"),
        ("socket://127.0.0.1:x", "Port could not be cast"),
        ("socket://[::1:4001", "Invalid IPv6 URL"),
        ("socket://127.0.0.1:4001?baud=9600", "a socket has no line settings"),
        ("rfc2217://127.0.0.1", "host and port are missing"),
        ("", "the path of a serial device is missing"),
        ("//host/dev/ttyS0", "the path of a serial device is missing"),
        ("/dev/ttyS0?baud=fast", "baud is a number from 50 to 4000000"),
        ("/dev/ttyS0?baud=", "baud is a number"),
        ("/dev/ttyS0?baud=49", "baud is a number"),
        ("/dev/ttyS0?baud=4000001", "baud is a number"),
        ("/dev/ttyS0?baud=²", "baud is a number"),
        ("/dev/ttyS0?bits=9", "bits is one of 5, 6, 7, 8"),
        ("/dev/ttyS0?parity=mark", "parity is one of none, even, odd"),
        ("/dev/ttyS0?stop=3", "stop is one of 1, 2"),
        ("/dev/ttyS0?flow=yes", "flow is one of none, rtscts, xonxoff"),
        ("/dev/ttyS0?speed=9600", "there is no option 'speed' (there are: baud, bits, parity, stop, flow)"),
    ],
)
def test_an_address_that_makes_no_sense_says_what_would(url: str, why: str) -> None:
    error = asyncio.run(refusal(url))
    assert isinstance(error, BadAddress)
    assert why in str(error)


def test_the_settings_are_those_of_the_url() -> None:
    assert line_settings("x", {}) == LineSettings(9600, 8, "none", 1, "none")
    settings = line_settings("x", {"baud": "115200", "bits": "7", "parity": "odd", "stop": "2", "flow": "xonxoff"})
    port = serial.Serial()
    settings.apply(port)
    assert (port.baudrate, port.bytesize, port.parity, port.stopbits) == (115200, 7, "O", 2)
    assert (port.rtscts, port.xonxoff) == (False, True)


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    path = str(tmp_path / "ttyUSB9")
    error = asyncio.run(refusal(path))
    assert str(error) == f"{path}: there is no such port"
    assert "/dev/serial/by-id" in error.advice
    assert str(asyncio.run(refusal(path, "the till's reader"))) == "the till's reader: there is no such port"


def test_a_port_without_permission_names_the_group() -> None:
    with serial_device() as (_, path):
        os.chmod(path, 0)
        as_root = os.geteuid() == 0
        if as_root:
            os.seteuid(65534)
        try:
            error = asyncio.run(refusal(path))
        finally:
            if as_root:
                os.seteuid(0)
    assert str(error).endswith("permission denied")
    assert "usermod -aG dialout" in error.advice


def test_a_port_that_another_holds() -> None:
    async def main() -> None:
        with serial_device() as (_, path):
            first = await open_link(path)
            error = await refusal(path)
            assert str(error).endswith("another program holds the port")
            assert "fuser" in error.advice
            await first.close()
            second = await open_link(path)
            await second.close()

    asyncio.run(main())


def test_what_is_no_serial_port(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert "it is not a serial port" in str(asyncio.run(refusal(str(file))))
    assert "Is a directory" in str(asyncio.run(refusal(str(tmp_path))))


def refused(*_: object) -> None:
    raise termios.error(errno.EIO, "Input/output error")


def test_a_device_that_takes_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a port of a PC does with nothing behind it."""
    with serial_device() as (_, path):
        monkeypatch.setattr("serial.serialposix.termios.tcsetattr", refused)
        error = asyncio.run(refusal(path))
    assert "it is not a serial port" in str(error)


def test_a_device_that_goes_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    master, device = pty.openpty()
    path = os.ttyname(device)

    def pulled_out(*_: object) -> None:
        os.close(master)
        refused()

    monkeypatch.setattr("serial.serialposix.termios.tcsetattr", pulled_out)
    error = asyncio.run(refusal(path))
    os.close(device)
    assert str(error) == f"{path}: the device is gone"
    assert "Plug the reader in again" in error.advice


def test_a_device_that_goes_before_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def hung_up(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with serial_device() as (_, path):
        monkeypatch.setattr("serial.serialposix.os.open", hung_up)
        error = asyncio.run(refusal(path))
    assert str(error) == f"{path}: the device is gone"


def test_a_host_that_does_not_answer_or_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = asyncio.run(refusal(f"socket://127.0.0.1:{port}"))
    assert "cannot connect (Connection refused)" in str(error)
    assert "serial server" in error.advice
    assert isinstance(asyncio.run(refusal("socket://no.such.host.invalid:4001")), LineError)


def test_a_connection_that_is_given_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        trying: asyncio.Future[socket.socket] = loop.create_future()

        async def never(peer: socket.socket, _: object) -> None:
            trying.set_result(peer)
            await asyncio.Event().wait()

        monkeypatch.setattr(loop, "sock_connect", never)
        opening = asyncio.create_task(open_link("socket://127.0.0.1:4001"))
        peer = await asyncio.wait_for(trying, 10)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert peer.fileno() == -1

    asyncio.run(main())


def test_a_descriptor_that_fails_is_gone_with_the_system_s_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:  # EIO is what a USB adapter that was pulled out gives
        def broken(*_: object) -> bytes:
            raise OSError(errno.EIO, "")

        async with socket_pair() as (link, _):
            monkeypatch.setattr("hw.link.os.read", broken)
            with pytest.raises(LineGone, match=r"the device is gone \(Input/output error\)"):
                await link.read()
            monkeypatch.undo()

    asyncio.run(main())


class ScriptedPort:
    """What Rfc2217Link uses of a pyserial port: reads that a script gives, then blocks no more and ends."""

    def __init__(self, *reads: bytes) -> None:
        self.reads = list(reads)
        self.is_closed = False

    @property
    def in_waiting(self) -> int:
        return 0

    def read(self, size: int) -> bytes:
        if size == 0:
            return b""
        if not self.reads:
            raise serial.SerialException("it is over")
        return self.reads.pop(0)

    def close(self) -> None:
        self.is_closed = True


def test_an_rfc2217_link_holds_so_much_and_drops_the_oldest() -> None:
    async def main() -> None:
        port = ScriptedPort(b"old", *[bytes([n % 256]) * 1024 for n in range(RECEIVE_LIMIT // 1024)], b"", b"new")
        link = Rfc2217Link(port, "scripted")
        link._thread.join()
        held = await drain(link)
        assert len(held) == RECEIVE_LIMIT
        assert held.endswith(b"new")
        assert not held.startswith(b"old")
        await link.close()
        assert port.is_closed

    asyncio.run(main())


def test_the_thread_of_an_rfc2217_link_ends_when_the_loop_did_without_closing() -> None:
    async def main() -> Rfc2217Link:
        return Rfc2217Link(port, "forgotten")

    port = ScriptedPort()
    gate = asyncio.run(main())
    port.reads = [b"x"]
    gate._over = False
    gate._pump()
    assert port.reads == []


def test_a_telnet_loop_that_fails_tells_the_reader_and_closes_its_socket() -> None:
    def nonsense() -> None:
        raise TypeError("IAC SE without an IAC SB")

    told: list[object] = []
    end = SimpleNamespace(close=lambda: told.append("closed"))
    port = SimpleNamespace(_telnet_read_loop=nonsense, _socket=end, _read_buffer=SimpleNamespace(put=told.append))
    mend(port)
    port._telnet_read_loop()
    assert told == [None, "closed"]


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")
@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Could not open port x: refused", "cannot connect"),
        ("Remote does not seem to support RFC2217 or BINARY mode", "does not speak RFC 2217"),
        ("Remote does not accept parameter change (RFC2217)", "refuses these line settings"),
    ],
)
def test_what_pyserial_says_of_an_rfc2217_server(monkeypatch: pytest.MonkeyPatch, said: str, why: str) -> None:
    def refuse(_: object) -> None:
        raise serial.SerialException(said)

    monkeypatch.setattr("serial.rfc2217.Serial.open", refuse)
    assert why in str(asyncio.run(refusal("rfc2217://[::1]:2217")))


def test_a_serial_device_is_held_exclusively_and_raw() -> None:
    async def main() -> None:
        with serial_device() as (_, path):
            link = await open_link(path)
            other = os.open(path, os.O_RDWR | os.O_NOCTTY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(other)
            await link.close()

    asyncio.run(main())


def test_whether_the_other_end_is_gone_is_known_without_reading() -> None:
    async def main() -> None:
        master, device = pty.openpty()
        tty.setraw(device)
        link = await open_link(os.ttyname(device))
        os.write(master, b"waiting")
        assert not link.is_gone()
        os.close(device)
        os.close(master)
        assert link.is_gone()
        await link.close()
        assert link.is_gone()
        async with socket_pair() as (pair, there):
            assert not pair.is_gone()
            there.send(b"last words")
            there.close()
            assert pair.is_gone()
            assert await pair.read() == b"last words"

    asyncio.run(main())


@pytest.mark.parametrize("url", ["socket://10.0.0.7:4001", "rfc2217://10.0.0.7:2217"])
def test_a_line_that_does_not_open_is_not_waited_for_without_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> Link:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setitem(hw.link._OPENERS, url.partition(":")[0], never)

    async def main() -> None:
        with pytest.raises(LineError, match="the reader: it does not open within 10 s") as caught:
            await open_link(url, name="the reader")
        assert "the serial server or the emulator is running" in caught.value.advice

    run(main())


def test_a_speed_is_not_changed_while_what_was_sent_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [6, 6, 0]

    async def main() -> None:
        with serial_device() as (_, path):
            link = await open_link(path)
            monkeypatch.setattr(serial.Serial, "out_waiting", property(lambda _: held.pop(0)))
            await link.change_baud(19200)
            assert held == []
            monkeypatch.setattr(serial.Serial, "out_waiting", 6)
            with pytest.raises(LineError, match="what was sent does not leave") as caught:
                await link.change_baud(9600)
            assert "flow=none" in caught.value.advice
            await link.close()

    asyncio.run(main())


@pytest.mark.parametrize(("flow", "dropped"), [("none", 0), ("rtscts", 1), ("xonxoff", 1)])
def test_closing_does_not_wait_for_what_flow_control_holds_back(
    flow: str, dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(serial.Serial, "reset_output_buffer", lambda _: told.append("dropped"))

    async def main() -> None:
        with serial_device() as (_, path):
            await (await open_link(f"{path}?flow={flow}")).close()

    asyncio.run(main())
    assert len(told) == dropped
