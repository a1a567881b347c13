"""Runs `till activate` in processes of their own, and sends each SIGKILL at the moment that it was told.

For each line `N HOME` on its input it forks a child, which has everything imported already and so is alive within
milliseconds. The child's events go to the output as they are; an `ended` with the child's exit code follows.

Moments are counted through the whole run: before and after each request to the host (after: the host has acted,
and nothing of its answer has been read), and before and after each step by which a file becomes durable
(write, fsync, replace). With N larger than there are moments the run ends by itself and tells how many there were.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import httpx

from terminal.cli.entry import main

for module in (
    "anyio._backends._asyncio",
    "httpcore",
    "sniffio",
    "terminal.cli.activate",
    "terminal.cli.prompts",
    "terminal.cli.run",
    "terminal.cli.screen",
    "terminal.cli.session",
    "terminal.hosts.viopay",
):
    import_module(module)

moments = 0
chosen = 0


def moment() -> None:
    global moments
    moments += 1
    if moments == chosen:
        os.kill(os.getpid(), signal.SIGKILL)


def around(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        moment()
        result = function(*args, **kwargs)
        moment()
        return result

    return wrapped


class KilledTransport(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        moment()
        response = await super().handle_async_request(request)
        moment()
        return response


def live(home: str) -> None:
    """The child: it never returns."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.write, os.replace, os.fsync = around(os.write), around(os.replace), around(os.fsync)
    httpx.AsyncHTTPTransport = KilledTransport  # type: ignore[misc]
    code = main(["--json", "--home", home, "activate"])
    print(json.dumps({"event": "moments", "count": moments}), flush=True)
    os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        number, home = line.split(maxsplit=1)
        chosen = int(number)
        if (child := os.fork()) == 0:
            live(home.strip())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"event": "ended", "code": code}), flush=True)
