"""A person at the keys of a command that goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from collections.abc import AsyncIterator

import click


def check_keys(otherwise: str) -> None:
    """Raises UsageError, with what to say ``otherwise``, where there are no keys to press."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(sys.stdin.fileno(), int)
        loop.remove_reader(sys.stdin.fileno())
    except PermissionError:  # a file: it is never not ready, and so cannot be waited for
        raise click.UsageError(f"There is no keyboard to press ENTER on: say {otherwise}.") from None
    if _in_the_background(sys.stdin.fileno()):
        raise click.UsageError(f"The keyboard is not heard in the background: say {otherwise}.")


def _in_the_background(keys: int) -> bool:
    """A shell's job that reads its terminal from there is stopped."""
    try:
        return os.tcgetpgrp(keys) != os.getpgrp()
    except OSError:  # no terminal, or not the one that we were started from
        return False


async def presses() -> AsyncIterator[None]:
    """Each ENTER, until the input ends."""
    loop = asyncio.get_running_loop()
    readable, keys = asyncio.Event(), sys.stdin.fileno()
    loop.add_reader(keys, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            if not select.select([keys], [], [], 0)[0]:  # told twice of one press
                continue
            typed = os.read(keys, 4096)
            if not typed:
                return
            for _ in range(typed.count(b"\n")):
                yield
    finally:
        loop.remove_reader(keys)
