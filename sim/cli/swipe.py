"""``till swipe``: a stripe reader that is not there, on a pty of its own or at the end of any line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import click

from hw.errors import ReaderError
from hw.link import open_link
from sim.cli.ending import run_until_ended
from sim.cli.keys import check_keys, presses
from sim.reader.line import Line, PtyLine
from sim.reader.magstripe import FORMATS, Fault, MagstripeEmulator
from sim.reader.stripes import CARDS
from terminal import log


class ReaderFailed(click.ClickException):
    """What the line or the reader refused, as the command line says it."""

    exit_code = 5


@click.command()
@click.option("--pty", "pty", is_flag=True, help="Be a reader on a new serial device, and print its path.")
@click.option("--device", metavar="PATH", help="Swipe into this serial device or link URL.")
@click.option("--card", type=click.Choice(list(CARDS)), default="visa", show_default=True)
@click.option("--format", "make", type=click.Choice(FORMATS), default="magtek", show_default=True)
@click.option("--fault", type=click.Choice([fault.value for fault in Fault]), help="What goes wrong each time.")
@click.option("--at-once", is_flag=True, help="Swipe as soon as a terminal waits for a card, each time it does.")
@click.option("--every", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Swipe this often.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def swipe(
    pty: bool,
    device: str | None,
    card: str,
    make: str,
    fault: str | None,
    at_once: bool,
    every: float | None,
    as_json: bool,
) -> None:
    """Swipe a test card, as a reader would send it.

    With neither --at-once nor --every, each press of ENTER is a swipe. Ends with Ctrl-C or SIGTERM, at the end
    of the input, when the line goes away, or, into a --device with --at-once, after its one swipe.
    """
    if pty == (device is not None):
        raise click.UsageError("Say either --pty or --device PATH.")
    if at_once and every is not None:
        raise click.UsageError("Say either --at-once or --every SECONDS.")

    def say(event: str, plain: str, **facts: str) -> None:
        click.echo(json.dumps({"event": event, **facts}) if as_json else plain)

    async def run() -> None:
        if every is None and not at_once:
            check_keys("--at-once or --every")
        async with AsyncExitStack() as stack:
            line: Line
            if device is None:
                line = pty_line = PtyLine()
                when = _whenever(pty_line.listening)
                say("ready", pty_line.path, device=pty_line.path, reader=f"magstripe{pty_line.address}")
            else:
                line = await open_link(device)
                when = _once()
                say("ready", device, device=device)
            stack.push_async_callback(line.close)
            if every is not None:
                when = _each(every)
            elif not at_once:
                when = presses()
            reader = MagstripeEmulator(line, make)
            async for _ in when:
                await reader.swipe(card, Fault(fault) if fault else None)
                masked = CARDS[card].masked_pan
                say("swiped", f"swiped {card} {masked}", card=card, pan=masked)
                if fault == Fault.UNPLUG:
                    return

    log.guard_last_resort()
    try:
        run_until_ended(run())
    except ReaderError as error:
        raise ReaderFailed(f"{error}\n{error.advice}".rstrip()) from None


async def _whenever(listening: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    while True:
        await listening()
        yield


async def _once() -> AsyncIterator[None]:
    yield


async def _each(seconds: float) -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(seconds)
