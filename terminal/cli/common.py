"""What every command is told: the options that stand before or after its name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from terminal.cli.screen import Screen
    from terminal.events import PaymentChanged


def default_home() -> Path:
    """``TILL_HOME``, or ``~/.till``."""
    return Path(os.environ.get("TILL_HOME") or "~/.till").expanduser()


class Extension(NamedTuple):
    """A command that an entry point brought: its path, and what to install for it (``tillwright[sim]``)."""

    name: str
    needs: str


@dataclass
class Common:
    """What the common options say. A command finds it as ``ctx.obj``."""

    home: Path = field(default_factory=default_home)
    json: bool = False
    verbose: bool = False
    extension: Extension | None = None
    """The command, where it came from an entry point."""
    watching: bool = False
    """No single payment is under way: what becomes of any is told as it happens."""
    payment: PaymentChanged | None = None
    """The payment under way, as it last changed."""
    after_a_stop: str = ""
    """What to do after a Ctrl-C of which no payment is known to be left open."""
    _screen: Screen | None = None

    @property
    def screen(self) -> Screen:
        """What the command shows things on."""
        if self._screen is None:
            from terminal.cli.screen import open_screen

            self._screen = open_screen(as_json=self.json, plain=self.verbose, watching=self.watching)
        return self._screen

    def close_screen(self) -> None:
        """Clear what moves on the screen."""
        if self._screen is not None:
            self._screen.close()


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value in (None, False):
        return
    setattr(context.ensure_object(Common), str(parameter.name), value)
    if parameter.name == "verbose":
        from terminal import log

        log.to_stream()


def add_common_options(command: click.Command) -> click.Command:
    """Give the command ``--home``, ``--json`` and ``--verbose``, but for those that it has of its own."""
    taken = {name for parameter in command.params for name in parameter.opts}
    for option in (
        click.Option(
            ["--home"],
            type=click.Path(file_okay=False, path_type=Path),
            callback=_keep,
            expose_value=False,
            help="The folder with all state (else TILL_HOME, else ~/.till).",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            callback=_keep,
            expose_value=False,
            help="One JSON object a line, as each event happens.",
        ),
        click.Option(
            ["--verbose", "-v"], is_flag=True, callback=_keep, expose_value=False, help="Log everything to stderr."
        ),
    ):
        names = [name for name in option.opts if name not in taken]
        if names:
            option.opts = names
            command.params.append(option)
    return command
