"""Where a command shows what happens: JSON lines for scripts, lines of text, or a live picture for a person."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from terminal.events import Event


class Screen(Protocol):
    """What a command shows things on. None of its methods raises when nobody can read."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """One object for scripts, the same as lines for people."""

    def progress(self, what: str, done: int, total: int) -> None:
        """So much of something long is done."""

    def close(self) -> None:
        """Clear what moves."""


def open_screen(*, as_json: bool, plain: bool = False, watching: bool = False) -> Screen:
    """JSON where it is asked for, a picture where stdout is a terminal, lines otherwise and for who watches."""
    if as_json:
        return JsonScreen()
    if watching:
        return PlainScreen(watching=True)
    if plain or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainScreen()
    return LiveScreen()


def write_line(text: str) -> None:
    """A line on stdout, at once. Where it cannot be written the rest goes nowhere: no payment is undone by it."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class JsonScreen:
    """One JSON object a line, as it happens."""

    def event(self, event: Event) -> None:
        """The event, its name under ``event``."""
        from terminal.events import as_dict

        write_line(_json(as_dict(event)))

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """The facts alone."""
        write_line(_json(facts))

    def progress(self, what: str, done: int, total: int) -> None:
        """An object."""
        write_line(_json({"event": "progress", "what": what, "done": done, "total": total}))

    def close(self) -> None:
        """Nothing moves."""


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))


class PlainScreen:
    """Lines of text, without colour: for pipes, logs and simple terminals."""

    def __init__(self, *, watching: bool = False) -> None:
        """``watching``: nothing is told at the end, so that every outcome is told as it comes."""
        self._last, self._watching = "", watching
        self._tenth = ("", 0)

    def event(self, event: Event) -> None:
        """A line, where the event is worth one."""
        from terminal.cli.words import describe

        told = describe(event, watching=self._watching)
        if told and told != self._last:
            write_line(told)
        self._last = told

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """The lines alone."""
        for line in text:
            write_line(line)

    def progress(self, what: str, done: int, total: int) -> None:
        """A line for each tenth."""
        tenth = (what, done * 10 // max(1, total))
        if tenth != self._tenth and 0 < done < total:
            write_line(f"{what}: {done} of {total}")
        self._tenth = tenth

    def close(self) -> None:
        """Nothing moves."""


class LiveScreen(PlainScreen):
    """As lines, with what is going on below them; ``rich`` is imported when there is something to draw."""

    def __init__(self) -> None:
        super().__init__()
        self._picture: Any = None

    def event(self, event: Event) -> None:
        """Draw it."""
        if self._picture is None:
            from terminal.cli.picture import Picture

            self._picture = Picture()
        self._picture.event(event)

    def progress(self, what: str, done: int, total: int) -> None:
        """Draw it."""
        if self._picture is None:
            from terminal.cli.picture import Picture

            self._picture = Picture()
        self._picture.progress(what, done, total)

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """The lines, below a picture that has come to rest."""
        self.close()
        super().result(facts, text)

    def close(self) -> None:
        """Take away what moves and leave what was reached."""
        if self._picture is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self._picture.close()
            self._picture = None
