"""Keeps a terminal in order between payments: does what ``keeper`` says is due, and tells it how that ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from terminal.activation import Level
from terminal.climb import CONFIG, Climb
from terminal.clock import HostClock, Random
from terminal.config import INTERVAL, Intervals, parse_config
from terminal.errors import (
    EnvelopeError,
    HostAnswerInvalid,
    HostRefused,
    HostSilent,
    HostUnreachable,
    KeyBlockError,
    KeyPolicyError,
    TillError,
)
from terminal.events import ChoreFailed, Event, HostBack, HostLost, UpdateWanted
from terminal.keeper import NEVER, Chore, Duty, Keeper, Seen
from terminal.turn import Interrupted, Turn

if TYPE_CHECKING:
    from terminal.hosts.viopay import ViopayClient

LOST_AFTER: Final = 2
"""Heartbeats in a row without an answer after which the host counts as lost: one may go astray."""

WANTED: Final = {
    "rotate_keys": Chore.RENEW_KEYS,
    "refresh_config": Chore.REFRESH_CONFIG,
    "refresh_parameters": Chore.REFRESH_PARAMETERS,
}
"""What a heartbeat's answer may ask for."""

REMEDIES: Final = {(401, "4011"): Chore.RENEW_KEYS, (401, "4010"): Chore.FOLLOW_CLOCK}
"""What a refusal (HTTP status, code) of a heartbeat calls for."""

_TOLD_ALREADY = (HostAnswerInvalid, EnvelopeError, KeyBlockError, KeyPolicyError)
"""What is wrong with something new is an event of its own."""


class Rounds(Protocol):
    """Goes on with payments that are open, between others: ``terminal.resolver``."""

    async def round(self) -> None:
        """Do what is due, and give way to a payment that comes."""

    def next_due(self) -> float | None:
        """Seconds until there is something to do; None: nothing is open."""

    def wake(self) -> None:
        """The host is back: all is due."""


class Keeping:
    """``run`` it beside the payments. ``kept`` gives a record of the vault, ``pending`` how many payments are open,
    ``tidy`` puts the journal in order, ``compact`` takes out of it what is old (None: nothing is), and ``rounds``
    goes on with open payments.
    """

    def __init__(
        self,
        *,
        client: ViopayClient,
        climb: Climb,
        clock: HostClock,
        turn: Turn,
        random: Random,
        emit: Callable[[Event], None],
        version: str,
        kept: Callable[[str], bytes | None],
        pending: Callable[[], int],
        tidy: Callable[[], None],
        compact: Callable[[], object] | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        self._client, self._climb, self._clock, self._turn = client, climb, clock, turn
        self._random, self._emit, self._version = random, emit, version
        self._kept, self._pending, self._tidy_journal = kept, pending, tidy
        self._compact_journal, self._rounds = compact, rounds
        self._config: bytes | None = None
        self._intervals = Intervals()
        self._lost_at: float | None = None
        self._update_wanted = False
        self._work: dict[Chore, Callable[[], Awaitable[object]]] = {
            Chore.COME_BACK: partial(turn.between, climb.come_back),
            Chore.FOLLOW_CLOCK: partial(turn.between, self._follow_clock),
            Chore.RENEW_KEYS: partial(turn.between, climb.renew_keys),
            Chore.HEARTBEAT: self._heartbeat,
            Chore.RESOLVE: self._resolve,
            Chore.REFRESH_CONFIG: partial(turn.between, climb.refresh_config),
            Chore.REFRESH_PARAMETERS: partial(turn.between, climb.refresh_parameters),
            Chore.TIDY: partial(turn.between, self._tidy),
            Chore.COMPACT: partial(turn.between, self._compact),
        }

    async def run(self) -> None:
        """Until it is cancelled. What goes wrong is told by an event and tried again."""
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._keeper = Keeper(self._began, self._random)
        while True:
            seen = self._seen()
            duty = self._keeper.due(self._loop.time(), seen)
            if duty is None:
                await asyncio.sleep(self._keeper.wait(self._loop.time(), seen))
            else:
                await self._do(duty)

    def _seen(self) -> Seen:
        intervals, renew_at = self._read_intervals(), self._climb.renew_at
        resolve_in = self._rounds.next_due() if self._rounds else None
        return Seen(
            activated=self._climb.level is Level.ACTIVATED,
            fallen=self._climb.lost,
            busy=self._turn.busy(),
            host_lost=self._lost_at is not None,
            keys_in=(renew_at - self._clock.now()).total_seconds() if renew_at else NEVER,
            resolve_in=NEVER if resolve_in is None else resolve_in,
            retains=self._compact_journal is None,
            heartbeat=intervals.heartbeat_sec,
            update_check=intervals.update_check_sec,
        )

    def _read_intervals(self) -> Intervals:
        """The configuration's, within bounds: an earlier version may have kept one that had none."""
        kept = self._kept(CONFIG)
        if kept is not None and kept is not self._config:
            told = parse_config(kept).intervals
            bounded = (
                max(INTERVAL.start, min(n, INTERVAL.stop - 1)) for n in (told.heartbeat_sec, told.update_check_sec)
            )
            self._config, self._intervals = kept, Intervals(*bounded)
        return self._intervals

    async def _do(self, duty: Duty) -> None:
        keeper = self._keeper
        try:
            await self._work[duty.chore]()
        except Interrupted:
            keeper.interrupted(duty, self._loop.time())
        except HostRefused as refusal:
            keeper.failed(duty, self._loop.time(), refusal.retry_after or 0.0)
            self._answered(duty)
            self._refused(duty, refusal)
        except (HostUnreachable, HostSilent) as problem:
            keeper.failed(duty, self._loop.time())
            self._unanswered(duty, problem)
        except TillError as problem:
            keeper.failed(duty, self._loop.time())
            if not isinstance(problem, _TOLD_ALREADY) or duty.chore is Chore.HEARTBEAT:
                self._tell_failure(duty, problem)
            if isinstance(problem, EnvelopeError) and keeper.failures(duty.chore) == 1:
                keeper.ask(Chore.RENEW_KEYS)  # the host may seal under a set that never arrived
        else:
            keeper.done(duty, self._loop.time())
            self._answered(duty)

    # -- the chores -----------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Out of turn: it asks nothing of the keys but a signature. The clock waits until nobody pays."""
        began = self._loop.time()
        answer = await self._client.heartbeat(
            uptime_sec=int(began - self._began), pending=self._pending(), version=self._version
        )
        if not self._turn.taken():
            self._climb.heartbeat_told(answer.server_time, self._loop.time() - began)
        for action in answer.actions & WANTED.keys():
            self._keeper.ask(WANTED[action])
        update_wanted = "update" in answer.actions
        if update_wanted and not self._update_wanted:
            self._emit(UpdateWanted(at=self._clock.now(), version=self._version))
        self._update_wanted = update_wanted

    async def _follow_clock(self) -> None:
        """A date or a key id was refused: where the date was right, it was the key id."""
        if not await self._climb.follow_clock():
            self._keeper.ask(Chore.RENEW_KEYS)

    async def _resolve(self) -> None:
        if self._rounds:
            await self._rounds.round()

    async def _tidy(self) -> None:
        self._climb.tidy()
        self._tidy_journal()

    async def _compact(self) -> None:
        if self._compact_journal is not None:
            self._compact_journal()

    # -- how they ended -------------------------------------------------------------------------------------

    def _refused(self, duty: Duty, refusal: HostRefused) -> None:
        if (
            not self._turn.taken()
        ):  # else the payment learns it by itself, and needs its keys to hear its own answer
            self._climb.heed(refusal)
        remedy = REMEDIES.get((refusal.status, refusal.code))
        if duty.chore is Chore.HEARTBEAT and remedy is not None:
            self._keeper.ask(remedy)
        else:
            self._tell_failure(duty, refusal)

    def _answered(self, duty: Duty) -> None:
        if duty.chore is Chore.HEARTBEAT and self._lost_at is not None:
            lost_for = self._loop.time() - self._lost_at
            self._lost_at = None
            self._emit(HostBack(at=self._clock.now(), seconds=round(lost_for, 3)))
            if self._rounds:
                self._rounds.wake()

    def _unanswered(self, duty: Duty, problem: TillError) -> None:
        if duty.chore is not Chore.HEARTBEAT:
            self._keeper.ask(Chore.HEARTBEAT)
        elif self._lost_at is None and self._keeper.failures(duty.chore) >= LOST_AFTER:
            self._lost_at = self._loop.time()
            self._emit(HostLost(at=self._clock.now(), reason=str(problem)))

    def _tell_failure(self, duty: Duty, problem: TillError) -> None:
        if self._keeper.failures(duty.chore) == 1:
            self._emit(ChoreFailed(at=self._clock.now(), chore=duty.chore.value, reason=str(problem)))
