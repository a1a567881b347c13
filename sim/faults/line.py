"""The rules for a serial line: what becomes of what a reader sends."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sim.faults.grammar import At, Rule, Seconds


class LineRule(Rule, frozen=True):
    """A rule for what is written to a line at once: a message of the reader."""


class Drop(LineRule, frozen=True, tag="drop"):
    """It does not arrive."""


class Split(LineRule, frozen=True, tag="split"):
    """It arrives in pieces of ``size`` bytes, ``seconds`` apart."""

    size: Annotated[int, Meta(ge=1, le=65_536)] = 1
    seconds: Seconds = 0.0


class Double(LineRule, frozen=True, tag="double"):
    """It arrives twice."""


class CorruptLine(LineRule, frozen=True, tag="corrupt"):
    """One byte of it is another: the one ``at``, or one from the seed."""

    at: At | None = None


class Stall(LineRule, frozen=True, tag="stall"):
    """Half of it arrives, and the rest ``seconds`` later."""

    seconds: Seconds


class Unplug(LineRule, frozen=True, tag="unplug"):
    """Half of it arrives, and the plug is pulled."""


AnyLineRule = Drop | Split | Double | CorruptLine | Stall | Unplug
