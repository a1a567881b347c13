"""A reader's self-test, step by step: what works, what does not and why, in a report that may be shown to anyone.

Nothing of a card is in a report but a masked number.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from hw import finding
from hw.apdu import Command
from hw.atr import DIRECT, INVERSE
from hw.card import Card, ChipCard, EntryMode, ManualCard, SealedCard
from hw.errors import BadAddress, Cancelled, CardError, CardGone, LineError, ReaderError, TimedOut
from hw.link import line_settings
from hw.reader import Reader, parse_address

State = Literal["passed", "failed", "left out"]

NOBODY: Final = 0.5
"""Seconds of a wait in which no card is expected: a poll or two."""
BAD_SHARE: Final = 0.05
"""Of the frames that were sent, how many may go wrong: more is a line on which payments will fail too."""
BAD_FEW: Final = 2
"""That many may always: a USB adapter loses the first bytes after it was opened."""
HELD_BACK: Final = 0.014, 0.040
"""Seconds of a round trip that look like an FTDI adapter which waits 16 ms before it passes on a few bytes."""

_CABLE: Final = "Try a shorter or shielded cable, another port or adapter, and a lower speed."
_LATENCY: Final = "An adapter seems to hold bytes back for 16 ms: set its latency timer (docs/wiring.md)."

_TAKE_AWAY: Final = "a card was there already; take it away, and test again, with --no-card"
_WITHOUT: Final = "a card was there; take it away, and test again"

_DIRECTORIES: Final = {EntryMode.CHIP: b"1PAY.SYS.DDF01", EntryMode.CONTACTLESS: b"2PAY.SYS.DDF01"}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried. ``detail`` says what came of it, ``advice`` what to do where it failed."""

    name: str
    state: State
    detail: str
    advice: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """What a self-test has found; ``facts`` is the same as plain values."""

    url: str
    driver: str
    capabilities: tuple[str, ...]
    about: dict[str, str] = field(default_factory=dict)
    """The line, the port, the firmware, this machine: by name, for people."""
    steps: list[Step] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    """Frames, bytes, retries, errors by kind, round-trip times in milliseconds."""

    @property
    def passed(self) -> bool:
        """Whether nothing failed. What was left out on purpose did not."""
        return all(step.state != "failed" for step in self.steps)

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "reader": self.url,
            "driver": self.driver,
            "passed": self.passed,
            "capabilities": list(self.capabilities),
            "about": self.about,
            "steps": [asdict(step) for step in self.steps],
            "numbers": self.numbers,
        }

    @property
    def lines(self) -> list[str]:
        """As text, to be pasted."""
        text = [f"reader        {self.url}", f"can           {', '.join(self.capabilities) or 'nothing'}"]
        text += [f"{name:<13} {value}" for name, value in self.about.items()]
        for step in self.steps:
            text.append(f"{step.state:<13} {step.name}: {step.detail}")
            if step.advice:
                text.append(f"{'':<13} {step.advice}")
        text += [f"{name.replace('_', ' '):<13} {_shown(value)}" for name, value in self.numbers.items()]
        return [*text, "everything passed" if self.passed else "NOT everything passed"]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
    return str(value)


def invitation(reader: Reader) -> str:
    """What to tell a person who has a card for it."""
    can = reader.capabilities
    return "Present a card now, and leave it there." if can.contact or can.contactless else "Swipe a card now."


async def greet(card: ChipCard) -> str:
    """Ask a chip for its directory of payment applications; what it says, in words. Raises as a card does."""
    response = await card.transmit(Command(0x00, 0xA4, 0x04, 0x00, _DIRECTORIES[card.entry_mode], 256))
    if response.ok:
        return f"its directory of applications came, {len(response.data)} bytes"
    return f"it has no directory of applications ({response.sw:04X})"


class _NotTried(Exception):  # never leaves this module
    """Why a step had no chance."""


class SelfTest:
    """Goes through the steps with a reader that is not open.

    ``clock`` gives seconds; ``tell`` hears what a person is asked to do, and ``shown`` each step as it is over.
    ``read`` reads a chip and says what it found. ``card_seconds``: how long a card is waited for, None to leave
    out what needs one.
    """

    def __init__(
        self,
        reader: Reader,
        clock: Callable[[], float],
        *,
        card_seconds: float | None = 30.0,
        tell: Callable[[str], object] = lambda _: None,
        shown: Callable[[Step], object] = lambda _: None,
        read: Callable[[ChipCard], Awaitable[str]] = greet,
    ) -> None:
        self._reader, self._clock, self._card_seconds = reader, clock, card_seconds
        self._tell, self._shown, self._read = tell, shown, read
        self._card: Card | None = None
        self._take_away = _WITHOUT if card_seconds is None else _TAKE_AWAY
        can = [name.replace("_", " ") for name, value in asdict(reader.capabilities).items() if value]
        self.report = Report(reader.url, parse_address(reader.url).driver, tuple(can))

    async def run(self) -> Report:
        """All steps; those that a failed one leaves no sense in are left out. Raises nothing of the reader's."""
        self.report.about |= about_machine() | about_line(self._reader)
        try:
            if await self._step("opens and answers", self._opens):
                await self._with_a_card()
                await self._step("a wait ends on time", self._waits)
                await self._step("a wait can be called off", self._calls_off)
                await self._step("opens again", self._opens_again)
        finally:
            await self._reader.close()
        self._count()
        return self.report

    async def _with_a_card(self) -> None:
        if self._card_seconds is None:
            self._add(Step("a card comes", "left out", "no card was asked for"))
        elif await self._step("a card comes", self._card_comes) and isinstance(self._card, ChipCard):
            await self._step("the card is read", self._card_is_read)
            await self._step("the card is let go of", self._card_goes)

    async def _step(self, name: str, work: Callable[[], Awaitable[str]]) -> bool:
        began = self._clock()
        try:
            step = Step(name, "passed", await work(), seconds=round(self._clock() - began, 3))
        except _NotTried as why:
            step = Step(name, "left out", str(why))
        except ReaderError as error:
            step = Step(name, "failed", str(error), error.advice, round(self._clock() - began, 3))
        self._add(step)
        return step.state == "passed"

    def _add(self, step: Step) -> None:
        self.report.steps.append(step)
        self._shown(step)

    async def _opens(self) -> str:
        await self._reader.open()
        firmware = getattr(self._reader, "firmware", "")
        if firmware:
            self.report.about["firmware"] = str(firmware)
        return f"it is {firmware}" if firmware else "it does not say what it is"

    async def _opens_again(self) -> str:
        await self._reader.close()
        await self._reader.open()
        return "closed, and opened anew"

    async def _waits(self) -> str:
        try:
            await self._reader.wait_for_card(NOBODY)
        except TimedOut:
            return "no card came, and that was told on time"
        except CardError as error:
            raise _NotTried(f"a card was there: {error}") from None
        raise _NotTried(self._take_away)

    async def _calls_off(self) -> str:
        """By the first look for a card: whatever the reader is told, it has been told by then."""
        wait = asyncio.create_task(self._reader.wait_for_card(None))
        try:
            await asyncio.wait([wait], timeout=NOBODY)
            self._reader.cancel()
            await wait
        except Cancelled:
            return "it was called off at once"
        except CardError as error:
            raise _NotTried(f"a card was there: {error}") from None
        finally:
            wait.cancel()
        raise _NotTried(self._take_away)

    async def _card_comes(self) -> str:
        self._tell(invitation(self._reader))
        self._card = await self._reader.wait_for_card(self._card_seconds)
        return _described(self._card)

    async def _card_is_read(self) -> str:
        assert isinstance(self._card, ChipCard)
        return await self._read(self._card)

    async def _card_goes(self) -> str:
        assert isinstance(self._card, ChipCard)
        await self._card.release()
        try:
            await greet(self._card)
        except CardGone:
            return "and is not spoken to any more"
        raise LineError(f"{self._reader.url}: a card that was let go of still answers", advice="Report it.")

    def _count(self) -> None:
        counts = self._reader.statistics
        trips = sorted(1000 * seconds for seconds in counts.round_trips)
        self.report.numbers = {
            "frames": {"out": counts.frames_out, "in": counts.frames_in},
            "bytes": {"out": counts.bytes_out, "in": counts.bytes_in, "dropped": counts.dropped},
            "errors": {"retries": counts.retries, **dict(sorted(counts.errors.items()))},
        }
        if trips:
            middle = round(statistics.median(trips), 2)
            times = {"min": round(trips[0], 2), "median": middle, "max": round(trips[-1], 2)}
            self.report.numbers["round_trip_ms"] = times
        self._judge(sum(counts.errors.values()), counts.frames_out, counts.round_trip)

    def _judge(self, bad: int, sent: int, trip: float | None) -> None:
        name = "the line is clean"
        if not sent:
            return
        said = f"{sent} frame{'' if sent == 1 else 's'}, of which not answered well: {bad or 'none'}"
        if bad > max(BAD_FEW, sent * BAD_SHARE):
            self._add(Step(name, "failed", said, _CABLE))
            return
        if self.report.steps[0].state == "failed":  # too little was said to praise the line
            return
        slow = trip is not None and HELD_BACK[0] <= trip <= HELD_BACK[1]
        self._add(Step(name, "passed", said, _LATENCY if slow else ""))


def _described(card: Card) -> str:
    match card:
        case ChipCard():
            made_up = card.answer[:1] in (bytes((DIRECT,)), bytes((INVERSE,)))  # as PC/SC readers do for a tap
            kind = "ATR" if made_up or card.entry_mode is EntryMode.CHIP else "ATS"
            return f"a card by {card.entry_mode.value}, its {kind} has {len(card.answer)} bytes"
        case SealedCard():
            return f"a card by {card.entry_mode.value}, {card.masked_pan}, encrypted by the reader ({card.scheme})"
        case ManualCard():
            return f"a card at the keys, {card.masked_pan}"
    return f"a card by {card.entry_mode.value}, {card.masked_pan}, in the clear"


def about_machine() -> dict[str, str]:
    """This machine, as far as it matters to a line."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {"machine": f"{system}, Python {platform.python_version()}"}


def about_line(reader: Reader) -> dict[str, str]:
    """The line of a reader: which port, and what is known of it."""
    address = parse_address(reader.url)
    said = {"line": address.line or "none"}
    if own := {name: value for name, value in reader.options.items() if name in address.options}:
        said["options"] = " ".join(f"{name}={value}" for name, value in own.items())
    if address.line.startswith(("/", "rfc2217://")):
        said["line"] += f", {_settings(reader.url, {**reader.LINE, **address.options}, own)}"
    if not address.line.startswith("/"):
        return said
    port = finding.port_at(address.line, finding.ports())
    if port is not None:
        said["port"] = f"{port.path}, {port.what}"
    held = finding.latency(address.line)
    if held is not None:
        said["latency"] = f"{held} ms"
    return said


def _settings(url: str, options: Mapping[str, str], own: Iterable[str]) -> str:
    """Of the line, as one says them: ``115200 baud, 8N2``."""
    try:
        line = line_settings(url, {name: value for name, value in options.items() if name not in own})
    except BadAddress:  # which opening it says better
        return "settings that make no sense"
    flow = "" if line.flow == "none" else f", {line.flow}"
    return f"{line.baud} baud, {line.bits}{line.parity[0].upper()}{line.stop}{flow}"
