"""Which serial ports there are, what is likely to be on each, and where one is that came back under another name.

Nothing is opened here: what a port is comes from the system's own tables. `hw.probing` asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

from hw.errors import LineError

ASKED: Final = ("pn532", "gemcore", "vivopay", "acs", "magstripe")
"""Drivers that a port may be asked for, quick answers first."""

LIKELY: Final[Mapping[tuple[int, int | None], tuple[str, ...]]] = {
    (0x0801, None): ("magstripe",),  # MagTek
    (0x072F, None): ("acs",),  # Advanced Card Systems
    (0x08E6, None): ("gemcore",),  # Gemalto
    (0x0ACD, None): ("vivopay", "magstripe"),  # ID TECH
    (0x1A86, 0x7523): ("pn532",),  # QinHeng CH340: on most PN532 boards that have USB
    (0x10C4, 0xEA60): ("pn532", "vivopay"),  # Silicon Labs CP210x
    (0x0403, None): ASKED,  # FTDI: anything that once had nine pins
    (0x067B, None): ASKED,  # Prolific: likewise
}
"""USB vendor and product (None: any of the vendor's) -> the drivers to try first."""

NOT_READERS: Final[Mapping[tuple[int, int | None], str]] = {
    (0x2341, None): "an Arduino, which starts anew when its port is opened",
    (0x1546, None): "a u-blox receiver",
    (0x12D1, None): "a Huawei modem",
    (0x1199, None): "a Sierra modem",
    (0x1E0E, None): "a SIMCom modem",
    (0x2C7C, None): "a Quectel modem",
}
"""What is better not asked unless it is named: a modem takes a question for a command."""

BY_ID: Final = Path("/dev/serial/by-id")
BOARD_PORTS: Final = ("/dev/serial0", "/dev/ttyAMA0", "/dev/ttyAMA10")
"""A Raspberry Pi's own, which pyserial takes for absent where the kernel calls them platform devices."""

_FAMILIES: Final = {
    "ttyS": "a port of this machine",
    "ttyAMA": "a UART of this board",
    "serial": "a UART of this board",
}


_Found = TypeVar("_Found")


class Listed(Protocol):
    """What pyserial tells of a port (`serial.tools.list_ports_common.ListPortInfo`)."""

    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None
    location: str | None
    manufacturer: str | None
    product: str | None


@dataclass(frozen=True, slots=True)
class Port:
    """A serial port. ``serial`` and ``location`` are the USB device's own number and where it is plugged in.

    ``stable`` is its name that stays when it is plugged in again, where the system gives one.
    """

    path: str
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    location: str = ""
    product: str = ""
    stable: str = ""

    @property
    def drivers(self) -> tuple[str, ...]:
        """All drivers to try, the likely ones first."""
        first = _looked_up(LIKELY, self) or ()
        return tuple(dict.fromkeys((*first, *ASKED)))

    @property
    def likely(self) -> tuple[str, ...]:
        """The drivers that its USB ids speak for; empty where they say nothing."""
        found = _looked_up(LIKELY, self) or ()
        return () if found == ASKED else found

    @property
    def not_asked(self) -> str:
        """Why it is better left alone; empty where it is not."""
        return _looked_up(NOT_READERS, self) or ""

    @property
    def name(self) -> str:
        """The name to write into settings."""
        return self.stable or self.path

    @property
    def what(self) -> str:
        """What it is, for people: ``FTDI FT232R USB UART (0403:6001)``."""
        if self.vid is None or self.pid is None:
            kind = Path(self.path).name.rstrip("0123456789")
            return self.product or _FAMILIES.get(kind, "a serial port")
        return f"{self.product or 'a USB device'} ({self.vid:04x}:{self.pid:04x})"


def _looked_up(table: Mapping[tuple[int, int | None], _Found], port: Port) -> _Found | None:
    if port.vid is None:
        return None
    return table.get((port.vid, port.pid)) or table.get((port.vid, None))


LOOKS: Final = 3
"""How often the system's tables are read where a device vanishes from under them."""


def _from_system() -> Iterable[Listed]:
    from serial.tools import list_ports

    for _ in range(LOOKS):
        with suppress(OSError, TypeError):  # TypeError: pyserial's, of a device that has no number any more
            return list_ports.comports()
    return ()


def ports(
    listing: Callable[[], Iterable[Listed]] = _from_system,
    by_id: Path = BY_ID,
    board_ports: Iterable[str] = BOARD_PORTS,
) -> tuple[Port, ...]:
    """The ports that there are, by path. Of those of a PC, only those with hardware behind them."""
    stable = _links(by_id)
    found = {one.device: _port(one) for one in listing() if _has_hardware(one.device)}
    known = {os.path.realpath(path) for path in found}
    for path in board_ports:
        if os.path.exists(path) and os.path.realpath(path) not in known:
            known.add(os.path.realpath(path))
            found[path] = Port(path)
    return tuple(
        replace(port, stable=stable.get(os.path.realpath(path), "")) for path, port in sorted(found.items())
    )


def _port(one: Listed) -> Port:
    words = [word for word in (one.manufacturer, one.product) if word]
    return Port(
        one.device, one.vid, one.pid, one.serial_number or "", one.location or "", _printable(" ".join(words))
    )


def _printable(text: str) -> str:
    """A device's own words, which a terminal is not to obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])


def _links(by_id: Path) -> dict[str, str]:
    try:
        return {os.path.realpath(link): str(link) for link in sorted(by_id.iterdir())}
    except OSError:
        return {}


def _has_hardware(path: str) -> bool:
    """Linux has four or more ttyS whatever is behind them; the type of those with nothing is 0."""
    name = Path(path).name
    if not name.startswith("ttyS"):
        return True
    try:
        return Path("/sys/class/tty", name, "type").read_text().strip() != "0"
    except OSError:
        return True


def port_at(path: str, found: Iterable[Port]) -> Port | None:
    """The port of this name, or behind this link."""
    real = os.path.realpath(path)
    return next((port for port in found if os.path.realpath(port.path) == real), None)


def found_again(lost: Port, found: Iterable[Port]) -> Port | None:
    """A port that went away, under whatever name it is now; None where it is not there, or nobody can tell.

    By its USB serial number, and where it has none by the socket that it was plugged into, or else by its name. Of
    two devices with one number (there are such) it is the one in the same socket.
    """
    if lost.vid is None:
        return next((port for port in found if port.path == lost.path), None)
    same = [port for port in found if (port.vid, port.pid, port.serial) == (lost.vid, lost.pid, lost.serial)]
    there = [port for port in same if port.location == lost.location]
    if len(there) == 1:
        return there[0]
    if lost.serial:
        return same[0] if len(same) == 1 else None
    return next((port for port in same if port.path == lost.path), None)


class Whereabouts:
    """Where a line is that may come back under another name: ``line`` is a path or a URL, with its options."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._path, _, self._options = line.partition("?")
        self._last = self._path
        self._port: Port | None = None

    def seen(self) -> None:
        """The line that was last said to be it is open: remember which device that is."""
        if self._last.startswith("/"):
            self._port = port_at(self._last, ports()) or self._port

    def now(self) -> str:
        """The line to open; raises LineError where its name is another device's by now."""
        self._last = self._path
        if self._port is None or self._port.vid is None:
            return self._line
        found = ports()
        again = found_again(self._port, found)
        if again is not None and again.path != os.path.realpath(self._path):
            self._last = again.path
            return f"{again.path}?{self._options}" if self._options else again.path
        if again is None and (other := port_at(self._path, found)) is not None:
            raise LineError(f"{self._path}: another device has this name now, {other.what}")
        return self._line


def latency(path: str) -> int | None:
    """Milliseconds for which an FTDI adapter holds back a few bytes; None where it is none, or does not say."""
    name = os.path.basename(os.path.realpath(path))
    try:
        return int(Path("/sys/bus/usb-serial/devices", name, "latency_timer").read_text())
    except (OSError, ValueError):
        return None
