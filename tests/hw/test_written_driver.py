"""The driver of ``docs/drivers.md``, as it stands there: its own test, the errors that it owes, and the suite."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hw.apdu import Command
from hw.errors import BadAddress, CardGone, LineError, LineGone, ProtocolError
from hw.reader import CardInserted, CardRemoved, ReaderEvent, ReaderGone, open_reader
from hw.trace import Tracer, read_trace
from sim.card import tapped
from sim.reader.line import PtyLine
from tests.hil.emulated import ROOT, environment, suite_command

PAGE = ROOT / "docs" / "drivers.md"
PPSE = Command(0x00, 0xA4, 0x04, 0x00, b"2PAY.SYS.DDF01", 256)
RECORD = Command(0x00, 0xB2, 0x01, 0x0C, le=256)
NUMBER = "4761739001010119"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's package, installed: its modules, and the entry point that its pyproject.toml declares."""
    (declared,) = blocks("toml")
    assert declared == '[project.entry-points."tillwright.readers"]\nacme = "acme_reader:AcmeReader"\n'
    driver, test = blocks("python")
    (tmp_path / "acme_reader.py").write_text(driver, encoding="utf-8")
    (tmp_path / "test_acme.py").write_text(test, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    info = tmp_path / "acme_reader-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(declared.replace("project.entry-points.", "").replace('"', ""))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("acme_reader", None)


def of_the_page(package: Path) -> ModuleType:
    """Its test module, with the emulator."""
    sys.modules.pop("test_acme", None)
    return importlib.import_module("test_acme")


def with_path(package: Path) -> dict[str, str]:
    kept = environment()
    return kept | {"PYTHONPATH": os.pathsep.join((str(package), kept["PYTHONPATH"]))}


def test_its_own_test_passes(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_acme.py"],
        cwd=package,
        env=with_path(package),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_events_traces_and_a_card_that_goes(package: Path) -> None:
    events: list[type[ReaderEvent]] = []
    lines: list[str] = []

    async def main() -> None:
        line = PtyLine()
        acme: Any = of_the_page(package).FakeAcme(line)
        running = asyncio.create_task(acme.run())
        reader = open_reader(f"acme://{line.path}")
        reader.on_event = lambda event: events.append(type(event))
        reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
        async with reader:
            acme.card = tapped("visa-credit")
            card: Any = await reader.wait_for_card(10)
            assert (await card.transmit(PPSE)).ok
            await card.transmit(Command(0x00, 0xA4, 0x04, 0x00, bytes.fromhex("A0000000031010"), 256))
            await card.transmit(Command(0x80, 0xA8, 0x00, 0x00, b"\x83\x21" + bytes(33), 256))
            await card.transmit(RECORD)
            acme.card = None
            with pytest.raises(CardGone, match="taken away"):
                await card.transmit(PPSE)
            with pytest.raises(CardGone, match="let go of"):
                await card.transmit(PPSE)
            acme.card = tapped("visa-credit")
            again: Any = await reader.wait_for_card(10)
            await line.close()
            with pytest.raises(LineGone):
                await again.transmit(PPSE)
        await running

    asyncio.run(main())
    assert events == [CardInserted, CardRemoved, CardInserted, ReaderGone]
    frames = list(read_trace(lines))
    assert {frame.what.partition(",")[0] for frame in frames} >= {"version", "poll", "to the card", "from the card"}
    assert NUMBER not in "".join(frame.data.decode("ascii") for frame in frames)


@pytest.mark.parametrize("said", [b"\xff\xfe\n", b"+zz\n", b"hello\n", b"x" * 5000 + b"\n", b"\n"])
def test_nonsense_is_an_error_of_the_tree(package: Path, said: bytes) -> None:
    """A reader that is another, and one that is Acme's and says anything to a poll."""

    async def main() -> None:
        for first in (said, b"ACME 1.0\n"):
            line = PtyLine()

            async def talk(line: PtyLine = line, first: bytes = first) -> None:
                with suppress(LineGone):
                    await line.read()
                    await line.write(first * 4 if first is said else first)
                    await line.read()
                    await line.write(said)
                    await line.read()

            talking = asyncio.create_task(talk())
            reader = open_reader(f"acme://{line.path}")
            with pytest.raises((ProtocolError, LineError)):
                async with reader:
                    await reader.wait_for_card(5)
            await line.close()
            await talking

    asyncio.run(main())


def test_an_answer_from_before_is_not_the_answer_to_who_are_you(package: Path) -> None:
    async def main() -> None:
        line = PtyLine()

        async def talk() -> None:
            with suppress(LineGone):
                await line.read()
                await line.write(b"-\nACME 1.0\n")
                await line.read()

        talking = asyncio.create_task(talk())
        async with open_reader(f"acme://{line.path}") as reader:
            assert getattr(reader, "firmware", "") == "ACME 1.0"
        await line.close()
        await talking

    asyncio.run(main())


def test_an_option_that_it_does_not_have_is_refused(package: Path) -> None:
    with pytest.raises(BadAddress, match="beep"):
        asyncio.run(open_reader("acme:///dev/ttyNowhere?beep=on").open())


@pytest.mark.slow
def test_the_suite_passes(package: Path) -> None:
    async def main() -> None:
        line = PtyLine()
        acme: Any = of_the_page(package).FakeAcme(line)

        async def present() -> None:
            while True:
                acme.card = tapped("visa-credit")
                await asyncio.sleep(1)
                acme.card = None
                await asyncio.sleep(1)

        work = [asyncio.create_task(acme.run()), asyncio.create_task(present())]
        process = await asyncio.create_subprocess_exec(
            *suite_command("--reader", f"acme://{line.path}", "--reader-timeout", "60"),
            cwd=package,
            env=with_path(package),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        work[1].cancel()
        await line.close()
        await work[0]
        assert process.returncode == 0, said.decode()
        assert "ACME 1.0" in said.decode()
        assert "skipped" in said.decode()

    asyncio.run(main())
