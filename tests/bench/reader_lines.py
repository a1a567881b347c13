"""What a reader's driver costs: an exchange beside the bare bytes, and beside the wire; at rest; and unplugged."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from hw import pn532_frames as frames
from hw.apdu import Command
from hw.card import ChipCard
from hw.reader import open_reader
from sim.reader import acs, gemcore, magstripe, pn532, vivopay
from sim.reader.line import PtyLine
from terminal.cli.reader_watch import Watch
from tests.bench.measure import Figure, Samples, alternate
from tests.hw.pn532s import Plastic

READ: Final = Command(0x00, 0xB2, 1, 0x0C, le=256)
ANSWER: Final = 120
"""Bytes of the card's answer, status words included: a record of a payment card."""
FRAMES: Final = 3
"""Command, ACK and answer."""
FRAME: Final = 150e-6
"""Seconds that a frame may take us."""
SHARE: Final = 1.15
EXCHANGES: Final = 50
BAUD: Final = 115_200
PACED: Final = 10
"""Exchanges in a batch, at a real line's pace."""
REST: Final = 20.0
"""Seconds for which a driver at rest is watched."""
IDLE: Final = 0.5
"""Percent of a core."""
PULLS: Final = 5
"""Times that each reader is unplugged."""
NOTICED, BACK = 1.0, 2.0
"""Seconds."""

_COMMAND: Final = frames.command(frames.IN_DATA_EXCHANGE, b"\x01" + READ.encode())
_SAID: Final = frames.answer(frames.IN_DATA_EXCHANGE, bytes(ANSWER + 1))

MAKERS: Final[dict[str, Callable[[], AbstractAsyncContextManager[Any]]]] = {
    "acs": acs.on_pty,
    "gemcore": gemcore.on_pty,
    "magstripe": magstripe.on_pty,
    "pn532": pn532.on_pty,
    "vivopay": vivopay.on_pty,
}


def exchanging(rounds: int = 41, exchanges: int = EXCHANGES) -> Iterator[Figure]:
    """CPU time of one process, in which the driver and the emulator are; the echo's both ends are as well."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            card = runner.run(_tapped(stack))

            def ours() -> None:
                runner.run(_ask(card, exchanges))

            with _echo() as theirs:
                samples = alternate(
                    {"ours": ours, "echo": lambda: [theirs() for _ in range(exchanges)]},
                    operations=exchanges,
                    rounds=rounds,
                )
        finally:
            runner.run(stack.aclose())
    allowed = [SHARE * echo + FRAMES * FRAME for echo in samples.seconds["echo"]]
    yield Samples(samples.seconds | {"allowed": allowed}).figure(
        "reader_exchange",
        "ours",
        "allowed",
        bound=1.0,
        about=f"an APDU over the PN532 emulator, both ends / {SHARE} bare echoes "
        f"({median(samples.seconds['echo']) * 1e6:.0f} us) + {FRAMES} x 150 us",
    )


async def _tapped(stack: AsyncExitStack) -> ChipCard:
    emulated = await stack.enter_async_context(pn532.on_pty())
    emulated.reader.tap(Plastic(says=lambda _: bytes(ANSWER - 2) + b"\x90\x00"))
    return await _card(stack, emulated.url)


async def _card(stack: AsyncExitStack, url: str) -> ChipCard:
    reader = await stack.enter_async_context(open_reader(url))
    card = await reader.wait_for_card(30)
    assert isinstance(card, ChipCard)
    return card


async def _ask(card: ChipCard, times: int) -> None:
    for _ in range(times):
        assert (await card.transmit(READ)).ok


@contextmanager
def _echo() -> Iterator[Callable[[], None]]:
    """The bytes of an exchange over a pty, there and back, by bare system calls."""
    master, device = pty.openpty()
    tty.setraw(device)

    def once() -> None:
        os.write(device, _COMMAND)
        os.read(master, 4096)
        os.write(master, frames.ACK)
        os.read(device, 4096)
        os.write(master, _SAID)
        os.read(device, 4096)

    try:
        yield once
    finally:
        os.close(device)
        os.close(master)


def keeping_pace(rounds: int = 31, exchanges: int = PACED) -> Iterator[Figure]:
    """Time on the wall. Each side has an emulator, a process of its own. What the wire takes is measured as well,
    by bare system calls: on a machine with much else to do both sides come late, and not by our doing.

    Of each batch, of either side, the fastest exchange counts: what the machine does besides only ever adds, by
    milliseconds where it is busy, and what the driver costs is in every exchange.
    """
    wire = (len(_COMMAND) + len(frames.ACK) + len(_SAID)) * 10 / BAUD
    sides: dict[str, list[float]] = {"ours": [], "bare": []}
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        open_until = AsyncExitStack()
        ours, theirs = stack.enter_context(_paced()), stack.enter_context(_paced())
        stack.callback(lambda: runner.run(open_until.aclose()))
        card = runner.run(_card(open_until, f"pn532://{ours}"))
        bare = stack.enter_context(_bare(theirs))
        alternate(
            {
                "ours": lambda: sides["ours"].append(runner.run(_fastest(card, exchanges))),
                "bare": lambda: sides["bare"].append(min(_timed(bare) for _ in range(exchanges))),
            },
            rounds=rounds,
            clock=time.perf_counter,
        )
    samples = Samples({name: fastest[1:] for name, fastest in sides.items()})  # the first batch warms up
    took = {name: median(fastest) / wire for name, fastest in samples.seconds.items()}
    yield samples.figure(
        "reader_wire",
        "ours",
        "bare",
        "ms",
        bound=1.05,
        about=f"an APDU over a PN532 emulator at {BAUD} baud / its bytes, bare, at that pace ({took['ours']:.3f} "
        f"and {took['bare']:.3f} of {wire * 1e3:.1f} ms; the fastest of each {exchanges})",
    )


async def _fastest(card: ChipCard, times: int) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        await _ask(card, 1)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def _paced() -> Iterator[str]:
    """An emulator that keeps the pace; its device."""
    words = (sys.executable, "-m", "tests.bench.reader_peer", "emulate", str(BAUD), str(ANSWER))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        yield peer.stdout.readline().strip()
        peer.stdin.close()


@contextmanager
def _bare(path: str) -> Iterator[Callable[[], None]]:
    """The same exchange with a chip that was woken, by bare system calls."""
    device = os.open(path, os.O_RDWR | os.O_NOCTTY)

    def ask(frame: bytes, size: int) -> None:
        os.write(device, frame)
        while size > 0:
            size -= len(os.read(device, 4096))

    def once() -> None:
        ask(_COMMAND, len(frames.ACK) + len(_SAID))

    try:
        woken = len(frames.ACK) + len(frames.answer(frames.SAM_CONFIGURATION))
        ask(frames.WAKE_UP + frames.command(frames.SAM_CONFIGURATION, b"\x01"), woken)
        found = b"\x01\x01\x00\x04\x20\x04" + Plastic().uid + Plastic().ats
        listed = len(frames.ACK) + len(frames.answer(frames.IN_LIST_PASSIVE_TARGET, found))
        ask(frames.command(frames.IN_LIST_PASSIVE_TARGET, b"\x01\x00"), listed)
        yield once
    finally:
        os.close(device)


def resting(seconds: float = REST) -> Iterator[Figure]:
    """CPU time of a process that waits for a card, each driver's its own."""
    for name, percent in asyncio.run(_rested(seconds)).items():
        yield Figure(
            name=f"reader_idle_{name}",
            ours=percent,
            theirs=IDLE,
            unit="% core",
            bound=1.0,
            about=f"{name} waiting for a card, over {seconds:g} s / what it may cost",
        )


async def _rested(seconds: float) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        readers = {name: await stack.enter_async_context(make()) for name, make in MAKERS.items()}
        peers = {
            name: await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.reader_peer", "rest", emulated.url, str(seconds)),
                stdout=subprocess.PIPE,
            )
            for name, emulated in readers.items()
        }
        return {name: float((await peer.communicate())[0]) for name, peer in peers.items()}


def unplugging(pulls: int = PULLS) -> Iterator[Figure]:
    """As ``till reader watch`` lives through it: the slowest of all drivers and all times."""
    with TemporaryDirectory(prefix="till-bench-") as folder:
        gone, back = asyncio.run(_pulled(Path(folder), pulls))
    many = f"{pulls} times each of {len(MAKERS)} drivers"
    for name, seconds, most, about in (
        ("reader_unplug", gone, NOTICED, "an unplugged reader noticed"),
        ("reader_return", back, BACK, "a reader that was plugged in again open"),
    ):
        yield Figure(
            name=name,
            ours=max(seconds),
            theirs=most,
            unit="s",
            bound=1.0,
            about=f"{about}, the slowest of {many} / what it may take",
        )


async def _pulled(folder: Path, pulls: int) -> tuple[list[float], list[float]]:
    gone, back = [], []
    for name, make in MAKERS.items():
        told: asyncio.Queue[str] = asyncio.Queue()
        device = folder / name
        watch = asyncio.create_task(_watching(make, device, told, pulls, gone, back))
        await watch
    return gone, back


async def _watching(
    make: Callable[[], AbstractAsyncContextManager[Any]],
    device: Path,
    told: asyncio.Queue[str],
    pulls: int,
    gone: list[float],
    back: list[float],
) -> None:
    """``device`` is a link to the pty, as udev keeps one; it is turned to a new pty with each return."""
    clock = time.perf_counter
    life: asyncio.Task[None] | None = None
    for pull in range(pulls + 1):
        async with make() as emulated:
            began = clock()
            _link(device, emulated.line.path)
            if life is None:
                url = emulated.url.replace(emulated.line.path, str(device))
                life = asyncio.create_task(Watch(url, lambda facts, _: told.put_nowait(facts["event"])).run())
                await _heard(told, "watching")
            else:
                await _heard(told, "reader_back")
                back.append(clock() - began)
            if pull == pulls:
                break
            await asyncio.sleep(1)  # it waits for a card again
            assert isinstance(emulated.line, PtyLine)
            began = clock()
            await emulated.line.close()
            await _heard(told, "reader_gone")
            gone.append(clock() - began)
    assert life is not None
    life.cancel()
    await asyncio.wait((life,))


def _link(device: Path, path: str) -> None:
    device.unlink(missing_ok=True)
    device.symlink_to(path)


async def _heard(told: asyncio.Queue[str], event: str) -> None:
    async with asyncio.timeout(30):
        while await told.get() != event:
            pass
