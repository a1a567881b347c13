"""What is on a port, by asking: each driver's gentlest question, in turn, with little patience.

A question changes nothing that stays: it is the one for a version, or for the state of a slot. A wrong one is
noise to the reader that is really there, and is over before the next is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from hw import magstripe
from hw.errors import LineGone, NoAnswer, NotSupported, ReaderError
from hw.line import Link
from hw.link import open_link

SWIPED: Final = "a stripe reader: a card was swiped meanwhile"


@dataclass(frozen=True, slots=True)
class Question:
    """How a driver's reader is asked: the line's settings, seconds of patience, and what asks.

    ``ask`` gives what the reader says of itself; it raises ReaderError where another or none is there.
    """

    line: Mapping[str, str]
    patience: float
    ask: Callable[[Link], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Probed:
    """What asking a port has shown. ``driver`` and ``url`` are empty where nobody answered, who then is not known.

    ``says`` is what the reader says of itself; ``error`` why the port could not be asked at all.
    """

    line: str
    driver: str = ""
    url: str = ""
    says: str = ""
    asked: tuple[str, ...] = ()
    heard: int = 0
    """Bytes that came and were no answer to anything."""
    error: ReaderError | None = field(default=None, compare=False)


async def probe(line: str, drivers: Iterable[str], stable: str = "", *, patience: float = 1.0) -> Probed:
    """Ask a line (a device's path, socket:// or rfc2217://) for each of these drivers until one is answered.

    ``stable`` is the name that its URL shall have, by default the line's; ``patience`` is how many times as long
    as usual an answer may take. An error of the line is told, not raised.
    """
    asked: list[str] = []
    heard = 0
    for driver in drivers:
        question = QUESTIONS[driver]
        try:
            link = await open_link(_with_settings(line, question.line), name=line)
        except ReaderError as error:
            return Probed(line, asked=tuple(asked), heard=heard, error=error)
        asked.append(driver)
        counted = _Counted(link)
        try:
            async with asyncio.timeout(question.patience * patience):
                says = await question.ask(counted)
            return Probed(line, driver, reader_url(driver, stable or line), says, tuple(asked), heard)
        except LineGone as error:
            return Probed(line, asked=tuple(asked), heard=heard + counted.heard, error=error)
        except (ReaderError, TimeoutError):
            heard += counted.heard
        finally:
            await link.close()
        if counted.swiped:
            return Probed(line, "magstripe", reader_url("magstripe", stable or line), SWIPED, tuple(asked), heard)
    return Probed(line, asked=tuple(asked), heard=heard)


def reader_url(driver: str, line: str) -> str:
    """The URL of a reader on a line."""
    return f"{driver}+{line}" if "://" in line else f"{driver}://{line}"


def _with_settings(line: str, settings: Mapping[str, str]) -> str:
    if line.startswith("socket://") or "?" in line:
        return line
    return f"{line}?{urlencode(settings)}"


class _Counted(Link):
    """A line that counts what comes, and knows a swipe when it hears one. Closing it is its owner's."""

    def __init__(self, link: Link) -> None:
        super().__init__(link.name)
        self._link, self.heard = link, 0
        self._stripes, self._swiped = magstripe.Framer(), False

    @property
    def swiped(self) -> bool:
        """Whether a card was swiped meanwhile, in any make's format."""
        self._listen(self._stripes.quiet())
        return self._swiped

    async def read(self) -> bytes:
        return self._heard(await self._link.read())

    def take(self) -> bytes:
        return self._heard(self._link.take())

    def _heard(self, data: bytes) -> bytes:
        self.heard += len(data)
        self._listen(self._stripes.feed(data))
        return data

    def _listen(self, messages: list[bytes]) -> None:
        self._swiped |= any(map(magstripe.is_swipe, messages))

    def discard(self) -> None:
        self._link.discard()

    async def write(self, data: bytes) -> None:
        await self._link.write(data)

    async def change_baud(self, baud: int) -> None:
        await self._link.change_baud(baud)

    async def close(self) -> None:
        raise NotSupported("whoever opened the line closes it")


# -- the questions ------------------------------------------------------------------------------------------------


async def _pn532(link: Link) -> str:
    from hw.pn532 import IC
    from hw.pn532_chip import Chip
    from hw.pn532_frames import GET_FIRMWARE_VERSION

    chip = Chip(link)
    await chip.wake()
    version = await chip.ask(GET_FIRMWARE_VERSION)
    if len(version) != 4 or version[0] != IC:
        raise NotSupported("a chip of NXP's, and no PN532")
    return f"PN532 {version[1]}.{version[2]}"


async def _gemcore(link: Link) -> str:
    from hw.ccid import Kind
    from hw.ccid_channel import Channel
    from hw.gemcore import FIRMWARE
    from hw.gemcore_frames import ENVELOPE
    from hw.wire import Wire

    channel = Channel(Wire(link, ENVELOPE.framer(), ENVELOPE.language()), ENVELOPE, _unheard)
    said = (await channel.ask(Kind.ESCAPE, FIRMWARE)).check(link.name)
    return "".join(chr(code) for code in said.data if 0x20 <= code < 0x7F)


async def _acs(link: Link) -> str:
    from hw.acs_frames import ENVELOPE
    from hw.ccid import Kind
    from hw.ccid_channel import Channel
    from hw.wire import Wire

    channel = Channel(Wire(link, ENVELOPE.framer(), ENVELOPE.language()), ENVELOPE, _unheard)
    await channel.ask(Kind.GET_SLOT_STATUS)
    return "a reader of ACS's; contactless cards come with ?slot=picc"


async def _vivopay(link: Link) -> str:
    from hw.vivopay_channel import Channel
    from hw.vivopay_commands import Commands
    from hw.vivopay_frames import Framer
    from hw.vivopay_trace import language
    from hw.wire import Wire

    commands = Commands(Channel(Wire(link, Framer(), language()), _unheard))
    await commands.ping()
    return await commands.firmware()


REVIEW: Final = bytes.fromhex("02521F034C")
"""ID TECH MiniMag: send your settings. Most other stripe readers cannot be asked anything."""
_ACK, _NAK = b"\x06", b"\x15"


async def _magstripe(link: Link) -> str:
    await link.write(REVIEW)
    if (await link.read())[:1] not in (_ACK, _NAK):
        raise NoAnswer(f"{link.name}: no answer to a stripe reader's question")
    return "a stripe reader that takes ID TECH's commands"


def _unheard(_: object) -> None:
    """What a reader says unasked is not the answer."""


QUESTIONS: Final[Mapping[str, Question]] = {
    # A USB adapter may take a second for its first byte; the chip itself takes milliseconds.
    "pn532": Question({"baud": "115200"}, 1.6, _pn532),
    "gemcore": Question({"baud": "115200", "stop": "2"}, 0.8, _gemcore),
    "vivopay": Question({"baud": "115200"}, 0.8, _vivopay),
    "acs": Question({"baud": "9600"}, 0.8, _acs),
    "magstripe": Question({"baud": "9600"}, 0.3, _magstripe),
}
"""Driver -> its question. A silent port has been asked all of them in five seconds."""
