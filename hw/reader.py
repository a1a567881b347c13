"""A reader: what the terminal sees of it, and what a driver writes.

A reader is named by one URL, which says the driver, the line under it and their options:

    magstripe:///dev/ttyS1?baud=9600
    magstripe+socket://10.0.0.7:4001?format=uic
    magstripe+rfc2217://10.0.0.7:2217?baud=9600

    async with open_reader("magstripe:///dev/ttyS1") as reader:
        card = await reader.wait_for_card(timeout=30.0)

A driver (python-can taught us this cut) says what its reader is capable of, how to wake it on a line that has just
been opened, and how to get the next card out of it. Deadlines, cancelling, stale input, opening a line again that
went away, what is counted, traced and told are written here, once.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import ClassVar, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from hw.card import Card
from hw.errors import BadAddress, Cancelled, LineGone, NotSupported, ProtocolError, ReaderError, TimedOut
from hw.finding import Whereabouts
from hw.line import Link
from hw.link import open_link
from hw.trace import Language, Tracer
from hw.wire import Framer, Statistics, Wire

GROUP: Final = "tillwright.readers"
"""Entry points by which other packages add drivers: the driver's name = "module:class"."""

DRIVERS: Final[Mapping[str, str]] = {
    "acs": "hw.acs:AcsReader",
    "gemcore": "hw.gemcore:GemcoreReader",
    "magstripe": "hw.magstripe:MagstripeReader",
    "pcsc": "hw.pcsc:PcscReader",
    "pn532": "hw.pn532:Pn532Reader",
    "vivopay": "hw.vivopay:VivopayReader",
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


_NAME: Final = re.compile(r"^[^:/+]*://[^/?#]*")
"""A driver without a transport, and the name behind it: brackets, which PC/SC knows, are no address there."""


def parse_address(url: str) -> Address:
    """Take a reader's URL apart; raises BadAddress. In a name that is no host brackets are as good as ``%5B``."""
    try:
        parts = urlsplit(_NAME.sub(lambda name: name[0].replace("[", "%5B").replace("]", "%5D"), url))
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise BadAddress(f"{url}: {error}") from None
    driver, _, transport = parts.scheme.partition("+")
    if not driver:
        asks = f"`till reader probe {url}` asks which reader is there, and says its URL." if url[:1] == "/" else ""
        raise BadAddress(f"{url}: a reader's URL begins with its driver", advice=asks)
    name = parts.netloc if transport else parts.netloc.replace("%5B", "[").replace("%5D", "]")
    where = f"{transport}://{name}{parts.path}" if transport else f"{name}{parts.path}"
    return Address(url, driver, where, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderEvent:
    """The root: something happened at the reader with this URL."""

    url: str


class CardInserted(ReaderEvent):
    """A card is in the slot, or in the field."""


class CardRemoved(ReaderEvent):
    """The card was taken away."""


class ReaderGone(ReaderEvent):
    """The line to the reader is gone: unplugged, or hung up."""


class ReaderBack(ReaderEvent):
    """The line that was gone is open again."""


@dataclass(frozen=True, slots=True)
class Sale:
    """What the next card is to pay, for a reader that wants to know: minor units, ISO 4217 number and exponent."""

    minor: int
    currency: int
    exponent: int = 2


class Reader(ABC):
    """A reader that can be waited on for a card. Use it as an async context manager, or open and close it.

    A driver gives ``capabilities``, names in ``OPTIONS`` the options of the URL that are its own (the rest is
    the line's), and in ``LINE`` the line's settings that differ from 9600 8N1; it writes `_next_card`, and
    `_start` where the reader has to be woken or set. Frames go over `_wire`.

    ``on_event`` is told what happens; ``tracer`` sees every frame; ``statistics`` count.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Options of the URL that are the driver's, each with its choices; the first is the default."""
    LINE: ClassVar[Mapping[str, str]] = {}
    """Settings of a serial line that hold unless the URL says otherwise, as ``{"baud": "115200"}``."""

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self.options = {name: choices[0] for name, choices in self.OPTIONS.items()}
        line_options = dict(address.options)
        if "socket://" not in address.line:
            line_options = {**self.LINE, **line_options}
        for name, choices in self.OPTIONS.items():
            if name in line_options:
                self.options[name] = line_options.pop(name)
            if self.options[name] not in choices:
                raise BadAddress(f"{self.url}: {name} is one of {', '.join(choices)}")
        self._line = address.line + (f"?{urlencode(line_options)}" if line_options else "")
        self._whereabouts = Whereabouts(self._line)
        self._link: Link | None = None
        self._is_open = False
        self._closings = 0
        self._wait: asyncio.Timeout | None = None
        self._cancelled = False
        self._lost = False
        self.sale: Sale | None = None
        self.statistics = Statistics()
        self.tracer: Tracer | None = None
        self.on_event: Callable[[ReaderEvent], None] = _unheard

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this reader can do."""

    @abstractmethod
    async def _next_card(self, link: Link) -> Card:
        """Wait, for as long as it takes, for the next card on a line on which nothing is waiting to be read.

        May be cancelled at any await. Raises CardError for a card that does not read.
        """

    async def _start(self, link: Link) -> None:
        """Wake and set a reader whose line has just been opened; the default does nothing.

        Raises NoAnswer where nobody is there, and ProtocolError where it is another kind of reader.
        """
        del link

    def _wire(self, link: Link, framer: Framer, language: Language) -> Wire:
        """Frames over the line, counted and traced."""
        return Wire(link, framer, language, counts=self.statistics, tracer=self.tracer)

    async def open(self) -> None:
        """Open the line and wake the reader; raises LineError and BadAddress. Done already, it does nothing.

        A USB device that went away is found by what it is, also where it came back under another name. Closed
        meanwhile it raises LineGone.
        """
        if self._link is not None:
            return
        closings = self._closings
        link = await open_link(self._whereabouts.now(), name=self.url)
        try:
            self._whereabouts.seen()
            await self._start(link)
            self._check_wanted(closings)
        except BaseException as error:
            await link.close()
            if isinstance(error, LineGone) and closings == self._closings:
                self._tell_gone()
            raise
        self._link = link
        self._opened()

    def _check_wanted(self, closings: int) -> None:
        """What was closed since then is not to be open, with a line that nobody would let go of."""
        if closings != self._closings:
            raise LineGone(f"{self.url}: the reader was closed", advice="Open the reader again.")

    def _opened(self) -> None:
        """Count that the reader is open, and tell where it had been gone."""
        self._is_open = True
        self.statistics.openings += 1
        if self._lost:
            self._lost = False
            self.on_event(ReaderBack(url=self.url))

    async def close(self) -> None:
        """Let go of the line; a wait under way ends with LineGone."""
        self._closings += 1
        link, self._link = self._link, None
        self._is_open = False
        if link is not None:
            await link.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_for_card(self, timeout: float | None = 30.0, sale: Sale | None = None) -> Card:
        """The next card that is presented, within ``timeout`` seconds (None: for ever), to pay ``sale``.

        What was presented before the call does not count: the card of the customer before must not pay for
        this one. A line that went away in an earlier wait, or since, is opened again first, within the same
        timeout.

        Raises CardError for a card that cannot be used (wait again, and another swipe counts), TimedOut,
        Cancelled, LineGone when the line goes away meanwhile, LineError when it cannot be opened again, and
        FramingError or ProtocolError when the reader talks nonsense.
        """
        if self._wait is not None:
            raise ProtocolError(f"{self.url}: a wait for a card is already under way")
        self._cancelled, self.sale = False, sale
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
        if self._link is not None and self._link.is_gone():  # pulled out while nobody waited; it may be back
            await self._mourn()
        await self.open()
        assert self._link is not None
        self._link.discard()
        try:
            return await self._next_card(self._link)
        except LineGone:
            await self._mourn()
            raise

    async def _mourn(self) -> None:
        """The line is gone: let go of it, and tell. Nothing happens where it was closed from here."""
        if self._is_open:
            self._tell_gone()
            await self.close()

    def _tell_gone(self) -> None:
        if not self._lost:
            self.statistics.errors[LineGone.__name__] += 1
            self._lost = True
            self.on_event(ReaderGone(url=self.url))

    def cancel(self) -> None:
        """Call off the wait that is under way, which raises Cancelled; without one, nothing happens."""
        if self._wait is not None and not self._wait.expired():
            self._cancelled = True
            self._wait.reschedule(asyncio.get_running_loop().time())


def _unheard(_event: ReaderEvent) -> None:
    return None


def open_reader(url: str) -> Reader:
    """The reader that a URL names, not open yet: enter it with ``async with``.

    Drivers are those of `DRIVERS` and those that other packages add by entry points of the group `GROUP`.
    Raises BadAddress, and NotSupported for a driver that there is not, or that does not load.
    """
    address = parse_address(url)
    return _driver(address.driver)(address)


def _driver(name: str) -> type[Reader]:
    if name in DRIVERS:
        module, _, attribute = DRIVERS[name].partition(":")
        ours: type[Reader] = getattr(import_module(module), attribute)
        return ours
    added = {point.name: point for point in entry_points(group=GROUP)}
    if name in added:
        return _added(added[name])
    known = ", ".join((*DRIVERS, *sorted(added)))
    raise NotSupported(f"there is no driver named {name!r} (there are: {known})")


def _added(point: EntryPoint) -> type[Reader]:
    """Another package's driver; NotSupported where that does not load, or is none."""
    try:
        theirs = point.load()
    except (ImportError, AttributeError) as error:
        raise NotSupported(
            f"the driver {point.name!r} ({point.value}) does not load: {error}",
            advice="Install its package anew, with what it needs.",
        ) from error
    if not (isinstance(theirs, type) and issubclass(theirs, Reader)):
        raise NotSupported(
            f"{point.name!r} ({point.value}) is no driver of readers",
            advice="Whoever wrote its package has to name a class of hw.reader.Reader there.",
        )
    return theirs


__all__ = [
    "Address",
    "Capabilities",
    "CardInserted",
    "CardRemoved",
    "DRIVERS",
    "GROUP",
    "Reader",
    "ReaderBack",
    "ReaderError",
    "ReaderEvent",
    "ReaderGone",
    "Sale",
    "open_reader",
    "parse_address",
]
