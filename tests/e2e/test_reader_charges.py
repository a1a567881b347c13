"""`till charge --reader URL` by tap, by insert and by a reader that encrypts; each a process, on a real line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from queue import Queue
from typing import Any

import pytest

from sim.card import inserted, tapped
from sim.reader import gemcore, pn532, vivopay
from tests.e2e.hosted import DEADLINE, Home, call, said
from tests.e2e.plugged import Counted


class Emulation:
    """An emulator that lives in a thread of its own; ``do`` runs something beside it."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._opening = opening
        self._ready: Queue[Any] = Queue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._life()))

    async def _life(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self._opening() as emulated:
            self._ready.put(emulated)
            await self._over.wait()

    def start(self) -> None:
        self._thread.start()
        self.emulated = self._ready.get(timeout=DEADLINE)
        self.url: str = self.emulated.url

    def do(self, work: Callable[[Any], Any]) -> None:
        """Call ``work`` with the emulator, and await what it gives."""

        async def done() -> None:
            result = work(self.emulated)
            if asyncio.iscoroutine(result):
                await result

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(DEADLINE)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(DEADLINE)


@contextmanager
def emulating(opening: Callable[[], AbstractAsyncContextManager[Any]]) -> Iterator[Emulation]:
    emulation = Emulation(opening)
    emulation.start()
    try:
        yield emulation
    finally:
        emulation.stop()


def tap(name: str) -> Callable[[Any], None]:
    return lambda emulated: emulated.reader.tap(tapped(name))


def insert(name: str) -> Callable[[Any], Any]:
    return lambda emulated: emulated.reader.insert(inserted(name))


WAYS = [
    pytest.param(pn532.on_pty, tap("visa-credit"), "contactless", "476173******0119", id="tap, PN532, pty"),
    pytest.param(pn532.on_socket, tap("maestro"), "contactless", "630493*********9610", id="tap, PN532, socket"),
    pytest.param(gemcore.on_pty, insert("visa-credit"), "chip", "476173******0119", id="insert, GemCore, T=0, pty"),
    pytest.param(
        gemcore.on_socket, insert("visa-debit"), "chip", "476173******0010", id="insert, GemCore, T=0, socket"
    ),
    pytest.param(
        gemcore.on_pty, insert("mastercard-credit"), "chip", "541333******0010", id="insert, GemCore, T=1, pty"
    ),
    pytest.param(vivopay.on_pty, tap("amex"), "contactless", "378282*****0005", id="tap, ViVOpay, pty"),
]


@pytest.mark.parametrize(("opening", "present", "entry_mode", "masked_pan"), WAYS)
def test_a_charge_by_chip(activated: Home, opening: Any, present: Any, entry_mode: str, masked_pan: str) -> None:
    with emulating(opening) as reader, activated.running("charge", "12.50", "--reader", reader.url) as process:
        said(process, "card_wanted")
        reader.do(present)
        assert said(process, "card_read")["entry_mode"] == entry_mode
        payment = said(process, "result")["payment"]
        assert process.wait(DEADLINE) == 0
    assert (payment["state"], payment["masked_pan"]) == ("approved", masked_pan)
    assert (payment["entry_mode"], payment["amount"]["value"]) == (entry_mode, "1250")


@pytest.mark.parametrize("entry", ["", "?entry=insert", "?entry=swipe"])
def test_a_charge_by_a_card_with_no_reader_at_all(activated: Home, entry: str) -> None:
    payment = activated.pay("charge", "12.50", "--reader", f"sim://jcb{entry}")
    assert (payment["state"], payment["masked_pan"]) == ("approved", "353011******0000")


def test_a_card_that_there_is_not(activated: Home) -> None:
    error = activated.told("charge", "12.50", "--reader", "sim://visa", code=5)[-1]
    assert "there is no card named 'visa'" in error["message"]


@pytest.mark.parametrize("seal", ["aes", "tdes"])
@pytest.mark.parametrize(
    ("present", "entry_mode"), [(tap("visa-credit"), "contactless"), (insert("visa-credit"), "chip")]
)
def test_a_charge_by_a_reader_that_encrypts(
    activated: Home, url: str, seal: Any, present: Any, entry_mode: str
) -> None:
    with (
        emulating(lambda: vivopay.on_socket(seal)) as reader,
        activated.running("charge", "12.50", "--reader", f"{reader.url}?encrypts=yes") as process,
    ):
        said(process, "card_wanted")
        reader.do(present)
        payment = said(process, "result")["payment"]
        assert process.wait(DEADLINE) == 0
    assert (payment["state"], payment["entry_mode"], payment["masked_pan"]) == (
        "approved",
        entry_mode,
        "4761********0119",
    )
    asked = [e["request"] for e in call(f"{url}/sim/exchanges")["exchanges"] if e["path"] == "/pos/charge"]
    assert "encrypted_card" in asked[-1]["card"]
    assert not {"track2", "pan"} & set(asked[-1]["card"])


def open_payments(activated: Home) -> int:
    *_, result = activated.told("journal", "--verify")
    unresolved: int = result["unresolved"]
    return unresolved


def harmless(activated: Home, process: Any, before: int, present: Any, opening: Any, reference: str) -> None:
    """The charge ends as the reader's fault, in words; nothing is left of it; the reference is paid after all."""
    error = said(process, "error")
    assert process.wait(DEADLINE) == 5
    assert error["error"] == "LineGone"
    assert "gone" in error["message"]
    assert error["advice"]
    assert process.stderr is not None
    assert error["message"] in process.stderr.read()
    assert open_payments(activated) == 0
    assert payments(activated) == before
    with emulating(opening) as reader:
        reader.do(present)
        paid = activated.pay("charge", "12.50", "--reference", reference, "--reader", reader.url)
    assert paid["state"] == "approved"


def payments(activated: Home) -> int:
    *found, _ = activated.told("journal")
    return len(found)


UNPLUGGED = [
    pytest.param(pn532.on_pty, tap("visa-credit"), id="PN532, pty"),
    pytest.param(pn532.on_socket, tap("visa-credit"), id="PN532, socket"),
    pytest.param(gemcore.on_pty, insert("visa-credit"), id="GemCore, pty"),
    pytest.param(gemcore.on_socket, insert("mastercard-credit"), id="GemCore, socket"),
    pytest.param(vivopay.on_pty, insert("visa-credit"), id="ViVOpay, pty"),
]


@pytest.mark.parametrize(("opening", "present"), UNPLUGGED)
def test_unplugged_while_a_card_is_waited_for(activated: Home, opening: Any, present: Any, request: Any) -> None:
    before, reference = payments(activated), request.node.callspec.id + " waiting"
    with (
        emulating(opening) as reader,
        activated.running("charge", "12.50", "--reference", reference, "--reader", reader.url) as process,
    ):
        said(process, "card_wanted")
        reader.do(lambda emulated: emulated.line.close())
        harmless(activated, process, before, present, opening, reference)


def closing(emulated: Any, card: Any) -> Counted:
    """A card at whose third command the plug is pulled."""
    closers = []

    def pull() -> None:
        closers.append(asyncio.ensure_future(emulated.line.close()))

    return Counted(card, 3, pull)


def test_unplugged_in_the_middle_of_a_tap(activated: Home) -> None:
    before = payments(activated)
    with (
        emulating(pn532.on_pty) as reader,
        activated.running("charge", "12.50", "--reference", "torn tap", "--reader", reader.url) as process,
    ):
        said(process, "card_wanted")
        reader.do(lambda emulated: emulated.reader.tap(closing(emulated, tapped("visa-credit"))))
        harmless(activated, process, before, tap("visa-credit"), pn532.on_pty, "torn tap")


@pytest.mark.parametrize("name", ["visa-credit", "mastercard-credit"])
def test_unplugged_in_the_middle_of_an_insert(activated: Home, name: str) -> None:
    before = payments(activated)
    with (
        emulating(gemcore.on_pty) as reader,
        activated.running("charge", "12.50", "--reference", f"torn {name}", "--reader", reader.url) as process,
    ):
        said(process, "card_wanted")
        reader.do(lambda emulated: emulated.reader.insert(closing(emulated, inserted(name))))
        harmless(activated, process, before, insert(name), gemcore.on_pty, f"torn {name}")


def test_a_card_that_is_refused_is_told_and_the_next_one_pays(activated: Home) -> None:
    with emulating(pn532.on_pty) as reader, activated.running("charge", "12.50", "--reader", reader.url) as process:
        said(process, "card_wanted")
        reader.do(tap("blocked"))
        assert "the card is blocked" in said(process, "card_refused")["reason"]
        reader.do(lambda emulated: emulated.reader.remove())
        reader.do(tap("visa-credit"))
        assert said(process, "result")["payment"]["state"] == "approved"
        assert process.wait(DEADLINE) == 0


def test_a_card_that_is_torn_away_counts_when_it_is_back(activated: Home) -> None:
    with emulating(pn532.on_pty) as reader, activated.running("charge", "12.50", "--reader", reader.url) as process:
        said(process, "card_wanted")
        reader.do(lambda emulated: emulated.reader.tear())
        reader.do(tap("visa-credit"))
        assert "taken away" in said(process, "card_refused")["reason"]
        reader.do(tap("visa-credit"))
        assert said(process, "result")["payment"]["state"] == "approved"
        assert process.wait(DEADLINE) == 0
