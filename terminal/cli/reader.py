"""``till reader``: which readers there are, whether they work, and what passes their line."""

from __future__ import annotations

import asyncio
import time
from typing import IO, TYPE_CHECKING, Any, Final

import click

from hw.errors import NoAnswer, ReaderError
from terminal import log
from terminal.cli.common import Common
from terminal.cli.text import columns, counted, printable

if TYPE_CHECKING:
    from hw.finding import Port
    from hw.probing import Probed
    from hw.selftest import Step
    from hw.trace import Tracer

READER_FAILED: Final = 5
_TIMEOUT: Final = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a card is waited for.",
)


@click.command("list")
@click.option("--ask/--no-ask", default=True, help="Ask each port what is there, or go by its USB ids alone.")
@click.pass_obj
def list_(common: Common, ask: bool) -> None:
    """List the serial ports, and what seems to be on each.

    Asking opens a port for a few seconds. Modems and the like are not asked: `till reader probe PORT` does.
    """
    from hw.finding import ports

    found = ports()
    probed = asyncio.run(_ask_all([port for port in found if ask and not port.not_asked]))
    rows: list[tuple[str, ...]] = [("port", "what it is", "what seems to be there")]
    for port in found:
        answer = probed.get(port.path)
        facts = _port_facts(port) | (_answer_facts(answer) if answer else {})
        if common.json:
            common.screen.result({"event": "port", **facts}, ())
        rows.append((port.name, port.what, _seems(port, answer)))
    text = columns(rows) if found else ["There is no serial port."]
    advice = dict.fromkeys(answer.error.advice for answer in probed.values() if answer.error is not None)
    text = [*text, *filter(None, advice)]
    common.screen.result({"event": "result", "ports": len(found), "exit_code": 0}, text)


@click.command()
@click.argument("port", required=False)
@click.pass_obj
def probe(common: Common, port: str | None) -> int:
    """Ask PORT which reader is there: a device's path, socket://HOST:PORT, or a reader's URL.

    Without PORT all ports are asked, but for those of modems and the like. Ends with 5 where no reader answers.
    """
    from hw.finding import ASKED, port_at, ports
    from hw.probing import probe as ask

    if port is None:
        wanted = [one for one in ports() if not one.not_asked]
        answers = list(asyncio.run(_ask_all(wanted)).values())
    elif _is_reader(port):
        answers = [asyncio.run(_open_once(port))]
    else:
        known = port_at(port, ports())
        drivers = known.drivers if known else ASKED
        answers = [asyncio.run(ask(port, drivers, "" if known is None else known.name))]
        if (error := answers[0].error) is not None:
            raise error
    if port is not None and not answers[0].driver:
        raise NoAnswer(f"{port}: no reader answers", advice=_why_not(answers[0]))
    for answer in answers:
        if common.json:
            common.screen.result({"event": "probed", **_answer_facts(answer)}, ())
    there = [answer for answer in answers if answer.driver]
    code = 0 if there else READER_FAILED
    text = [printable(f"{answer.url}  {answer.says}".rstrip()) for answer in there] or ["No reader answers."]
    text += [f"{answer.error}  {answer.error.advice}".rstrip() for answer in answers if answer.error is not None]
    common.screen.result({"event": "result", "readers": len(there), "exit_code": code}, text)
    return code


@click.command()
@click.argument("url")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many cards.")
@click.pass_obj
def watch(common: Common, url: str, count: int | None) -> None:
    """Show each card that comes to the reader URL, masked, until Ctrl-C. A reader may be unplugged meanwhile."""
    from terminal.cli.reader_watch import Watch

    log.guard_last_resort()
    asyncio.run(Watch(url, lambda facts, line: common.screen.result(facts, [printable(line)])).run(count))


@click.command()
@click.argument("url")
@click.option("--card/--no-card", default=True, help="With a card that somebody presents, or without.")
@_TIMEOUT
@click.pass_obj
def test(common: Common, url: str, card: bool, timeout: float) -> int:
    """Test the reader URL step by step, and report what works and what does not.

    The report holds nothing of a card but its masked number: paste it where you ask for help. Ends with 0 where
    everything passed, else with 5.
    """
    from hw.reader import open_reader
    from hw.selftest import SelfTest
    from terminal.cli.reader_cards import chip_in_words

    log.guard_last_resort()

    def shown(step: Step) -> None:
        if common.json:
            common.screen.result({"event": "step", "name": step.name, "state": step.state}, ())

    def tell(what: str) -> None:
        if common.json:
            common.screen.result({"event": "prompt", "message": what}, ())
        else:
            click.echo(what, err=True)

    steps = SelfTest(
        open_reader(url),
        time.monotonic,
        card_seconds=timeout if card else None,
        tell=tell,
        shown=shown,
        read=chip_in_words,
    )
    report = asyncio.run(steps.run())
    code = 0 if report.passed else READER_FAILED
    common.screen.result({"event": "result", **report.facts, "exit_code": code}, map(printable, report.lines))
    return code


@click.command()
@click.argument("url")
@click.argument("file", type=click.File("w", encoding="utf-8", lazy=False))
@_TIMEOUT
@click.pass_obj
def trace(common: Common, url: str, file: IO[str], timeout: float) -> None:
    """Write every frame that passes the reader URL's line while a card is read into FILE (- for stdout).

    Card data is masked: what is written is a card that is nobody's, and `till reader replay` plays it back.
    """
    from hw.card import ChipCard
    from hw.reader import open_reader
    from hw.selftest import invitation
    from hw.trace import Tracer
    from terminal.cli.reader_cards import facts_of, in_words

    log.guard_last_resort()
    reader = open_reader(url)
    reader.tracer = Tracer(file.write, time.monotonic)

    async def record() -> dict[str, Any]:
        async with reader:
            click.echo(invitation(reader), err=True)
            card = await reader.wait_for_card(timeout)
            try:
                return await facts_of(card)
            finally:
                if isinstance(card, ChipCard):
                    await card.release()

    facts = asyncio.run(record())
    if (why := _unwritten(file, reader.tracer)) is not None:
        raise click.ClickException(f"{file.name}: the trace is not whole: {why.strerror or why}")
    counts = reader.statistics
    frames = counts.frames_in + counts.frames_out
    if file.name != "<stdout>":
        told = f"{in_words(facts)}; {counted(frames, 'frame')} in {file.name}"
        common.screen.result({**facts, "event": "result", "frames": frames, "exit_code": 0}, [printable(told)])


def _unwritten(file: IO[str], tracer: Tracer) -> OSError | None:
    """Why a trace did not reach its file, as a disk is full; None where it did. A stdout may have heard enough."""
    if file.name == "<stdout>":
        return None
    try:
        file.flush()
    except OSError as error:
        return error
    return tracer.failed


# -- in words ---------------------------------------------------------------------------------------------------


async def _ask_all(found: list[Port]) -> dict[str, Probed]:
    from hw.probing import probe as ask

    answers = await asyncio.gather(*(ask(port.path, port.drivers, port.name) for port in found))
    return {port.path: answer for port, answer in zip(found, answers, strict=True)}


async def _open_once(url: str) -> Probed:
    from hw.probing import Probed
    from hw.reader import open_reader, parse_address

    async with open_reader(url) as reader:
        says = str(getattr(reader, "firmware", ""))
    return Probed(parse_address(url).line, parse_address(url).driver, url, says)


def _is_reader(word: str) -> bool:
    """Whether a word names a driver too, and not a line alone."""
    from hw.reader import parse_address

    return ":" in word and not word.startswith("/") and parse_address(word).driver not in ("socket", "rfc2217")


def _seems(port: Port, answer: Probed | None) -> str:
    if answer is not None and answer.driver:
        return f"{answer.url}  {answer.says}"
    if answer is not None and answer.error is not None:
        return f"not asked: {str(answer.error).partition(': ')[2]}"
    if port.not_asked:
        return f"not asked: {port.not_asked}"
    perhaps = f"{' or '.join(port.likely)} by its USB ids" if port.likely else ""
    if answer is None:
        return perhaps or "not asked"
    silent = "something talks that is no reader we know" if answer.heard else "nobody answers"
    return f"{silent}; {perhaps}" if perhaps else f"{silent}; a stripe reader may be silent until a card is swiped"


def _why_not(answer: Probed) -> str:
    from hw.probing import reader_url

    if answer.heard:
        named = reader_url("vivopay", answer.line)
        return f"Something talks there: check the baud rate, or name the driver: `till reader test {named}`."
    silent = "Check power and cable. A stripe reader says nothing until a swipe: swipe a card while it is asked"
    return f"{silent}, or `till reader watch {reader_url('magstripe', answer.line)}`."


def _port_facts(port: Port) -> dict[str, Any]:
    return {
        "port": port.path,
        "stable": port.stable,
        "vid": port.vid,
        "pid": port.pid,
        "serial": port.serial,
        "location": port.location,
        "product": port.product,
        "likely": list(port.likely),
    }


def _answer_facts(answer: Probed) -> dict[str, Any]:
    error: ReaderError | None = answer.error
    return {
        "line": answer.line,
        "driver": answer.driver,
        "reader": answer.url,
        "says": answer.says,
        "asked": list(answer.asked),
        "heard": answer.heard,
        "error": str(error) if error else "",
        "advice": (error.advice if error else "") if error or answer.driver else _why_not(answer),
    }
