"""``till reader replay``: the reader of a trace, on a pty or behind a socket."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import IO

import click

from sim.dialects import DIALECTS


class ReplayFailed(click.ClickException):
    """Where driver and trace part, as the command line says it."""

    exit_code = 5


@click.command()
@click.argument("file", type=click.File(encoding="utf-8", errors="replace"))
@click.option("--pty", is_flag=True, help="On a new serial device, whose path is printed; the default.")
@click.option("--socket", is_flag=True, help="Behind a TCP port of this machine: prints socket://HOST:PORT.")
@click.option("--driver", type=click.Choice(list(DIALECTS)), help="Whose frames they are; else told by themselves.")
@click.option("--tolerant", is_flag=True, help="Go on where the driver does something else than was recorded.")
@click.option("--paced", is_flag=True, help="Take the time that the reader took.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def replay(
    file: IO[str], pty: bool, socket: bool, driver: str | None, tolerant: bool, paced: bool, as_json: bool
) -> None:
    """Be the reader whose trace (`till reader trace`) is in FILE: answer what it has answered.

    Prints where it is once it is ready. The first command that is not the recorded one ends it with 5, unless
    --tolerant. Ends with Ctrl-C or SIGTERM.
    """
    from hw.errors import ReaderError
    from sim.cli.ending import run_until_ended
    from sim.reader.line import PtyLine, SocketLine
    from sim.replay import Replay, load
    from terminal import log

    def say(event: str, plain: str, **facts: object) -> None:
        click.echo(json.dumps({"event": event, **facts}) if as_json else plain)

    async def run() -> None:
        recording = load(file, driver)
        if pty and socket:
            raise click.UsageError("Say either --pty or --socket.")
        if socket and not recording.turns:
            raise click.UsageError("A stripe reader behind a socket cannot know when somebody waits: say --pty.")
        async with AsyncExitStack() as stack:
            line: PtyLine | SocketLine = SocketLine() if socket else PtyLine()
            stack.push_async_callback(line.close)
            if isinstance(line, SocketLine):
                await line.open()
            device = line.path if isinstance(line, PtyLine) else f"socket://127.0.0.1:{line.port}"
            say("ready", device, device=device, reader=f"{recording.driver}{line.address}")

            def heard(played: int) -> None:
                if play.over and played == total:
                    say("over", f"all of it was played, {total} turns", turns=total)

            total = len(recording.turns) or len(recording.unasked)
            pace = 1.0 if paced else 0.0
            play = Replay(line, recording, tolerant=tolerant, pace=pace, heard=heard)
            await play.run()

    log.guard_last_resort()
    try:
        run_until_ended(run())
    except ReaderError as error:
        advice = error.advice or "A trace is what `till reader trace URL FILE` writes."
        raise ReplayFailed(f"{file.name}: {error}\n{advice}") from None
