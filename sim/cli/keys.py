"""A person at the keys of a command that goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import click


async def presses(otherwise: str) -> AsyncIterator[None]:
    """Each ENTER, until the input ends. Raises UsageError, with what to say ``otherwise``, with no keys."""
    loop = asyncio.get_running_loop()
    readable, keys = asyncio.Event(), sys.stdin.fileno()
    try:
        loop.add_reader(keys, readable.set)
    except PermissionError:  # a file: it is never not ready, and so cannot be waited for
        raise click.UsageError(f"There is no keyboard to press ENTER on: say {otherwise}.") from None
    try:
        while True:
            await readable.wait()
            typed = os.read(keys, 4096)
            if not typed:
                return
            for _ in range(typed.count(b"\n")):
                yield
            readable.clear()
    finally:
        loop.remove_reader(keys)
