"""``till activate``."""

from __future__ import annotations

import click

from terminal.cli.common import Common


@click.command()
@click.pass_obj
def activate(common: Common) -> None:
    """Climb from wherever the terminal stands to activated.

    What was reached stays: stopped at any level, by Ctrl-C or by a power cut, it goes on from there. A pairing
    code that has not expired is shown again.
    """
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal
    from terminal.terminal import Terminal

    async def work(till: Terminal) -> str:
        await till.activate()
        return till.level.value

    common.after_a_stop = "`till activate` goes on from the level that was reached."
    settings = load(common.home)
    level = with_terminal(common, settings, secret_of(settings), work)
    facts = {"event": "result", "level": level, "exit_code": 0}
    common.screen.result(facts, [f"The terminal is {level}. Next: till charge 12.50"])
