"""``till run``: the terminal kept alive, as a service is."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from terminal.cli.common import Common
from terminal.cli.text import counted

if TYPE_CHECKING:
    from terminal.terminal import Terminal


@click.command()
@click.pass_obj
def run(common: Common) -> None:
    """Keep the terminal alive until SIGTERM or Ctrl-C: heartbeats, keys and configuration renewed, open payments
    gone on with.

    Tells what happens as it happens. While it runs no other command can open the terminal: a kiosk's own program
    calls Terminal.keep() instead.
    """
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal

    settings = load(common.home)
    common.watching = True
    still = with_terminal(common, settings, secret_of(settings), lambda till: _kept(common, till))
    text = ["ended"]
    if still:
        text.append(f"{counted(still, 'payment')} open: the next start goes on with them")
    common.screen.result({"event": "result", "open": still, "exit_code": 0}, text)


async def _kept(common: Common, till: Terminal) -> int:
    """Until a signal comes; how many payments are open then."""
    keeping = asyncio.ensure_future(till.keep())
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopped.set)
    waiting = asyncio.ensure_future(stopped.wait())
    facts = {"event": "running", "level": till.level.value}
    common.screen.result(facts, [f"running, the terminal is {till.level.value}"])
    try:
        await asyncio.wait((keeping, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        for task in (keeping, waiting):
            task.cancel()
        await asyncio.wait((keeping, waiting))
    if not keeping.cancelled():
        keeping.result()
    return len(till.journal.unresolved())
