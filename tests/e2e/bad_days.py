"""Runs `till` on bad days: for each line on its input a child, which has everything imported already.

A line is a JSON object: ``words`` for `till`, what is ``typed``, and the day's trouble: ``file_limit`` (bytes; what
would make a file longer is not written, as on a full disk), ``user`` (the user and group id in whose name it runs).
The answer is an object of ``code``, ``said`` (the lines of stdout, which are JSON) and ``complained`` (stderr).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

LOADED = (
    "anyio._backends._asyncio",
    "certifi",
    "httpcore",
    "hw.magstripe",
    "iso4217",
    "terminal.cli.activate",
    "terminal.cli.entry",
    "terminal.cli.look",
    "terminal.cli.pay",
    "terminal.cli.prompts",
    "terminal.cli.run",
    "terminal.cli.screen",
    "terminal.cli.session",
    "terminal.hosts.viopay",
)
"""All that a charge imports, also for users who may not read where it is installed."""


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    said: list[dict[str, Any]]
    complained: str

    @property
    def payment(self) -> dict[str, Any]:
        """The payment that it ended with."""
        payment: dict[str, Any] = self.said[-1]["payment"]
        return payment

    @property
    def error(self) -> str:
        """The error that it ended with, by its name; empty where it did not."""
        last = self.said[-1] if self.said else {}
        return str(last["error"]) if last.get("event") == "error" else ""


class Days:
    """The process that this module is, from outside."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.bad_days"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def till(
        self,
        home: Path,
        *words: str,
        typed: str = "",
        file_limit: int | None = None,
        user: int | None = None,
    ) -> Ran:
        """Run a command to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        day: dict[str, Any] = {"words": ["--json", "--home", str(home), *words], "typed": typed}
        day |= {"file_limit": file_limit, "user": user}
        self._process.stdin.write(json.dumps(day) + "\n")
        return Ran(**json.loads(self._process.stdout.readline()))


def live(day: dict[str, Any], out: int, errors: int) -> None:
    """The child: it never returns."""
    from terminal.cli.entry import main

    code = 71
    try:
        into, keys = os.pipe()
        os.write(keys, day["typed"].encode())
        os.close(keys)
        os.dup2(into, 0)
        os.dup2(out, 1)
        os.dup2(errors, 2)
        sys.stdin = os.fdopen(0)
        if day["user"] is not None:
            os.setgroups([])
            os.setgid(day["user"])
            os.setuid(day["user"])
        if day["file_limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (day["file_limit"], resource.RLIM_INFINITY))
        code = main(day["words"])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(day: dict[str, Any]) -> Ran:
    out, errors = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        live(day, out[1], errors[1])
    os.close(out[1])
    os.close(errors[1])
    with os.fdopen(out[0]) as said, os.fdopen(errors[0]) as complained:
        lines, text = [json.loads(line) for line in said], complained.read()
    return Ran(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines, text)


if __name__ == "__main__":
    for module in LOADED:
        import_module(module)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))._asdict()), flush=True)
