"""A charge loop against a real host, over TCP, with files; either side killed by SIGKILL again and again.

    python -m tests.e2e.killing_loop --kills 500 --seed 7 --json

The till (``killing_till``) and `till host` are processes of their own, forked from this one, which has everything
imported already and so starts each within milliseconds. A victim is killed a moment after a line that was told,
or at any time at all; what it was to be, and after what, follows from the seed, the rest from the machine. The
killed one is started again at once, on the same files and the same port. At the end all that is open is brought to
its end, and journal and ledger are judged (``killing_judge``). Exit code 0 only where nothing is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from sim.host.server import LEDGER_FILE
from terminal.cli.entry import main as till
from terminal.errors import JournalError
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.payment import OPEN, Kind, Payment, State
from tests.e2e import killing_till
from tests.e2e.hosted import call, pair_beforehand, provisioned
from tests.e2e.killing_judge import violations
from tests.e2e.killing_life import Life

LOADED = (
    "anyio._backends._asyncio",
    "sim.cli.host",
    "sim.host.server",
    "terminal.cli.run",
    "terminal.hosts.viopay",
    "uvloop",
)
PATIENCE = 60.0
"""Seconds in which something must be told: else somebody is stuck."""
LAST_PATIENCE = 180.0
"""The same at the end, when it must be waited for that what was sent can no longer arrive."""
ANY_TIME = 0.1
"""Seconds within which a victim is killed that is killed at any time."""
BOTH_WITHIN = 0.003
"""Seconds between two deaths where both sides die."""

VICTIMS = (("till", 45), ("host", 45), ("both", 10))


@dataclass(frozen=True, slots=True)
class Moment:
    """Killed within ``after`` seconds of a line of the till that ``fits``; of any time where that is None."""

    often: int
    after: float
    fits: Callable[[dict[str, Any]], bool] | None


MOMENTS = (
    Moment(20, ANY_TIME, None),
    Moment(15, 0.002, lambda line: line["event"] == "asked"),
    Moment(40, 0.006, lambda line: line["event"] == "payment_changed" and line["state"] == "in_flight"),
    Moment(15, 0.002, lambda line: line["event"] == "payment_changed" and line["state"] != "in_flight"),
    Moment(10, 0.002, lambda line: line["event"] == "seen"),
)
MOST_LINES = 6
"""A moment is one of the first so many that fit."""


class Open(NamedTuple):
    """A payment without an outcome."""

    kind: Kind
    state: State
    payment_id: str
    charge_id: str


class Wrong(Exception):
    """What ends the run before its time: somebody is stuck, or died of something else."""


@dataclass
class Tally:
    kills: Counter[str] = field(default_factory=Counter)
    open_at_kill: dict[str, Counter[str]] = field(default_factory=lambda: {"till": Counter(), "host": Counter()})
    states_at_start: Counter[str] = field(default_factory=Counter)


class Loop:
    """Both sides, and who watches them."""

    def __init__(self, folder: Path, seed: int, *, leaving: bool) -> None:
        self.folder, self.seed, self.leaving = folder, seed, leaving
        self.chance = Random(f"{seed} kills")
        self.tally = Tally()
        self.owed: dict[int, None] = {}
        self.next_number = 1
        self.seen: list[dict[str, Any]] = []
        self.told_again = 0
        self.left: set[str] = set()
        self.latest: Open | None = None
        self.lives: dict[str, Life] = {}
        # Bound and never listening, it keeps the port from everybody but a host, alive or not.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.port: int = self._port.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    # -- lives ----------------------------------------------------------------------------------------------

    def start(self, name: str, *, last: bool = False) -> None:
        """Start the host or the till; the ``last`` till only brings to its end what is open."""
        if name == "host":
            where = ["--listen", f"127.0.0.1:{self.port}", "--data", str(self.folder / "host")]
            work = partial(till, ["host", *where])
        else:
            attempts = 4 if last else (2 if self.chance.random() < 0.1 else 1)
            pending_wait = 15.0 if last else (0.4 if self.chance.random() < 0.05 else 0.0)
            keeps = last or self.chance.random() < 0.5
            life = killing_till.Life(
                tuple(self.owed), self.next_number, attempts, pending_wait, keeps, self.leaving, last
            )
            work = partial(_take_orders, self.home, self.seed, life)
        self.lives[name] = Life(name, work, self.folder / f"{name}.errors")

    def kill(self, victim: str) -> None:
        names = ["till", "host"] if victim == "both" else [victim]
        self.chance.shuffle(names)
        for name in names:
            life = self.lives.pop(name)
            os.kill(life.pid, signal.SIGKILL)
            if (code := life.reap()) != -signal.SIGKILL:
                raise Wrong(f"the {name} had ended with {code}: {life.last_words()}")
            for line in life.lines:
                self._heed(name, line)
            self.tally.kills[name] += 1
            self.tally.open_at_kill[name][self._under_way(name)] += 1
            if name != names[-1]:
                self.watch(self.chance.uniform(0, BOTH_WITHIN), None)
        for name in names:
            self.start(name)

    def stop(self) -> None:
        """Whatever happened, nothing that was started here goes on."""
        for life in self.lives.values():
            os.kill(life.pid, signal.SIGKILL)
            os.waitpid(life.pid, 0)
        self._port.close()

    # -- watching -------------------------------------------------------------------------------------------

    def watch(self, seconds: float, fits: Callable[[dict[str, Any]], bool] | None) -> bool:
        """Heed what is told until a line of the till fits, or the time is over (False)."""
        until = time.monotonic() + seconds
        by_fd = {life.out: life for life in self.lives.values()}
        while True:
            for life in by_fd.values():
                while life.lines:
                    line = self._heed(life.name, life.lines.popleft())
                    if line is not None and fits is not None and fits(line):
                        return True
            if (left := until - time.monotonic()) <= 0:
                return False
            for fd in select.select(by_fd, [], [], left)[0]:
                if not (life := by_fd[fd]).read():
                    del self.lives[life.name]
                    raise Wrong(f"the {life.name} ended with {life.reap()}: {life.last_words()}")

    def _heed(self, name: str, text: str) -> dict[str, Any] | None:
        if name == "host":
            return {"event": "listening"} if text.startswith("listening on ") else None
        line: dict[str, Any] = json.loads(text)
        match line["event"]:
            case "asked":
                self.owed[line["order"]] = None
                self.next_number = max(self.next_number, line["order"] + 1)
            case "seen":
                self.seen.append(line["payment"])
                self.latest = _open(line["payment"], line["payment"]["id"])
            case "told":
                self.told_again += 1
                self.seen.append(line["payment"])
            case "done":
                self.owed.pop(line["order"], None)
            case "opened":
                self.tally.states_at_start.update(line["open"])
            case "payment_changed":
                self.latest = _open(line, line["payment_id"])
                if line["state"] == State.ABANDONED:
                    self.left.add(line["payment_id"])
        return line

    def _under_way(self, name: str) -> str:
        """Which payment was open when somebody died, in words, and whether the ledger has it.

        At the till's death the journal says what was open, at the host's what the till told last: the journal
        is a step further by now.
        """
        if name == "till":
            with closing(Journal.read(self.home / JOURNAL_FILE)) as journal:
                newest = [Open(p.kind, p.state, p.id, p.charge_id) for p in journal.unresolved()][-1:]
        else:
            newest = [self.latest] if self.latest else []
        if not newest:
            return "nothing open"
        kind, state, payment_id, charge_id = newest[0]
        with closing(sqlite3.connect(f"{(self.folder / 'host' / LEDGER_FILE).as_uri()}?mode=ro", uri=True)) as db:
            if kind is Kind.CANCEL:
                found = db.execute("SELECT 1 FROM charges WHERE id = ? AND canceled_at IS NOT NULL", (charge_id,))
            else:
                found = db.execute("SELECT 1 FROM idempotency WHERE key = ?", (payment_id,))
            return f"{kind} {state}, {'the host has it' if found.fetchone() else 'the host has it not'}"

    # -- a run ----------------------------------------------------------------------------------------------

    def run(self, kills: int, progress: Callable[[int], None]) -> dict[str, Any]:
        began = time.monotonic()
        found: list[str] = []
        payments: list[Payment] = []
        try:
            self.start("host")
            self._reach(lambda line: line["event"] == "listening", "the host is not ready")
            document = provisioned(self.url, self.home)
            pair_beforehand(self.url, document)
            self.start("till")
            self._reach(lambda line: line["event"] == "opened", "the till does not open")
            for number in range(kills):
                self._kill_one()
                progress(number + 1)
            self._end_till()
            self.start("till", last=True)
            self._end_till(LAST_PATIENCE)
            with closing(Journal.read(self.home / JOURNAL_FILE)) as journal:
                journal.verify()
                payments = journal.payments()
            found += self._judge(payments, document["terminal_id"])
        except (Wrong, JournalError) as wrong:
            found.append(str(wrong))
        finally:
            self.stop()
        return self._report(payments, found, time.monotonic() - began)

    def _end_till(self, patience: float = PATIENCE) -> None:
        self.lives["till"].end()
        if not self.watch(patience, lambda line: line["event"] == "ended"):
            raise Wrong("what is open comes to no end")
        life = self.lives.pop("till")
        if code := life.reap():
            raise Wrong(f"the till ended with {code}: {life.last_words()}")

    def _kill_one(self) -> None:
        victim = self.chance.choices([name for name, _ in VICTIMS], [often for _, often in VICTIMS])[0]
        moment = self.chance.choices(MOMENTS, [moment.often for moment in MOMENTS])[0]
        if moment.fits is not None:
            for _ in range(self.chance.randint(1, MOST_LINES)):
                self._reach(moment.fits, "the till tells nothing more")
        self.watch(moment.after * self.chance.random() ** 2, None)  # many soon after, some late
        self.kill(victim)

    def _reach(self, fits: Callable[[dict[str, Any]], bool], otherwise: str) -> None:
        if not self.watch(PATIENCE, fits):
            raise Wrong(otherwise)

    def _judge(self, payments: list[Payment], terminal_id: str) -> list[str]:
        asked = [
            killing_till.order(self.seed, number, leaving=self.leaving) for number in range(1, self.next_number)
        ]
        orders = {order.reference: order for order in asked}
        found = [f"order {number} was never done" for number in self.owed]
        ledger = call(f"{self.url}/sim/ledger")
        return found + violations(orders, self.seen, payments, ledger, terminal_id)

    def _report(self, payments: list[Payment], found: list[str], seconds: float) -> dict[str, Any]:
        return {
            "event": "result",
            "seed": self.seed,
            "kills": dict(self.tally.kills),
            "open_at_kill": {name: dict(counts.most_common()) for name, counts in self.tally.open_at_kill.items()},
            "open_at_start": dict(self.tally.states_at_start),
            "orders": self.next_number - 1,
            "payments": dict(Counter(f"{p.kind} {p.state}" for p in payments)),
            "seen": len(self.seen),
            "told_again": self.told_again,
            "left": len(self.left),
            "violations": found,
            "seconds": round(seconds, 1),
        }


def _open(told: Mapping[str, Any], payment_id: str) -> Open | None:
    """What was told of a payment, where it is open."""
    if told["state"] not in OPEN:
        return None
    return Open(Kind(told["kind"]), State(told["state"]), payment_id, told["charge_id"])


def _take_orders(home: Path, seed: int, life: killing_till.Life) -> int:
    def tell(line: dict[str, Any]) -> None:
        os.write(1, json.dumps(line).encode() + b"\n")

    def ends() -> bool:
        return bool(select.select([0], [], [], 0)[0])

    asyncio.run(killing_till.live(home, seed, life, tell, ends))
    return 0


def main() -> int:
    words = argparse.ArgumentParser(description="A charge loop and its host, either side killed again and again.")
    words.add_argument("--kills", type=int, default=500)
    words.add_argument("--seed", type=int, default=7)
    words.add_argument("--nobody-leaves", action="store_true", help="Spares the minutes of waiting for proof.")
    words.add_argument("--json", action="store_true", help="The result as one JSON object.")
    words.add_argument("--keep", type=Path, help="Leave all files in this new folder.")
    said = words.parse_args()
    for module in LOADED:
        import_module(module)

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {said.kills} kills")
            sys.stderr.flush()

    with tempfile.TemporaryDirectory(prefix="killing-") as folder:
        result = Loop(said.keep or Path(folder), said.seed, leaving=not said.nobody_leaves).run(
            said.kills, progress
        )
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    if said.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
