"""What keeps a terminal in order between payments, and when: a literal table and the schedule that reads it.

Pure: told the time and what there is to see, it says what is due. ``keeping`` does it. Times are seconds of a clock
that only grows, so that a process which stood still for an hour finds each chore due once, not sixty times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from terminal.clock import Random

NEVER: Final = math.inf
IDLE_MOST: Final = 60.0
"""Seconds after which the terminal is looked at again in any case: keys end by the host's clock, which may move."""
BUSY: Final = 1.0
"""The same while a payment keeps a chore waiting."""
BACKOFF_MOST: Final = 300.0
"""Seconds: the ceiling under which the wait after a failure is drawn; it doubles from 2 (full jitter)."""
JITTER: Final = 0.1
"""Share by which an interval is longer or shorter, drawn anew each time: a fleet that woke together parts."""


class Chore(StrEnum):
    """What is to be done."""

    COME_BACK = "come_back"
    FOLLOW_CLOCK = "follow_clock"
    RENEW_KEYS = "renew_keys"
    HEARTBEAT = "heartbeat"
    REFRESH_CONFIG = "refresh_config"
    REFRESH_PARAMETERS = "refresh_parameters"
    RESOLVE = "resolve"
    TIDY = "tidy"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to see of the terminal when the schedule is asked."""

    activated: bool = True
    fallen: bool = False
    """It was further up once, and may climb again."""
    busy: bool = False
    """A payment has the turn, or waits for it."""
    host_lost: bool = False
    keys_in: float = NEVER
    """Seconds until the key set is to be renewed; zero and below: now."""
    resolve_in: float = NEVER
    """Seconds until there is something to do for an open payment."""
    retains: bool = True
    """The journal keeps all that it ever held."""
    heartbeat: float = 60.0
    update_check: float = 3600.0
    """Seconds, of the configuration's intervals."""


@dataclass(frozen=True, slots=True)
class Duty:
    """A row of the table."""

    chore: Chore
    where: Callable[[Seen], bool]
    """Where it makes sense."""
    every: Callable[[Seen], float]
    """Seconds from one to the next; NEVER: only when it is asked for."""
    first: float
    """Seconds after the start within which the first one comes."""
    rest: float
    """Seconds between two of them at the very least, whoever asks for it."""
    between: bool
    """It touches keys, levels, configuration or payments, and waits until nobody pays."""
    due_in: Callable[[Seen], float] = lambda seen: NEVER
    """Seconds until it has to be done, whenever it was done last."""


def _always(seen: Seen) -> bool:
    return True


def _fallen(seen: Seen) -> bool:
    return seen.fallen


def _forgetful(seen: Seen) -> bool:
    return not seen.retains


def _activated(seen: Seen) -> bool:
    return seen.activated


def _online(seen: Seen) -> bool:
    return seen.activated and not seen.host_lost


# fmt: off
DUTIES: Final = (
    #    what                      where it makes sense  every (s)                     first  rest  between
    Duty(Chore.COME_BACK,          _fallen,              lambda seen: 60,                 5,   30,  True),
    Duty(Chore.FOLLOW_CLOCK,       _online,              lambda seen: NEVER,              0,   30,  True),
    Duty(Chore.RENEW_KEYS,         _online,              lambda seen: NEVER,              0,   30,  True,
         due_in=lambda seen: seen.keys_in),
    Duty(Chore.HEARTBEAT,          _activated,           lambda seen: seen.heartbeat,     5,    1,  False),
    Duty(Chore.RESOLVE,            _activated,           lambda seen: NEVER,              0,    1,  True,
         due_in=lambda seen: seen.resolve_in),
    Duty(Chore.REFRESH_CONFIG,     _online,              lambda seen: seen.update_check, 60,   30,  True),
    Duty(Chore.REFRESH_PARAMETERS, _online,              lambda seen: seen.update_check, 60,   30,  True),
    Duty(Chore.TIDY,               _always,              lambda seen: 60,                60,   30,  True),
    Duty(Chore.COMPACT,            _forgetful,           lambda seen: 86_400,           900,   30,  True),
)
"""Of those that are due, the upper one comes first."""
# fmt: on


@dataclass(slots=True)
class _Course:
    """How it goes with one chore."""

    last: float | None = None
    share: float = 0.5
    asked: bool = False
    not_before: float = 0.0
    failures: int = 0
    vain: int = 0
    """Failures, and times that a payment came first."""


@dataclass(slots=True)
class Keeper:
    """The schedule. ``began`` is the steady clock's time; ``random`` gives the jitter."""

    began: float
    random: Random
    _courses: dict[Chore, _Course] = field(init=False)

    def __post_init__(self) -> None:
        self._courses = {
            duty.chore: _Course(share=(share := self._share()), not_before=self.began + share * duty.first)
            for duty in DUTIES
        }

    def due(self, now: float, seen: Seen) -> Duty | None:
        """What is to be done now; None: nothing for the next ``wait`` seconds."""
        for duty in DUTIES:
            if self._at(duty, now, seen) <= now and not (duty.between and seen.busy):
                return duty
        return None

    def wait(self, now: float, seen: Seen) -> float:
        """Seconds to sleep when nothing is due."""
        ats = [(self._at(duty, now, seen), duty) for duty in DUTIES]
        soonest = min(BUSY if duty.between and seen.busy and at <= now else at - now for at, duty in ats)
        return min(IDLE_MOST, max(0.0, soonest))

    def ask(self, chore: Chore) -> None:
        """The host wants it now, or another chore has found that it is needed. What failed waits all the same."""
        self._courses[chore].asked = True

    def done(self, duty: Duty, now: float) -> None:
        """It was done."""
        self._courses[duty.chore] = _Course(last=now, share=self._share(), not_before=now + duty.rest)

    def failed(self, duty: Duty, now: float, at_least: float = 0.0) -> None:
        """It was tried in vain; ``at_least`` is the wait that the host asked for, an hour at most."""
        self._courses[duty.chore].failures += 1
        self._put_off(duty, now, at_least)

    def interrupted(self, duty: Duty, now: float) -> None:
        """A payment came first. What was asked of the host may have cost it something: no hurry to ask again."""
        self._put_off(duty, now)

    def failures(self, chore: Chore) -> int:
        """How often in a row it was tried in vain."""
        return self._courses[chore].failures

    def _at(self, duty: Duty, now: float, seen: Seen) -> float:
        """When it is due next."""
        if not duty.where(seen):
            return NEVER
        course, every = self._courses[duty.chore], duty.every(seen)
        if course.asked:
            return course.not_before
        at = now + duty.due_in(seen)
        if every != NEVER:
            at = min(at, self.began if course.last is None else course.last + every * self._longer(course))
        return max(course.not_before, at)

    @staticmethod
    def _longer(course: _Course) -> float:
        return 1 + JITTER * (2 * course.share - 1)

    def _put_off(self, duty: Duty, now: float, at_least: float = 0.0) -> None:
        course = self._courses[duty.chore]
        course.vain += 1
        ceiling = min(BACKOFF_MOST, 2.0 ** min(course.vain, 10))
        course.not_before = now + max(1.0, self._share() * ceiling, min(at_least, 3600.0))
        course.asked = True

    def _share(self) -> float:
        return int.from_bytes(self.random(4), "big") / 2**32
