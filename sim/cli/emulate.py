"""``till reader emulate``: a reader that is not there, with cards that are not, on a pty or behind a socket."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal, cast

import click

if TYPE_CHECKING:
    from sim.reader.presenting import Presenter, Way

DRIVERS = ("pn532", "gemcore", "acs", "vivopay", "magstripe")
MAKES = ("magtek", "idtech", "uic")


class EmulationFailed(click.ClickException):
    """What the line or the reader refused, as the command line says it."""

    exit_code = 5


@click.command()
@click.argument("reader", type=click.Choice(DRIVERS))
@click.option("--pty", is_flag=True, help="On a new serial device, whose path is printed; the default.")
@click.option("--socket", is_flag=True, help="Behind a TCP port of this machine: prints socket://HOST:PORT.")
@click.option("--card", default="visa-credit", show_default=True, metavar="NAME", help="A card, by what it is for.")
@click.option("--tap", is_flag=True, help="Hold the card to it at once, and leave it there.")
@click.option("--insert", is_flag=True, help="Insert the card at once, and leave it there.")
@click.option("--swipe", is_flag=True, help="Swipe the card whenever somebody waits for one.")
@click.option(
    "--present-every",
    "every",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Present the card again and again, and take it away halfway to the next time.",
)
@click.option("--misbehave", "faults", multiple=True, metavar="FAULT", help="What goes wrong, one each time.")
@click.option("--encrypt", "seal", type=click.Choice(["tdes", "aes"]), help="vivopay: encrypt cards by DUKPT.")
@click.option("--format", "make", type=click.Choice(MAKES), help="magstripe: whose reader; magtek if left out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def emulate(
    reader: str,
    pty: bool,
    socket: bool,
    card: str,
    tap: bool,
    insert: bool,
    swipe: bool,
    every: float | None,
    faults: tuple[str, ...],
    seal: Literal["tdes", "aes"] | None,
    make: str | None,
    as_json: bool,
) -> None:
    """Be a READER that drivers can be pointed at, with a test card.

    Prints where it is once it is ready. With more than one of --tap, --insert and --swipe, --present-every takes
    them in turn. Without any of these each ENTER presents the card, and the next takes it away. Ends with Ctrl-C
    or SIGTERM, at the end of the input, or when the plug is pulled (--misbehave unplug).
    """
    from hw.errors import ReaderError
    from sim.card import CardFileError
    from sim.cli.ending import run_until_ended
    from sim.reader.presenting import PRESENTERS
    from terminal import log

    kind = PRESENTERS[reader]
    said = _ways(kind, tap, insert, swipe)
    ways = said or kind.WAYS[:1]
    if pty and socket:
        raise click.UsageError("Say either --pty or --socket.")
    if seal and reader != "vivopay":
        raise click.UsageError("--encrypt is for vivopay.")
    if make and reader != "magstripe":
        raise click.UsageError("--format is for magstripe.")
    known = [fault.value for fault in kind.FAULTS]
    if wrong := [fault for fault in faults if fault not in known]:
        raise click.UsageError(f"{reader} does not know {wrong[0]!r} (it knows: {', '.join(known)}).")
    _check_card(card, ways)

    def say(event: str, plain: str, **facts: str) -> None:
        click.echo(json.dumps({"event": event, **facts}) if as_json else plain)

    options = {name: value for name, value in (("seal", seal), ("make", make)) if value}
    started = Emulation(kind, ways, card, faults, say, options)
    at_once = bool(said) and every is None
    log.guard_last_resort()
    try:
        run_until_ended(started.run(socket=socket, every=every, at_once=at_once))
    except CardFileError as error:
        raise click.ClickException(str(error)) from None
    except ReaderError as error:
        raise EmulationFailed(f"{error}\n{error.advice}".rstrip()) from None


def _ways(kind: type[Presenter], tap: bool, insert: bool, swipe: bool) -> tuple[Way, ...]:
    said = {"tap": tap, "insert": insert, "swipe": swipe}
    ways = tuple(cast("Way", way) for way, wanted in said.items() if wanted)
    for way in ways:
        if way not in kind.WAYS:
            able = " and ".join(f"--{one}" for one in kind.WAYS)
            raise click.UsageError(f"{kind.DRIVER} takes {able}, and not --{way}.")
    if kind.DRIVER == "acs" and len(ways) > 1:
        raise click.UsageError("acs has one slot at a time: say either --insert or --tap.")
    return ways


def _check_card(card: str, ways: tuple[Way, ...]) -> None:
    """Before anybody is told where the reader is: whether the card can be presented so."""
    from sim.card import CardFileError, inserted, names, tapped
    from sim.reader.presenting import stripe_named
    from sim.reader.stripes import CARDS

    forms: dict[str, Callable[[str], object]] = {"tap": tapped, "insert": inserted, "swipe": stripe_named}
    known = {*names(), *(CARDS if ways == ("swipe",) else ())}
    if card not in known and not card.endswith(".toml"):
        raise click.UsageError(f"There is no card {card!r} (there are: {', '.join(sorted(known))}).")
    try:
        for way in ways:
            forms[way](card)
    except CardFileError as error:
        raise click.UsageError(f"--{way}: {error}.") from None


class Emulation:
    """One reader, from the plugging in to the pulling out."""

    def __init__(
        self,
        kind: type[Any],
        ways: tuple[Way, ...],
        card: str,
        faults: tuple[str, ...],
        say: Callable[..., None],
        options: dict[str, Any],
    ) -> None:
        self._kind, self._ways, self._card, self._say, self._options = kind, ways, card, say, options
        self._faults = cycle(faults) if faults else cycle([None])
        self._turns = cycle(ways)
        self._there = False

    async def run(self, *, socket: bool, every: float | None, at_once: bool) -> None:
        """Until the line is closed, or nobody is left to present cards. Raises as the reader does."""
        from hw.errors import LineGone
        from sim.cli.keys import check_keys
        from sim.reader.line import PtyLine, SocketLine

        if every is None and not at_once:
            check_keys("--tap, --insert, --swipe or --present-every")
        async with AsyncExitStack() as stack:
            line: PtyLine | SocketLine = SocketLine() if socket else PtyLine()
            stack.push_async_callback(line.close)
            if isinstance(line, SocketLine):
                await line.open()
            reader: Presenter = self._kind(line, self._ways, **self._options)
            device = line.path if isinstance(line, PtyLine) else f"socket://127.0.0.1:{line.port}"
            self._say("ready", device, device=device, reader=reader.url)
            if every is not None:
                presenting = self._each(reader, every)
            elif at_once:
                presenting = self._at_once(reader)
            else:
                presenting = self._keys(reader)
            with suppress(LineGone):  # it was told to pull its own plug
                await _until_one_ends(reader.run(), presenting)

    async def _present(self, reader: Presenter) -> None:
        way = next(self._turns)
        await reader.present(self._card, way, next(self._faults))
        self._there = way != "swipe"
        self._say("presented", f"{way} {self._card}", card=self._card, way=way)

    async def _remove(self, reader: Presenter) -> None:
        if self._there:
            self._there = False
            await reader.remove()
            self._say("removed", "removed", card=self._card)

    async def _each(self, reader: Presenter, seconds: float) -> None:
        while True:
            await self._present(reader)
            await asyncio.sleep(seconds / 2)
            await self._remove(reader)
            await asyncio.sleep(seconds / 2)

    async def _at_once(self, reader: Presenter) -> None:
        if self._ways == ("swipe",):
            await reader.swipe_at_once(self._card, next(self._faults))
        await self._present(reader)
        await asyncio.get_running_loop().create_future()

    async def _keys(self, reader: Presenter) -> None:
        from sim.cli.keys import presses

        if sys.stdin.isatty():
            click.echo("ENTER presents the card, the next takes it away; Ctrl-C ends.", err=True)
        async for _ in presses():
            if self._there:
                await self._remove(reader)
            else:
                await self._present(reader)


async def _until_one_ends(*works: Awaitable[None]) -> None:
    """All of them at once until one is over; raises what it has raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
