"""A command of another package, as an entry point names it."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def emulate(context: click.Context, as_json: bool) -> None:
    """Has an option of its own of a common name."""
    click.echo(f"own={as_json} common={context.obj.json} home={context.obj.home}")


@click.command()
def plain() -> None:
    """Knows nothing of the common options."""
    click.echo("done")


class Broken(click.ClickException):
    """Has an exit code of its own."""

    exit_code = 5


@click.command()
@click.option("--code", type=int)
def broken(code: int | None) -> None:
    """Fails."""
    if code == 5:
        raise Broken("the line is gone\nPlug it in again.")
    raise click.ClickException("something of click's")


not_a_command = 17
