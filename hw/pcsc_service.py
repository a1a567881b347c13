"""The PC/SC service (pcscd on Linux) as coroutines: its calls block, so each has a thread for its time.

It is reached by pyscard, which has to be built for each machine and so is no dependency: `load` says how to get it.
What a return code means to a payment is told here, by one table.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar, cast

from hw.errors import CardError, CardGone, LineError, LineGone, NoAnswer, NotSupported, ReaderError

EXCLUSIVE: Final = 1
T0: Final = 1
T1: Final = 2
UNPOWER: Final = 2
FOR_EVER: Final = 0xFFFFFFFF
"""PC/SC part 5, section 3.1: how a card is shared, its protocols, what becomes of it, and no timeout."""

UNAWARE: Final = 0
CHANGED: Final = 0x02
UNKNOWN: Final = 0x04
UNAVAILABLE: Final = 0x08
PRESENT: Final = 0x20
MUTE: Final = 0x200
"""States of a reader (part 5, section 3.1.5)."""

NOTIFICATION: Final = "\\\\?PnP?\\Notification"
"""The name of no reader, whose state changes when a reader comes or goes."""

PATIENCE: Final = 60.0
"""Seconds for one call: a card may ask for more time, and nobody stands at a till for longer."""
SETTLES: Final = 5.0
"""Seconds for a call that nobody waits for any more, before the next one gives up."""
NUDGE: Final = 0.02
"""Seconds between two attempts to end a wait: the first may come before the wait has begun."""
NUDGES: Final = 50

Changes = list[tuple[str, int, list[int]]]
Result = TypeVar("Result")


class Scard(Protocol):
    """What is used of ``smartcard.scard``. Each gives a return code, 0 for success, and then what was asked for."""

    SCardEstablishContext: Callable[[int], tuple[int, int]]
    SCardReleaseContext: Callable[[int], int]
    SCardListReaders: Callable[[int, list[str]], tuple[int, list[str]]]
    SCardGetStatusChange: Callable[[int, int, list[tuple[str, int]]], tuple[int, Changes]]
    """Context, milliseconds, states that are known; the states as they are."""
    SCardCancel: Callable[[int], int]
    SCardConnect: Callable[[int, str, int, int], tuple[int, int, int]]
    """Context, reader, how it is shared, protocols; a handle and the protocol."""
    SCardStatus: Callable[[int], tuple[int, str, int, int, list[int]]]
    """Handle; the reader's name, its state, the protocol, the answer to reset."""
    SCardTransmit: Callable[[int, int, list[int]], tuple[int, list[int]]]
    SCardDisconnect: Callable[[int, int], int]


def load() -> Scard:
    """pyscard; NotSupported where it is not installed."""
    try:
        return cast(Scard, import_module("smartcard.scard"))
    except ImportError:
        raise NotSupported(
            "readers behind PC/SC need pyscard, which is not installed",
            advice="pip install 'tillwright[pcsc]', after apt-get install libpcsclite-dev swig gcc python3-dev; "
            "or, for the system's own Python, apt-get install python3-pyscard.",
        ) from None


_START: Final = "Start it (`systemctl start pcscd.socket`), or install it: apt-get install pcscd."
_ALLOW: Final = "Let the user use it: a polkit rule for org.debian.pcsc-lite.access_pcsc and .access_card."
_BUSY: Final = "Close the other program; scdaemon (of GnuPG), a browser or an identity card's are usual ones."
_AGAIN: Final = "Insert the card again, chip first and to the end; wipe its contacts."

NO_SERVICE: Final = 0x8010001D
NO_READERS: Final = 0x8010002E
TIMEOUT: Final = 0x8010000A

NOT_RUNNING: Final = "the PC/SC service is not running"

CODES: Final[Mapping[int, tuple[type[ReaderError], str, str]]] = {
    NO_SERVICE: (LineGone, NOT_RUNNING, _START),
    0x80100002: (LineGone, "the reader is closed", "Open the reader again."),
    0x8010001E: (LineGone, "the PC/SC service has stopped", _START),
    0x80100003: (LineGone, "the PC/SC service does not know us any more", _START),
    0x80100013: (LineGone, "the PC/SC service hung up", _START),
    0x8010006A: (LineError, "the PC/SC service does not let this user in", _ALLOW),
    0x80100027: (LineError, "the PC/SC service does not let this user in", _ALLOW),
    0x80100009: (LineGone, "the reader is gone", ""),
    0x80100017: (LineGone, "the reader is gone", ""),
    0x8010000B: (LineError, "another program holds the card", _BUSY),
    0x8010000C: (CardGone, "the card was taken away", ""),
    0x80100069: (CardGone, "the card was taken away", ""),
    0x80100067: (CardGone, "the card was let go of", ""),
    0x80100068: (CardGone, "another program has reset the card", _BUSY),
    0x80100010: (CardError, "the card is not ready", _AGAIN),
    0x80100066: (CardError, "the card does not answer", _AGAIN),
    0x80100065: (CardError, "the reader cannot use this card", _AGAIN),
    0x8010000F: (CardError, "the card speaks neither T=0 nor T=1", "Use another card."),
    0x80100015: (CardError, "the card's answer to reset makes no sense", _AGAIN),
    0x80100016: (CardError, "the card did not take the command", _AGAIN),
}
"""Return code -> the error, what happened, and what to do (part 5, section 3.1.7; names in winscard's headers)."""


def check(name: str, code: int) -> None:
    """Raise what a return code means; ``name`` is the reader's, for its words."""
    code &= 0xFFFFFFFF
    if code:
        kind, why, advice = CODES.get(code, (LineError, f"the PC/SC service reports {code:08X}h", ""))
        raise kind(f"{name}: {why}", advice=advice)


class Service:
    """A context of the service. One call at a time; ``name`` is what errors call it."""

    def __init__(self, scard: Scard, context: int, name: str) -> None:
        self._scard, self._context, self.name = scard, context, name
        self._turn = asyncio.Lock()
        self._flight: asyncio.Future[Any] | None = None
        self._waiting = False

    @classmethod
    async def establish(cls, scard: Scard, name: str) -> Service:
        """Connect to the service; raises LineError."""
        flight = in_thread(partial(scard.SCardEstablishContext, 0))
        try:
            await asyncio.wait((flight,))
        except asyncio.CancelledError:
            _then(flight, lambda established: scard.SCardReleaseContext(established[1]))
            raise
        code, context = flight.result()
        if code & 0xFFFFFFFF == NO_SERVICE:  # from here on, that is a service that has died
            raise LineError(f"{name}: {NOT_RUNNING}", advice=_START)
        check(name, code)
        return cls(scard, context, name)

    async def readers(self) -> list[str]:
        """The names of the readers that are plugged in, in the service's order."""
        code, names = await self._call(partial(self._scard.SCardListReaders, self._context, []))
        if code & 0xFFFFFFFF == NO_READERS:
            return []
        check(self.name, code)
        return list(names)

    async def changed(self, reader: str, known: int = UNAWARE, timeout: float | None = None) -> int:
        """A reader's state, as soon as it is not ``known``, or after ``timeout`` seconds.

        Its upper 16 bits count cards that came or went. A cancellation ends the wait in the service as well.
        """
        until = FOR_EVER if timeout is None else round(timeout * 1000)
        wait = partial(self._scard.SCardGetStatusChange, self._context, until, [(reader, known & ~CHANGED)])
        code, states = await self._call(wait, stop=True)
        if code & 0xFFFFFFFF == TIMEOUT:
            return known
        check(self.name, code)
        return states[0][1]

    async def connect(self, reader: str) -> tuple[int, int, bytes]:
        """Power the card, for us alone; its handle, its protocol (`T0`, `T1`) and its answer to reset."""
        code, card, protocol, answer = await self._call(partial(self._connect, reader), undo=self._disconnect)
        check(self.name, code)
        return card, protocol, answer

    def _connect(self, reader: str) -> tuple[int, int, int, bytes]:
        code, card, protocol = self._scard.SCardConnect(self._context, reader, EXCLUSIVE, T0 | T1)
        if code:
            return code, 0, 0, b""
        code, _, _, _, answer = self._scard.SCardStatus(card)
        if code:
            self._scard.SCardDisconnect(card, UNPOWER)
        return code, card, protocol, bytes(answer)

    def _disconnect(self, connected: tuple[int, int, int, bytes]) -> None:
        code, card, _, _ = connected
        if not code:
            self._scard.SCardDisconnect(card, UNPOWER)

    async def transmit(self, card: int, protocol: int, data: Sequence[int]) -> bytes:
        """One command, and its answer."""
        code, answer = await self._call(partial(self._scard.SCardTransmit, card, protocol, list(data)))
        check(self.name, code)
        return bytes(answer)

    async def disconnect(self, card: int) -> None:
        """Power the card off."""
        check(self.name, await self._call(partial(self._scard.SCardDisconnect, card, UNPOWER)))

    async def close(self) -> None:
        """Let go of the service; a wait under way ends with LineGone.

        What else is under way is left behind, and the service let go of once that is over.
        """
        release = partial(self._scard.SCardReleaseContext, self._context)
        flight = self._flight
        if flight is not None and self._waiting:
            await self._stop(flight)
        if flight is None or flight.done():
            await in_thread(release)
        else:
            flight.add_done_callback(lambda _: in_thread(release))

    async def _call(
        self,
        call: Callable[[], Result],
        *,
        stop: bool = False,
        undo: Callable[[Result], object] | None = None,
    ) -> Result:
        """One call. Where nobody waits for it any more, it is undone if it has to be.

        One that can be stopped may take for ever.
        """
        async with self._turn:
            if self._flight is not None and not self._flight.done():
                await self._land(self._flight, SETTLES)
            self._flight, self._waiting = (flight := in_thread(call)), stop
            try:
                await self._land(flight, None if stop else PATIENCE)
            except BaseException:
                if undo is not None:
                    self._flight = _then(flight, undo)
                elif stop:
                    await self._stop(flight)
                raise
            return flight.result()

    async def _land(self, flight: asyncio.Future[Result], patience: float | None) -> None:
        await asyncio.wait((flight,), timeout=patience)
        if not flight.done():
            raise NoAnswer(f"{self.name}: the reader is not done within {patience:g} s")

    async def _stop(self, flight: asyncio.Future[Result]) -> None:
        for _ in range(NUDGES):
            await asyncio.wait((flight, in_thread(partial(self._scard.SCardCancel, self._context))), timeout=NUDGE)
            if flight.done():
                return
            await asyncio.wait((flight,), timeout=NUDGE)


def _then(flight: asyncio.Future[Result], undo: Callable[[Result], object]) -> asyncio.Future[None]:
    """Undo what a call has done, once it has; the future is done after both."""
    undone: asyncio.Future[None] = flight.get_loop().create_future()

    def landed(done: asyncio.Future[Result]) -> None:
        if done.exception() is not None:
            undone.set_result(None)
        else:
            in_thread(partial(undo, done.result())).add_done_callback(lambda _: undone.set_result(None))

    flight.add_done_callback(landed)
    return undone


def in_thread(call: Callable[[], Result]) -> asyncio.Future[Result]:
    """Begin a call that blocks. Nothing waits for its thread, also not the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def land(result: Result | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(Result, result))

    def run() -> None:
        result: Result | None = None
        error: Exception | None = None
        try:
            result = call()
        except Exception as caught:  # it is raised where the call is waited for
            error = caught
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(land, result, error)

    threading.Thread(target=run, name="pcsc", daemon=True).start()
    return future
