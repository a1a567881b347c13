"""pcscd, the PC/SC daemon, and what asks cards through it (Debian: pcscd, libccid, pcsc-tools), as peers.

There is one daemon to a machine: whoever wants it here waits for the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.hw.peers import _end, program

TWIN = Path("/usr/lib/pcsc/drivers/serial/libccidtwin.so")
"""The driver of GemPC and GemCore serial readers, in the package libccid."""
RUN = Path("/run/pcscd")
READY = 60.0
"""Seconds for the daemon to have found its reader, on a machine with much else to do."""
PACKAGES = "apt-get install pcscd libccid pcsc-tools"


def required() -> None:
    """Skip the test, or, where TILL_REQUIRE_PEERS is set, let it fail, unless all is there to run the daemon."""
    for name in ("pcscd", "pcsc_scan", "scriptor"):
        program(name)
    missing = "" if TWIN.exists() else f"{TWIN} is not installed: {PACKAGES}"
    if os.geteuid() != 0:
        missing = "pcscd has to be started by root"
    else:
        RUN.mkdir(exist_ok=True)
    if (RUN / "pcscd.comm").exists() and _is_running():
        missing = "the machine's own pcscd is running: systemctl stop pcscd.socket pcscd"
    if missing and os.environ.get("TILL_REQUIRE_PEERS"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def _is_running() -> bool:
    try:
        number = int((RUN / "pcscd.pid").read_text())
    except (OSError, ValueError):
        return False
    return Path(f"/proc/{number}").exists()


@contextlib.asynccontextmanager
async def pcscd(directory: Path, device: str, library: Path = TWIN, name: str = "Emulated") -> AsyncIterator[str]:
    """The daemon with one reader, once it has found it; the name that it gives to the reader's first slot.

    ``device`` is what the driver opens: ``/dev/pts/7:GemCorePOSPro`` for a GemCore reader.
    """
    lock = (Path(tempfile.gettempdir()) / "tillwright-pcscd.lock").open("w")
    await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
    try:
        required()
        configuration = directory / "readers"
        configuration.mkdir()
        lines = (f'FRIENDLYNAME "{name}"', f"DEVICENAME {device}", f"LIBPATH {library}", "CHANNELID 1", "")
        (configuration / "emulated").write_text("\n".join(lines))
        log = (directory / "pcscd.log").open("w")
        words = (program("pcscd"), "--foreground", "--debug", "--config", str(configuration))
        process = await asyncio.create_subprocess_exec(*words, stdout=log, stderr=log)
        try:
            yield await _reader(process, name, directory / "pcscd.log")
        finally:
            await _end(process)
            log.close()
            for left in ("pcscd.comm", "pcscd.pid"):
                (RUN / left).unlink(missing_ok=True)
    finally:
        lock.close()


async def _reader(process: asyncio.subprocess.Process, name: str, log: Path) -> str:
    async with asyncio.timeout(READY):
        while True:
            assert process.returncode is None, f"pcscd ended: {log}"
            for line in (await spoken(program("pcsc_scan"), "-r")).splitlines():
                if f"{name} 00 00" in line:
                    return f"{name} 00 00"
            await asyncio.sleep(0.1)


async def scriptor(directory: Path, reader: str, protocol: int, *commands: str) -> list[str]:
    """Send commands (in hex) to the card in a reader; its answers, in hex with the status words."""
    script = directory / "script"
    script.write_text("\n".join((*commands, "")))
    said = await spoken(program("scriptor"), "-r", reader, "-p", f"T={protocol}", str(script))
    answers = [
        re.sub(r"\s", "", found).lower() for found in re.findall(r"^< (.*?) : ", said, re.DOTALL | re.MULTILINE)
    ]
    assert len(answers) == len(commands), said
    return answers


async def spoken(*words: str) -> str:
    """Run a program to its end; what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
    finally:
        await _end(process)
    return said.decode(errors="replace")
