#!/usr/bin/env python3
"""Draws docs/machines.md from the tables of the state machines: `python scripts/diagrams.py` writes it anew."""

from __future__ import annotations

from pathlib import Path

from terminal.activation import ACTIVATION
from terminal.machine import E, Machine, S
from terminal.payment import PAYMENT

PAGE = Path(__file__).parent.parent / "docs" / "machines.md"

HEAD = """# The machines

Drawn by `scripts/diagrams.py` from the tables in `terminal/activation.py` and `terminal/payment.py`; a test fails
when this page is stale. An arrow is an event, a box a state. What a state has no arrow for is an error that names
the machine, the state and the event, and changes nothing. Events that leave a state as it is are listed below its
diagram.
"""

ABOUT = {
    "activation": "Each level is on disk before the next is tried; a power cut resumes at the level reached.",
    "payment": "One table for charges, refunds and cancels. `in_flight` is on disk before the first byte leaves "
    "the device.",
}


def draw(machine: Machine[S, E]) -> str:
    """One machine as a heading, a mermaid diagram, and the events that change nothing."""
    arrows: dict[tuple[str, str], list[str]] = {}
    stays: list[str] = []
    for state, row in machine.table.items():
        for event, after in row.items():
            if after is state:
                stays.append(f"{event.value} in {state.value}")
            else:
                arrows.setdefault((state.value, after.value), []).append(event.value)
    lines = [f"    [*] --> {machine.start.value}"]
    lines += [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in arrows.items()]
    lines += [f"    {state.value} --> [*]" for state in machine.table if machine.final(state)]
    diagram = "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])
    staying = "Without moving: " + "; ".join(stays) + ".\n" if stays else ""
    return f"## {machine.name.capitalize()}\n\n{ABOUT[machine.name]}\n\n{diagram}\n\n{staying}"


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, draw(ACTIVATION), draw(PAYMENT)])


if __name__ == "__main__":
    PAGE.write_text(page())
