"""``till swipe``, as a process of its own, with the driver at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
import tty
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner

from hw.errors import LineError
from hw.reader import Reader, open_reader
from sim.cli.swipe import swipe
from sim.reader.magstripe import FORMATS, swipe_bytes
from sim.reader.stripes import CARDS
from tests.hil.emulated import kept

COMMAND = (sys.executable, "-c", "from sim.cli.swipe import swipe; swipe()")
PIPE = asyncio.subprocess.PIPE


@contextlib.asynccontextmanager
async def swiping(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, running; ended by SIGTERM, and well."""
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdin=PIPE, stdout=PIPE)
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


async def says(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().rstrip("\n")


@pytest.mark.parametrize("make", FORMATS)
def test_at_once_means_whenever_a_terminal_waits(make: str) -> None:
    async def main() -> None:
        async with swiping("--pty", "--at-once", "--card", "amex", "--format", make, "--json") as process:
            ready = json.loads(await says(process))
            assert ready == {
                "event": "ready",
                "device": ready["device"],
                "reader": f"magstripe://{ready['device']}",
            }
            for _ in range(2):
                async with open_reader(ready["reader"]) as reader:
                    for _ in range(2):
                        assert (await reader.wait_for_card(20)).pan == CARDS["amex"].pan
            swiped = json.loads(await says(process))
            assert swiped == {"event": "swiped", "card": "amex", "pan": "378282*****0005"}

    asyncio.run(main())


def test_each_enter_is_a_swipe_and_the_end_of_the_input_is_the_end() -> None:
    async def main() -> None:
        async with swiping("--pty") as process:
            path = await says(process)
            assert process.stdin is not None
            async with open_reader(f"magstripe://{path}") as reader:
                for _ in range(2):
                    wait = asyncio.create_task(reader.wait_for_card(20))
                    await asyncio.sleep(0)
                    process.stdin.write(b"\n")
                    assert (await wait).pan == CARDS["visa"].pan
                    assert await says(process) == "swiped visa 476173******0119"
            process.stdin.close()
            assert await process.wait() == 0

    asyncio.run(main())


def test_every_so_often() -> None:
    async def main() -> None:
        async with swiping("--pty", "--every", "0.01") as process:
            async with open_reader(f"magstripe://{await says(process)}") as reader:
                for _ in range(2):
                    assert (await reader.wait_for_card(20)).pan == CARDS["visa"].pan
            assert await says(process) == "swiped visa 476173******0119"

    asyncio.run(main())


def test_an_unplugged_reader_ends_the_command() -> None:
    async def main() -> None:
        async with swiping("--pty", "--at-once", "--fault", "unplug") as process:
            reader = open_reader(f"magstripe://{await says(process)}")
            with kept(reader.url):
                with pytest.raises(LineError):  # pulled as soon as it is opened, or a moment after
                    await wait_once(reader)
                assert await process.wait() == 0

    async def wait_once(reader: Reader) -> None:
        async with reader:
            await reader.wait_for_card(20)

    asyncio.run(main())


def test_into_a_device_that_is_there_already() -> None:
    master, device = pty.openpty()
    tty.setraw(device)
    try:
        result = CliRunner().invoke(swipe, ["--device", os.ttyname(device), "--at-once", "--format", "idtech"])
        sent = os.read(master, 4096)
    finally:
        os.close(master)
        os.close(device)
    assert result.exit_code == 0
    assert result.output.splitlines()[1:] == ["swiped visa 476173******0119"]
    assert sent == swipe_bytes(CARDS["visa"], "idtech")


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        ([], 2, "either --pty or --device"),
        (["--pty", "--device", "/dev/null"], 2, "either --pty or --device"),
        (["--pty", "--at-once", "--every", "1"], 2, "either --at-once or --every"),
        (["--pty", "--every", "0"], 2, "every"),
        (["--pty", "--card", "nobody"], 2, "nobody"),
        (["--device", "/no/such/port", "--at-once"], 5, "/no/such/port: there is no such port\nCheck the cable"),
        (["--device", "socket://127.0.0.1", "--at-once"], 5, "host and port are missing"),
    ],
)
def test_what_it_refuses(arguments: list[str], code: int, why: str) -> None:
    result = CliRunner().invoke(swipe, arguments)
    assert result.exit_code == code
    assert why in result.output


def test_without_a_keyboard_it_says_what_to_do_and_is_never_ready() -> None:
    async def main() -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--pty", stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE
        )
        told, complaint = await process.communicate()
        return process.returncode, told.decode(), complaint.decode()

    code, told, complaint = asyncio.run(main())
    assert (code, told) == (2, "")
    assert "say --at-once or --every" in complaint
