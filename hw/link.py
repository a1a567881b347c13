"""Bytes over a URL: the line to a reader, whatever it is made of.

    /dev/ttyUSB0?baud=9600&bits=8&parity=none&stop=1&flow=none     a serial device, or a pty
    socket://10.0.0.7:4001                                         a TCP socket: serial servers, emulators
    rfc2217://10.0.0.7:2217?baud=9600                              a serial port behind a telnet server (RFC 2217)

The line's settings may be left out: 9600 8N1 without flow control. There are no deadlines here but for opening: a
caller sets one around any call with ``asyncio.timeout``, and whatever is cancelled takes no byte with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import socket
import termios
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

import serial

from hw.errors import BadAddress, LineError, LineGone
from hw.line import DescriptorLink, Link

OPENING: Final = 10.0
"""Seconds for a line to be opened, with names looked up and a connection made: a person waits for that."""
LEAVES: Final = 1.0
"""Seconds for what was sent to be out before the speed changes: flow control may hold it back for ever."""
LOOK: Final = 0.005
"""Seconds between two looks at whether it is."""

_PARITIES: Final = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


@dataclass(frozen=True, slots=True)
class LineSettings:
    """Of a serial line: baud, bits a character, parity (none, even, odd), stop bits, flow control."""

    baud: int = 9600
    bits: int = 8
    parity: str = "none"
    stop: int = 1
    flow: str = "none"

    def apply(self, port: serial.SerialBase) -> None:
        """Set a pyserial port that is not open yet."""
        port.baudrate, port.bytesize, port.stopbits = self.baud, self.bits, self.stop
        port.parity = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}[
            self.parity
        ]
        port.rtscts, port.xonxoff = self.flow == "rtscts", self.flow == "xonxoff"


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "bits": ("5", "6", "7", "8"),
    "parity": ("none", "even", "odd"),
    "stop": ("1", "2"),
    "flow": ("none", "rtscts", "xonxoff"),
}


def line_settings(name: str, options: Mapping[str, str]) -> LineSettings:
    """The settings that the options of a URL ask for. Raises BadAddress for an unknown one or a wrong value."""
    fields = dataclasses.asdict(LineSettings())
    for option, value in options.items():
        if option == "baud":
            if not (value.isascii() and value.isdigit() and len(value) <= 7 and 50 <= int(value) <= 4_000_000):
                raise BadAddress(f"{name}: baud is a number from 50 to 4000000")
        elif option not in _CHOICES:
            raise BadAddress(f"{name}: there is no option {option!r} (there are: baud, {', '.join(_CHOICES)})")
        elif value not in _CHOICES[option]:
            raise BadAddress(f"{name}: {option} is one of {', '.join(_CHOICES[option])}")
        fields[option] = int(value) if value.isdigit() else value
    return LineSettings(**fields)


async def open_link(url: str, *, name: str | None = None) -> Link:
    """Open a line. ``name`` is what errors call it, the URL by default.

    Raises BadAddress, and LineError: no such port, no permission, busy, not a serial port, nobody answers.
    Opening a serial device drops what it held unread.
    """
    name = name or url
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        _ = parts.port  # looking checks the number
    except ValueError as error:
        raise BadAddress(f"{name}: {error}") from None
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        known = ", ".join(f"{scheme}://" for scheme in _OPENERS if scheme)
        raise BadAddress(f"{name}: a line is a device's path or one of {known}")
    try:
        async with asyncio.timeout(OPENING):
            return await opener(parts, options, name)
    except TimeoutError:
        raise LineError(f"{name}: it does not open within {OPENING:g} s", advice=_NETWORK_ADVICE) from None


async def _open_serial(parts: SplitResult, options: Mapping[str, str], name: str) -> Link:
    if parts.netloc or not parts.path:
        raise BadAddress(f"{name}: the path of a serial device is missing")
    # One byte is the least that a read waits for: with none, pyserial's default, an empty line and a device
    # that was pulled out look alike.
    port = serial.Serial(exclusive=True, inter_byte_timeout=0)
    line_settings(name, options).apply(port)
    port.port = parts.path
    try:
        port.open()
    except (OSError, ValueError, termios.error) as error:
        raise _cannot_open(name, parts.path, error) from None

    def flush() -> None:
        with suppress(termios.error):  # the device is gone, which whoever reads next is told
            port.reset_input_buffer()

    async def pace(baud: int) -> None:
        try:
            for _ in range(round(LEAVES / LOOK)):
                if not port.out_waiting:
                    break
                await asyncio.sleep(LOOK)
            else:
                raise LineError(f"{name}: what was sent does not leave", advice=_HELD_BACK)
            port.flush()  # what was sent goes out at the speed that it was sent for
            port.baudrate = baud
        except (OSError, ValueError, termios.error) as error:
            raise LineError(f"{name}: it does not go at {baud} baud ({error})") from None

    def release() -> None:
        if port.rtscts or port.xonxoff:  # closing waits half a minute for what the other end does not take
            with suppress(OSError, termios.error):
                port.reset_output_buffer()
        port.close()

    return DescriptorLink(port.fileno(), name, release, flush, pace)


_HELD_BACK: Final = "The reader holds its line back: check the cable's RTS and CTS, or set flow=none."


_BUSY = "another program holds the port", "`fuser -v` with its path names it; ModemManager is a usual one."
_ABSENT = "there is no such port", LineError.advice
_PULLED_OUT = "the device is gone", LineGone.advice
_REFUSED = (
    "permission denied",
    "Let the user into the group that owns the port (`sudo usermod -aG dialout $USER`), then log in anew.",
)
_WHY: Final = {
    errno.ENOENT: _ABSENT,
    errno.ENODEV: _ABSENT,
    errno.ENXIO: _ABSENT,
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.EIO: _PULLED_OUT,
    errno.EBUSY: _BUSY,
    errno.EAGAIN: _BUSY,
}


def _cannot_open(name: str, path: str, error: Exception) -> LineError:
    code = getattr(error, "errno", None)
    if code is None and not os.path.exists(path):  # pulled out between opening and setting it
        code = errno.EIO
    if code is None:  # pyserial gives no number when the settings are refused
        return LineError(f"{name}: it is not a serial port, or not one that takes these settings")
    why, advice = _WHY.get(code, (f"it cannot be opened ({os.strerror(code)})", LineError.advice))
    return LineError(f"{name}: {why}", advice=advice)


_NETWORK_ADVICE = "Check the address, and that the serial server or the emulator is running there."


async def _open_socket(parts: SplitResult, options: Mapping[str, str], name: str) -> Link:
    host, port = _host_and_port(parts, name)
    if options:
        raise BadAddress(f"{name}: a socket has no line settings; they are the serial server's")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LineError(f"{name}: {error.strerror}", advice=_NETWORK_ADVICE) from None
    failure = "nobody answers"
    for family, kind, protocol, _, address in found:
        peer = socket.socket(family, kind, protocol)
        try:
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(peer, address)
        except OSError as error:
            failure = os.strerror(error.errno) if error.errno else failure
            peer.close()
        except BaseException:
            peer.close()
            raise
        else:
            return DescriptorLink(peer.fileno(), name, peer.close, peer=_shown(host, port))
    raise LineError(f"{name}: cannot connect ({failure})", advice=_NETWORK_ADVICE)


_RFC2217_SAID: Final = {  # pyserial has no numbers for these
    "Could not open port": "cannot connect",
    "Remote does not seem to support": "the server does not speak RFC 2217, or another has the port",
}


async def _open_rfc2217(parts: SplitResult, options: Mapping[str, str], name: str) -> Link:
    from serial import rfc2217  # pyserial's telnet half: only for who asks

    from hw.rfc2217 import POLL, Rfc2217Link, mend

    host, number = _host_and_port(parts, name)
    port = rfc2217.Serial(timeout=POLL)
    line_settings(name, options).apply(port)
    # A server whose own port is a pty cannot set RTS and DTR, and answers nothing: that is no error here either.
    port.port = f"rfc2217://{_shown(host, number)}?ign_set_control"
    mend(port)
    opening = asyncio.get_running_loop().run_in_executor(None, port.open)
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(lambda done: _abandon(done, port))
        raise
    except (OSError, ValueError) as error:
        refused = "the server refuses these line settings"
        why = next((why for said, why in _RFC2217_SAID.items() if said in str(error)), refused)
        raise LineError(f"{name}: {why}", advice=_NETWORK_ADVICE) from None
    return Rfc2217Link(port, name, _shown(host, number))


def _abandon(opening: asyncio.Future[None], port: serial.SerialBase) -> None:
    """Close what was opened after nobody wanted it any more; pyserial's close blocks, so in a thread."""
    if not opening.cancelled() and opening.exception() is None:
        threading.Thread(target=port.close, daemon=True).start()


def _host_and_port(parts: SplitResult, name: str) -> tuple[str, int]:
    if not parts.hostname or not parts.port or parts.path not in ("", "/"):
        raise BadAddress(f"{name}: host and port are missing, as in {parts.scheme}://10.0.0.7:4001")
    return parts.hostname, parts.port


def _shown(host: str, port: int) -> str:
    """Host and port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_OPENERS: Final = {"": _open_serial, "socket": _open_socket, "rfc2217": _open_rfc2217}
