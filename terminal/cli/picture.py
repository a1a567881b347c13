"""What a person sees on a terminal: the levels tick off, and below them what is going on now, alive.

The only module that imports ``rich``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from terminal import events
from terminal.cli.letters import large
from terminal.cli.text import printable
from terminal.cli.words import describe
from terminal.money import Amount

REDRAWN = 4
"""Times a second that what moves is drawn."""

LETTERS_NEED = 12
"""Rows of a terminal that large letters have to fit into, with their frame and two rows of words below them."""


@dataclass
class _Pairing:
    """A pairing code in large letters; the seconds run down between the host's words."""

    code: str
    left: float
    since: float
    clock: Callable[[], float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        left = max(0, int(self.left - (self.clock() - self.since)))
        dot = "█" if "utf" in options.encoding.lower() else "#"
        words = Text(f"Type {self.code} into the merchant's portal: ")
        words.append(f"{left} s left", style="bold yellow" if left > 30 else "bold red")
        shown: list[RenderableType] = [words]
        for size in (2, 1) if console.size.height > LETTERS_NEED else ():
            lines = large(self.code, dot * size)
            if max(map(len, lines)) <= options.max_width - 6:
                shown.insert(0, Text("\n".join(["", *lines, ""]), style="bold cyan", no_wrap=True))
                break
        yield Panel(Group(*shown), title="Pairing code", expand=False, padding=(0, 2))


def _download(event: events.Downloading) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    size = f"{event.received / 1024:.0f} KiB"
    row.add_row(
        f"Downloading {printable(event.what)}",
        ProgressBar(total=event.total, completed=event.received, width=30),
        size,
    )
    return row


def _present(amount: Amount, width: int) -> RenderableType:
    words = "Present your card"
    text = Text.assemble("\n", (str(amount), "bold"), f"\n\n{words}\n", justify="center")
    beside = max(0, min(8, (width - 2 - len(words)) // 2))
    return Panel(text, expand=False, padding=(0, beside), border_style="cyan")


class Picture:
    """Draws events. ``close`` leaves on the screen what was reached and takes away what moves."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(highlight=False)
        self._clock = clock
        self._live = Live(console=self._console, transient=True, refresh_per_second=REDRAWN)
        self._pairing: _Pairing | None = None

    def event(self, event: events.Event) -> None:
        """Draw what happened."""
        match event:
            case events.PairingCodeShown():
                left = (event.expires_at - event.at).total_seconds()
                self._pairing = _Pairing(printable(event.pairing_code), left, self._clock(), self._clock)
                self._show(self._pairing)
            case events.PairingPolled():
                if self._pairing is not None:
                    self._pairing.left, self._pairing.since = event.seconds_left, self._clock()
            case events.Downloading():
                self._show(_download(event))
            case events.CardWanted():
                self._show(_present(event.amount, self._console.width))
            case events.CardRefused():
                self._console.print(Text(f"! {describe(event)}", style="yellow"))
            case events.LevelReached():
                self._show(Spinner("line", "..."))
                self._console.print(Text.assemble((self._tick, "green"), " ", printable(event.level)))
            case events.CardRead():
                self._console.print(Text(describe(event)))
                self._show(Spinner("line", "Asking the host"))
            case _:
                if told := describe(event):
                    self._console.print(Text(told, style="dim"))

    def progress(self, what: str, done: int, total: int) -> None:
        """How far something long has come."""
        row = Table.grid(padding=(0, 1))
        row.add_row(
            printable(what), ProgressBar(total=max(1, total), completed=done, width=30), f"{done} of {total}"
        )
        self._show(row)

    def close(self) -> None:
        """Come to rest."""
        self._live.stop()

    @property
    def _tick(self) -> str:
        return "✓" if "utf" in self._console.encoding.lower() else "+"

    def _show(self, what: RenderableType) -> None:
        self._live.start()
        self._live.update(what, refresh=True)
