"""Peers that are not ours: socat and ser2net (Debian packages of these names), started and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGES = {"nfc-list": "libnfc-bin", "pcsc_scan": "pcsc-tools", "scriptor": "pcsc-tools"}
"""Debian packages that are not called as their program is."""


def program(name: str) -> str:
    """The path of a peer. Without it the test is skipped, or, where TILL_REQUIRE_PEERS is set, fails."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        _missing(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}")
    return found


def full_disk() -> str:
    """The path of a file that never has room, as Linux has one; elsewhere as for a program that is missing."""
    if not Path("/dev/full").exists():
        _missing("there is no /dev/full: only Linux has a disk that is always full")
    return "/dev/full"


def _missing(what: str) -> NoReturn:
    if os.environ.get("TILL_REQUIRE_PEERS"):
        pytest.fail(what)
    pytest.skip(what)


@contextlib.asynccontextmanager
async def socat(*arguments: str, says: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """socat, once it has said (a regular expression) what it says when it is ready; its process, and its words."""
    process = await asyncio.create_subprocess_exec(
        program("socat"), "-d", "-d", *arguments, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(20):
            while not said or not re.search(says, said[-1]):
                line = (await process.stderr.readline()).decode()
                assert line, f"socat ended: {''.join(said)}"
                said.append(line)
        yield process, said
    finally:
        await _end(process)


@contextlib.asynccontextmanager
async def pty_pair(directory: Path) -> AsyncIterator[tuple[str, str, asyncio.subprocess.Process]]:
    """Two serial devices with a null modem between them, and the socat that is the cable."""
    here, there = str(directory / "here"), str(directory / "there")
    pair = (f"PTY,rawer,link={here}", f"PTY,rawer,link={there}")
    async with socat(*pair, says="starting data transfer") as (process, _):
        yield here, there, process


@contextlib.asynccontextmanager
async def ser2net(accepter: str, device: str) -> AsyncIterator[int]:
    """ser2net giving out a serial device, and the port that it listens on.

    ``accepter`` is tcp, or telnet(rfc2217),tcp.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    lines = (
        "connection: &line",
        f"  accepter: {accepter},127.0.0.1,{port}",
        f"  connector: serialdev,{device},9600n81,local",
    )
    config = [word for line in lines for word in ("-Y", line)]
    silent = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        program("ser2net"), "-d", "-u", *config, stdout=silent, stderr=silent
    )
    try:  # it does not say when it is ready, and a connection to try it would take the line
        await until(lambda: process.returncode is not None or _is_listening(port))
        assert process.returncode is None, "ser2net ended"
        yield port
    finally:
        await _end(process)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody announces; ten seconds and more is a failure."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came")


def _is_listening(port: int) -> bool:
    listening = "0A"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == listening for row in rows)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
