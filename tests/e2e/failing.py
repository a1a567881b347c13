"""Runs `till` with everything talking, and with failures where no test can otherwise put one.

It adds to a process what a person who hunts a bug would: sqlite's statements in the log, every step of the event
loop, and a second log file that no filter has touched (the first, and stderr, are the product's). Then, by its
environment:

CANARY_POINTS     functions, ``module:Class.name``, that raise when called and CANARY_NOW (a file) names them; the
                  error quotes what they were called with and CANARY_SAID, as a careless library's would
CANARY_LOCALS     a file for the frames of every error that `till` reports, each with its locals, as JSON lines
CANARY_RAW        the file of the log without a filter; unset: nothing takes a record but Python's last resort
CANARY_LIVES      a descriptor: many runs, one child each, by the lines on stdin
"""

from __future__ import annotations

import functools
import json
import logging
import os
import resource
import sqlite3
import sys
import traceback
from asyncio.base_events import BaseEventLoop
from importlib import import_module
from pathlib import Path
from typing import Any


class Forced(RuntimeError):
    """Holds what it was given, and shows it, but for where it would hide what else is shown."""

    quotes = True

    def __str__(self) -> str:
        return super().__str__() if self.quotes else "forced"

    def __repr__(self) -> str:
        return f"Forced({self})"


class OwnWords(logging.Formatter):
    """The message of a record as it was written, without the traceback, in which `Forced` would speak."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.name} {record.getMessage()}"


def raising(point: str, function: Any) -> Any:
    """The function, which raises while the file names it; a coroutine function's call raises as well."""
    now, said = Path(os.environ["CANARY_NOW"]), os.environ["CANARY_SAID"]

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if now.exists() and now.read_text() == point:
            with now.with_suffix(".raised").open("a") as file:
                file.write(f"in raising {point}\n")
            error = Forced(f"{point} {args!r} {kwargs!r} {said}", args)
            error.add_note(f"it was given {args!r}, {said}")
            raise error from Forced(said)
        return function(*args, **kwargs)

    return wrapped


def force(point: str) -> None:
    module, _, name = point.partition(":")
    owner: Any = import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    kept = owner.__dict__[last]
    if isinstance(kept, (staticmethod, classmethod)):
        setattr(owner, last, type(kept)(raising(point, kept.__func__)))
        return
    forced = raising(point, kept)
    setattr(owner, last, forced)
    for importer in [*sys.modules.values()]:  # what was imported from there by name
        for known, value in [*vars(importer).items()]:
            if value is kept:
                setattr(importer, known, forced)


def show_locals(path: Path) -> None:
    """Have every error that is reported written to the file too, with the locals of its frames."""
    from terminal.cli import failures

    report = failures.report

    def reported(error: BaseException, common: Any) -> int:
        Forced.quotes = False
        with path.open("a") as file:
            seen: set[int] = set()
            todo: list[BaseException | None] = [error]
            while todo:
                each = todo.pop()
                if each is None or id(each) in seen:
                    continue
                seen.add(id(each))
                todo += [each.__cause__, each.__context__]
                frames = traceback.walk_tb(each.__traceback__)
                for frame in traceback.StackSummary.extract(frames, capture_locals=True, lookup_lines=False):
                    file.write(json.dumps([frame.filename, frame.name, frame.locals]) + "\n")
        Forced.quotes = True
        return report(error, common)

    failures.report = reported


def talk() -> None:
    """Everything that can be made to talk, and a core file for whoever crashes."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    log = logging.getLogger("sqlite3")
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **kwargs)
        db.set_trace_callback(log.debug)
        return db

    sqlite3.connect = traced
    begin = BaseEventLoop.__init__

    def init(loop: Any) -> None:
        begin(loop)
        loop.slow_callback_duration = 0.0  # every step is told as a slow one

    BaseEventLoop.__init__ = init  # type: ignore[method-assign]
    if path := os.environ.get("CANARY_RAW"):
        raw = logging.FileHandler(path)
        raw.setFormatter(OwnWords())
        raw.addFilter(lambda record: record.name.partition(".")[0] in ("terminal", "hw", "sim", "sqlite3"))
        logging.getLogger().addHandler(raw)


def lives(acknowledge: int) -> None:
    """For each line of stdin, ``[words, what is typed]``, a child in which `till` runs; its exit code goes back."""
    from terminal.cli.entry import main

    for module in LOADED:
        import_module(module)
    for line in sys.stdin:
        words, typed = json.loads(line)
        if (child := os.fork()) == 0:
            read, write = os.pipe()
            os.write(write, typed.encode())
            os.close(write)
            os.dup2(read, 0)
            sys.stdin = os.fdopen(0)
            code = main(words)
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(acknowledge, f"{code}\n".encode())


LOADED = (
    "anyio._backends._asyncio",
    "hw.magstripe",
    "terminal.cli.activate",
    "terminal.cli.pay",
    "terminal.cli.prompts",
    "terminal.cli.run",
    "terminal.cli.screen",
    "terminal.cli.session",
    "terminal.hosts.viopay",
)
"""What `till charge` imports, for children that begin with all of it."""

if __name__ == "__main__":
    talk()
    for point in filter(None, os.environ.get("CANARY_POINTS", "").split(",")):
        force(point)
    if shown := os.environ.get("CANARY_LOCALS"):
        show_locals(Path(shown))
    if acknowledge := os.environ.get("CANARY_LIVES"):
        lives(int(acknowledge))
    else:
        from terminal.cli.entry import main

        sys.exit(main())
