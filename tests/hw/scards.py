"""A PC/SC service that is not there: what pyscard gives, from one process, for the driver under test."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import pytest

from hw.card import ChipCard
from hw.pcsc import PcscReader
from hw.reader import ReaderEvent, open_reader
from tests.hw.contact import T1

READER = "ACS ACR39U ICC Reader 00 00"

NO_SERVICE, NO_READERS, UNKNOWN_READER = 0x8010001D, 0x8010002E, 0x80100009
SHARING_VIOLATION, REMOVED, NO_CARD, CANCELLED, TIMEOUT = 0x8010000B, 0x80100069, 0x8010000C, 0x80100002, 0x8010000A
CHANGED, UNAVAILABLE, EMPTY, PRESENT, MUTE = 2, 8, 16, 32, 512
NOT_TRANSACTED = 0x80100016
NOTIFICATION = "\\\\?PnP?\\Notification"


def ok(_: bytes) -> bytes:
    return b"\x90\x00"


@dataclass
class Slot:
    """A reader. ``says`` answers commands; ``connecting`` and ``transmitting`` are return codes for what fails."""

    atr: bytes = b""
    says: Callable[[bytes], bytes] = ok
    count: int = 0
    mute: bool = False
    held: bool = False
    powered: int = 0
    connecting: int = 0
    transmitting: int = 0
    heard: list[bytes] = field(default_factory=list)


class Scards:
    """The service, its readers by name, and what is done to them. Every method may be called from any thread."""

    def __init__(self, *names: str) -> None:
        self.slots = {name: Slot() for name in names}
        self.running = True
        self.contexts = 0
        self.waits = 0
        self.lists = 0
        self.holding: threading.Event | None = None
        """A command, or a connect, that has begun waits for this."""
        self.begun = threading.Event()
        self.changes = 0
        self._cancelled = False
        self._changed = threading.Condition()

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            yield
            self.changes += 1
            self._changed.notify_all()

    def insert(self, name: str, atr: bytes, says: Callable[[bytes], bytes] = ok, *, mute: bool = False) -> None:
        with self._change():
            slot = self.slots[name]
            slot.atr, slot.says, slot.mute = atr, says, mute
            slot.count += 1

    def remove(self, name: str) -> None:
        with self._change():
            self.slots[name].atr = b""
            self.slots[name].count += 1

    def unplug(self, name: str) -> None:
        with self._change():
            del self.slots[name]

    def plug(self, name: str) -> None:
        with self._change():
            self.slots[name] = Slot()

    def stop(self) -> None:
        with self._change():
            self.running = False

    def waiting(self) -> bool:
        return self.waits > 0

    def SCardEstablishContext(self, scope: int) -> tuple[int, int]:
        assert scope == 0
        if not self.running:
            return NO_SERVICE, 0
        self.contexts += 1
        return 0, 7

    def SCardReleaseContext(self, context: int) -> int:
        self.contexts -= 1
        return 0

    def SCardListReaders(self, context: int, groups: list[str]) -> tuple[int, list[str]]:
        self.lists += 1
        return (0, list(self.slots)) if self.slots else (NO_READERS, [])

    def SCardCancel(self, context: int) -> int:
        with self._changed:
            self._cancelled = self.waits > 0  # one that comes before the wait is lost
            self._changed.notify_all()
        return 0

    def SCardGetStatusChange(
        self, context: int, timeout: int, states: list[tuple[str, int]]
    ) -> tuple[int, list[tuple[str, int, list[int]]]]:
        ((name, known),) = states
        with self._changed:
            self.waits += 1
            try:
                seen = self.changes
                until = None if timeout == 0xFFFFFFFF else timeout / 1000
                while True:
                    if not self.running:
                        return 0x8010001E, []
                    if self._cancelled:
                        self._cancelled = False
                        return CANCELLED, []
                    if name != NOTIFICATION:
                        if name not in self.slots:
                            return (0, [(name, CHANGED | 4 | UNAVAILABLE, [])]) if known else (UNKNOWN_READER, [])
                        state = self._state(name)
                        if state != known:
                            return 0, [(name, state | CHANGED, [])]
                    elif self.changes != seen:
                        return 0, [(name, CHANGED, [])]
                    if not self._changed.wait(until):
                        return TIMEOUT, []
            finally:
                self.waits -= 1

    def _state(self, name: str) -> int:
        slot = self.slots[name]
        return slot.count << 16 | (PRESENT | (MUTE if slot.mute else 0) if slot.atr else EMPTY)

    def SCardConnect(self, context: int, name: str, share: int, protocols: int) -> tuple[int, int, int]:
        assert (share, protocols) == (1, 3)
        self._hold()
        slot = self.slots[name]
        if slot.connecting:
            return slot.connecting, 0, 0
        if slot.held:
            return SHARING_VIOLATION, 0, 0
        if not slot.atr:
            return NO_CARD, 0, 0
        slot.held = True
        slot.powered += 1
        return 0, list(self.slots).index(name), 2 if slot.atr[1] & 0x80 else 1

    def SCardStatus(self, card: int) -> tuple[int, str, int, int, list[int]]:
        name = list(self.slots)[card]
        return 0, name, 4, 2, list(self.slots[name].atr)

    def SCardTransmit(self, card: int, protocol: int, data: list[int]) -> tuple[int, list[int]]:
        if not self.running:
            return 0x8010001E, []
        slots = list(self.slots.values())
        if card >= len(slots):
            return UNKNOWN_READER, []
        slot = slots[card]
        if slot.transmitting:
            return slot.transmitting, []
        if not slot.atr:
            return REMOVED, []
        slot.heard.append(bytes(data))
        self._hold()
        return 0, list(slot.says(bytes(data)))

    def _hold(self) -> None:
        if self.holding is not None:
            self.begun.set()
            assert self.holding.wait(20)

    def SCardDisconnect(self, card: int, disposition: int) -> int:
        assert disposition == 2
        slots = list(self.slots.values())
        if card < len(slots):
            slots[card].held = False
        return 0


@contextmanager
def scards(*names: str) -> Iterator[Scards]:
    """The service, for the driver to find; all that was established is released at the end."""
    service = Scards(*names)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hw.pcsc.load", lambda: service)
        yield service


def opened(url: str = "pcsc://") -> tuple[PcscReader, list[type[ReaderEvent]]]:
    reader = open_reader(url)
    assert isinstance(reader, PcscReader)
    events: list[type[ReaderEvent]] = []
    reader.on_event = lambda event: events.append(type(event))
    return reader, events


async def taken(reader: PcscReader, timeout: float | None = 20) -> ChipCard:
    card = await reader.wait_for_card(timeout)
    assert isinstance(card, ChipCard)
    return card


@asynccontextmanager
async def plugged_in(url: str = "pcsc://") -> AsyncIterator[tuple[Scards, PcscReader, list[type[ReaderEvent]]]]:
    """`READER` at a service of its own, and its driver, open, with what that tells; nothing is left of it."""
    with scards(READER) as service:
        reader, events = opened(url)
        async with reader:
            yield service, reader, events


async def inserted(service: Scards, reader: PcscReader, atr: bytes = T1) -> ChipCard:
    """A card goes into `READER`, and is taken."""
    service.insert(READER, atr)
    return await taken(reader)
