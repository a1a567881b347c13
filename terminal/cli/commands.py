"""The commands by name, each loaded when it is called, and those of other packages found by entry points.

An entry point of the group ``till.commands`` is named after the command's path: ``swipe``, or ``reader emulate``.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import click

from terminal import __version__
from terminal.cli.common import Common, Extension, add_common_options
from terminal.cli.failures import EXIT_CODES_HELP

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "till.commands"


class Own(NamedTuple):
    """A command of this package: where it is, and its line in the list, which so loads nothing."""

    target: str
    help: str


OWN: dict[str, Own] = {
    "provision": Own("terminal.cli.provision:provision", "Give this terminal its identity and its ZMK."),
    "activate": Own("terminal.cli.activate:activate", "Climb from wherever the terminal stands to activated."),
    "status": Own("terminal.cli.look:status", "Show where the terminal stands."),
    "charge": Own("terminal.cli.pay:charge", "Take a payment."),
    "refund": Own("terminal.cli.pay:refund", "Give back a charge, whole or in part."),
    "cancel": Own("terminal.cli.pay:cancel", "Void a charge before its settlement."),
    "confirm": Own("terminal.cli.held:confirm", "Let a held charge stand: the goods are out."),
    "void": Own("terminal.cli.held:void", "Take a charge back, held or not."),
    "abandon": Own("terminal.cli.held:abandon", "Say that the shopper has left."),
    "resolve": Own("terminal.cli.resolve:resolve", "Go on with what is open."),
    "outcomes": Own("terminal.cli.resolve:outcomes", "List the outcomes that no till has acknowledged."),
    "run": Own("terminal.cli.keep:run", "Keep the terminal alive until it is stopped."),
    "journal": Own("terminal.cli.journal:journal", "List what was asked and what came of it."),
    "reconcile": Own("terminal.cli.books:reconcile", "Compare the journal with the host, payment by payment."),
    "totals": Own("terminal.cli.books:totals", "Add up a day."),
    "keys": Own("terminal.cli.keys:keys", "Show what is known of the keys, never the keys."),
    "reader list": Own("terminal.cli.reader:list_", "List the serial ports, and what seems to be on each."),
    "reader probe": Own("terminal.cli.reader:probe", "Ask a port which reader is there."),
    "reader watch": Own("terminal.cli.reader:watch", "Show each card that comes, masked."),
    "reader test": Own("terminal.cli.reader:test", "Test a reader, and report step by step."),
    "reader trace": Own("terminal.cli.reader:trace", "Write down every frame while a card is read."),
}


FOREIGN: dict[str, str] = {
    "host": "Run a simulated host.",
    "swipe": "Swipe a simulated card at a reader's line.",
    "soak": "Live through days full of trouble, and check every one.",
    "prove": "Search the tables of a payment's life to their end.",
    "reader": "Find, test and watch card readers.",
    "reader emulate": "Be a reader, with cards, at the end of a line.",
    "reader replay": "Be the reader of a trace.",
}
"""Commands that other packages are known to bring, as an entry point has no text of its own until it is loaded; and
groups."""


class Commands(click.Group):
    """A group whose commands are looked up by their path below ``till`` and loaded when called."""

    def __init__(self, name: str, path: tuple[str, ...] = (), *, help: str = "", epilog: str = "") -> None:
        super().__init__(name, no_args_is_help=True, help=help, epilog=epilog)
        self._path = path
        add_common_options(self)

    @cached_property
    def _found(self) -> dict[tuple[str, ...], EntryPoint]:
        """The entry points below this group, by the rest of their path."""
        from importlib.metadata import entry_points

        depth = len(self._path)
        paths = {tuple(point.name.split()): point for point in entry_points(group=GROUP)}
        return {path[depth:]: point for path, point in paths.items() if path[:depth] == self._path and path[depth:]}

    def _own(self, name: str) -> Own | None:
        return OWN.get(" ".join((*self._path, name)))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours in the order of the table, then what the entry points add."""
        depth = len(self._path)
        words = [tuple(name.split()) for name in OWN]
        ours = [path[depth] for path in words if path[:depth] == self._path and len(path) > depth]
        return list(dict.fromkeys([*ours, *sorted(path[0] for path in self._found)]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded; None where there is no such name."""
        if own := self._own(cmd_name):
            module, _, name = own.target.partition(":")
            return add_common_options(getattr(import_module(module), name))
        if point := self._found.get((cmd_name,)):
            common = ctx.ensure_object(Common)
            common.extension = Extension(point.name, _needs(point))
            loaded = point.load()
            if not isinstance(loaded, click.Command):
                raise click.ClickException(f"the entry point {point.name!r} ({point.value}) is not a command")
            _hand_over(ctx, cmd_name, loaded)
            return add_common_options(loaded)
        below = " ".join((*self._path, cmd_name, ""))
        if any(path[0] == cmd_name for path in self._found) or any(name.startswith(below) for name in OWN):
            path = (*self._path, cmd_name)
            return Commands(cmd_name, path, help=FOREIGN.get(" ".join(path), ""))
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table and from the names of the entry points alone."""
        rows = []
        for name in self.list_commands(ctx):
            own, point = self._own(name), self._found.get((name,))
            known = FOREIGN.get(" ".join((*self._path, name)), "")
            if own:
                rows.append((name, own.help))
            elif point:
                rows.append((name, f"{known} Comes with {_needs(point)}.".lstrip()))
            else:
                rows.append((name, known or "A group of commands."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with our names for what was meant instead."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise click.UsageError(f"there is no command {args[0]!r} (there are: {', '.join(known)})", ctx)
        return super().resolve_command(ctx, args)


def _hand_over(ctx: click.Context, name: str, command: click.Command) -> None:
    """Give a command that has an option of its own of a common name what was said of it before the command."""
    said = {"--home": ctx.obj.home, "--json": ctx.obj.json, "--verbose": ctx.obj.verbose}
    own = {
        str(parameter.name): said[word] for parameter in command.params for word in parameter.opts if word in said
    }
    ctx.default_map = {**(ctx.default_map or {}), name: own}


def _needs(point: EntryPoint) -> str:
    """What to install for a command: its distribution, and the extra that has its package's name."""
    distribution = point.dist.name if point.dist else ""
    package = point.module.partition(".")[0]
    extras = point.dist.metadata.get_all("Provides-Extra") or () if point.dist else ()
    return f"{distribution}[{package}]" if package in extras else distribution or package


def make() -> Commands:
    """The command ``till``."""
    till = Commands("till", help="A payment terminal in software.", epilog=EXIT_CODES_HELP)
    return click.version_option(__version__, message="till %(version)s")(till)
