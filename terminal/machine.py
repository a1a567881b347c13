"""The few lines that run a state machine which is written as a literal table.

A table maps each state to the events that it knows, and each event to the state that follows. An event that
the state does not know is an error, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from terminal.errors import IllegalEvent

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Machine(Generic[S, E]):
    """A named table. It holds no state: ``step`` is a pure function from a state and an event to a state."""

    name: str
    start: S
    table: Mapping[S, Mapping[E, S]]

    def step(self, state: S, event: E) -> S:
        """The state that follows; raises IllegalEvent, naming machine, state and event."""
        try:
            return self.table[state][event]
        except KeyError:
            raise IllegalEvent(self.name, state, event) from None

    def final(self, state: S) -> bool:
        """Whether nothing can follow."""
        return not self.table[state]
