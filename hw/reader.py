"""A reader: what the terminal sees of it, and what a driver writes.

A reader is named by one URL, which says the driver, the line under it and their options:

    magstripe:///dev/ttyS1?baud=9600
    magstripe+socket://10.0.0.7:4001?format=uic
    magstripe+rfc2217://10.0.0.7:2217?baud=9600

    async with open_reader("magstripe:///dev/ttyS1") as reader:
        card = await reader.wait_for_card(timeout=30.0)

A driver (python-can taught us this cut) says what its reader is capable of and how to get the next card out of
an open line. Deadlines, cancelling, stale input, and opening a line again that went away are written here, once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import ClassVar, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from hw.card import Card
from hw.errors import BadAddress, Cancelled, LineGone, NotSupported, ProtocolError, ReaderError, TimedOut
from hw.line import Link
from hw.link import open_link

DRIVERS: Final[Mapping[str, str]] = {
    "magstripe": "hw.magstripe:MagstripeReader",
}
"""Driver -> "module:class", imported when it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a reader can do. ``encrypts``: card data leaves it encrypted only; ``own_kernel``: it runs EMV."""

    contact: bool = False
    contactless: bool = False
    stripe: bool = False
    keyed: bool = False
    own_kernel: bool = False
    encrypts: bool = False
    pin_pad: bool = False
    display: bool = False
    leds: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """A reader's URL, taken apart: the driver, the URL of the line without options, and the options."""

    url: str
    driver: str
    line: str
    options: Mapping[str, str]


def parse_address(url: str) -> Address:
    """Take a reader's URL apart; raises BadAddress."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise BadAddress(f"{url}: {error}") from None
    driver, _, transport = parts.scheme.partition("+")
    if not driver:
        raise BadAddress(f"{url}: a reader's URL begins with its driver")
    where = f"{transport}://{parts.netloc}{parts.path}" if transport else f"{parts.netloc}{parts.path}"
    return Address(url, driver, where, options)


class Reader(ABC):
    """A reader that can be waited on for a card. Use it as an async context manager, or open and close it.

    A driver gives ``capabilities``, names in ``OPTIONS`` the options of the URL that are its own (the rest is
    the line's), and writes `_next_card`.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Options of the URL that are the driver's, each with its choices; the first is the default."""

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self.options = {name: choices[0] for name, choices in self.OPTIONS.items()}
        line_options = dict(address.options)
        for name, choices in self.OPTIONS.items():
            if name in line_options:
                self.options[name] = line_options.pop(name)
            if self.options[name] not in choices:
                raise BadAddress(f"{self.url}: {name} is one of {', '.join(choices)}")
        self._line = address.line + (f"?{urlencode(line_options)}" if line_options else "")
        self._link: Link | None = None
        self._wait: asyncio.Timeout | None = None
        self._cancelled = False

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this reader can do."""

    @abstractmethod
    async def _next_card(self, link: Link) -> Card:
        """Wait, for as long as it takes, for the next card on a line on which nothing is waiting to be read.

        May be cancelled at any await. Raises CardError for a card that does not read.
        """

    async def open(self) -> None:
        """Open the line; raises LineError and BadAddress. Done already, it does nothing."""
        if self._link is None:
            self._link = await open_link(self._line, name=self.url)

    async def close(self) -> None:
        """Let go of the line; a wait under way ends with LineGone."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_for_card(self, timeout: float | None = 30.0) -> Card:
        """The next card that is presented, within ``timeout`` seconds (None: for ever).

        What was presented before the call does not count: the card of the customer before must not pay for
        this one. A line that went away in an earlier wait is opened again first, within the same timeout.

        Raises CardError for a card that cannot be used (wait again, and another swipe counts), TimedOut,
        Cancelled, LineGone when the line goes away meanwhile, LineError when it cannot be opened again, and
        FramingError or ProtocolError when the reader talks nonsense.
        """
        if self._wait is not None:
            raise ProtocolError(f"{self.url}: a wait for a card is already under way")
        self._cancelled = False
        self._wait = deadline = asyncio.timeout(timeout)
        try:
            async with deadline:
                return await self._one_card()
        except TimeoutError:
            if not deadline.expired():  # the driver's own
                raise
            if self._cancelled:
                raise Cancelled(f"{self.url}: the wait for a card was cancelled") from None
            raise TimedOut(f"{self.url}: no card within {round(timeout or 0.0, 2):g} seconds") from None
        finally:
            self._wait = None

    async def _one_card(self) -> Card:
        await self.open()
        assert self._link is not None
        self._link.discard()
        try:
            return await self._next_card(self._link)
        except LineGone:
            await self.close()
            raise

    def cancel(self) -> None:
        """Call off the wait that is under way, which raises Cancelled; without one, nothing happens."""
        if self._wait is not None and not self._wait.expired():
            self._cancelled = True
            self._wait.reschedule(asyncio.get_running_loop().time())


def open_reader(url: str) -> Reader:
    """The reader that a URL names, not open yet: enter it with ``async with``.

    Raises BadAddress, and NotSupported for a driver that there is not.
    """
    address = parse_address(url)
    if address.driver not in DRIVERS:
        raise NotSupported(f"there is no driver named {address.driver!r} (there are: {', '.join(DRIVERS)})")
    module, _, name = DRIVERS[address.driver].partition(":")
    driver: type[Reader] = getattr(import_module(module), name)
    return driver(address)


__all__ = ["Address", "Capabilities", "DRIVERS", "Reader", "ReaderError", "open_reader", "parse_address"]
