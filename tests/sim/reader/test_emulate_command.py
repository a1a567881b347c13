"""``till reader emulate`` and ``replay``: what they say, when they end, and what they refuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hw import magstripe_setup as setup
from hw.card import ChipCard, SealedCard, StripeCard
from hw.errors import FramingError, LineError, LineGone, NoAnswer, ReaderError
from hw.link import open_link
from hw.magstripe import MagstripeReader
from hw.reader import Reader, open_reader
from hw.trace import Tracer
from sim.cli.emulate import MAKES, emulate
from sim.cli.keys import check_keys
from sim.cli.replay import replay
from sim.reader.magstripe import AS_SHIPPED, FORMATS, SETTABLE
from tests.hil.emulated import environment, kept

PIPE = asyncio.subprocess.PIPE
WORDS = {
    "pn532": ("--tap",),
    "gemcore": ("--insert",),
    "acs": ("--insert",),
    "vivopay": ("--insert",),
    "magstripe": ("--swipe",),
}


@contextlib.asynccontextmanager
async def started(
    name: str, *arguments: str, code: int = 0, by: signal.Signals = signal.SIGTERM
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, running; ended ``by`` a signal, and as it should."""
    program = f"from sim.cli.{name} import {name}; {name}()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment()
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(by)
        await process.communicate()
    assert process.returncode == code


async def says(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(await process.stdout.readline())
    return told


@pytest.mark.parametrize("line", ["--pty", "--socket"])
@pytest.mark.parametrize("driver", WORDS)
def test_it_is_there_once_it_says_so_and_its_card_at_once(driver: str, line: str) -> None:
    async def main() -> None:
        async with started("emulate", driver, line, *WORDS[driver], "--json") as process:
            ready = await says(process)
            assert set(ready) == {"event", "device", "reader"}
            if line == "--pty":
                assert ready["reader"].startswith(f"{driver}://{ready['device']}")
            else:
                assert ready["reader"].startswith(f"{driver}+{ready['device']}")
            async with open_reader(ready["reader"]) as reader:
                card = await reader.wait_for_card(30)
                if isinstance(card, ChipCard):
                    await card.release()

    asyncio.run(main())


def test_the_device_alone_is_said_to_people() -> None:
    async def main() -> None:
        async with started("emulate", "pn532", "--tap") as process:
            assert process.stdout is not None
            device = (await process.stdout.readline()).decode().rstrip("\n")
            async with open_reader(f"pn532://{device}") as reader:
                assert await reader.wait_for_card(30)

    asyncio.run(main())


def test_each_enter_presents_the_card_or_takes_it_away_and_the_end_of_the_input_ends_it() -> None:
    async def main() -> None:
        async with started("emulate", "gemcore", "--json") as process:
            assert process.stdin is not None
            async with open_reader((await says(process))["reader"]) as reader:
                for _ in range(2):
                    process.stdin.write(b"\n")
                    assert await says(process) == {"event": "presented", "card": "visa-credit", "way": "insert"}
                    card = await reader.wait_for_card(30)
                    assert isinstance(card, ChipCard)
                    process.stdin.write(b"\n")
                    assert (await says(process))["event"] == "removed"
            process.stdin.close()
            assert await process.wait() == 0

    asyncio.run(main())


def test_cards_come_again_and_again_in_turn() -> None:
    async def main() -> None:
        async with started(
            "emulate", "vivopay", "--tap", "--insert", "--present-every", "0.01", "--json"
        ) as process:
            await says(process)
            told = [await says(process) for _ in range(8)]
            assert [one["event"] for one in told] == ["presented", "removed"] * 4
            assert [one["way"] for one in told if "way" in one] == ["tap", "insert", "tap", "insert"]

    asyncio.run(main())


def test_a_reader_that_encrypts() -> None:
    async def main() -> None:
        async with (
            started("emulate", "vivopay", "--tap", "--encrypt", "tdes", "--json") as process,
            open_reader((await says(process))["reader"]) as reader,
        ):
            assert reader.capabilities.encrypts
            card = await reader.wait_for_card(30)
            assert isinstance(card, SealedCard)
            assert card.scheme == "dukpt-tdes"

    asyncio.run(main())


SETUPS = [kind for kind in MagstripeReader.OPTIONS["setup"] if kind != "leave"]


def test_every_reader_that_a_driver_can_set_is_emulated() -> None:
    assert tuple(SETUPS) == SETTABLE
    assert MAKES == FORMATS


@pytest.mark.parametrize("line", ["--pty", "--socket"])
@pytest.mark.parametrize("kind", SETUPS)
def test_a_stripe_reader_answers_to_its_settings_and_reads_cards(kind: str, line: str) -> None:
    async def main() -> None:
        words = ("magstripe", line, "--format", kind, "--swipe", "--json")
        async with started("emulate", *words) as process:
            url = (await says(process))["reader"]
            async with open_reader(f"{url}?setup={kind}") as reader:
                for _ in range(2):
                    card = await reader.wait_for_card(30)
                    assert isinstance(card, StripeCard)
                    assert card.masked_pan == "476173******0119"
                assert reader.statistics.frames_out == 2

    asyncio.run(main())


@pytest.mark.parametrize("kind", SETUPS)
def test_the_settings_of_an_emulated_stripe_reader_are_reviewed_changed_and_reset(kind: str) -> None:
    async def main() -> None:
        async with started("emulate", "magstripe", "--format", kind, "--json") as process:
            link = await open_link((await says(process))["device"])
            assert await setup.review(link) == AS_SHIPPED
            await setup.change(link, setup.BEEP, b"0")
            assert await setup.review(link) == AS_SHIPPED | {setup.BEEP: b"0"}
            await setup.change(link, setup.DEFAULTS)
            assert await setup.review(link) == AS_SHIPPED
            await link.close()

    asyncio.run(main())


@pytest.mark.parametrize("make", [make for make in FORMATS if make not in SETTABLE])
def test_a_stripe_reader_that_is_not_set_so_says_nothing_to_it(make: str) -> None:
    async def main() -> None:
        async with started("emulate", "magstripe", "--format", make, "--json") as process:
            reader = open_reader(f"{(await says(process))['reader']}?setup=idtech")
            with pytest.raises(NoAnswer, match="no answer to reading within"):
                await reader.open()

    asyncio.run(main())


@pytest.mark.parametrize("words", [("--tap",), (), ("--tap", "--present-every", "0.1")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(number: signal.Signals, words: tuple[str, ...]) -> None:
    async def main() -> None:
        async with started("emulate", "pn532", *words, "--json", by=number) as process:
            assert (await says(process))["event"] == "ready"

    asyncio.run(main())


def test_sigterm_ends_it_where_ctrl_c_is_ignored() -> None:
    """As a shell does that puts it in the background."""
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program = f"{ignoring}; from sim.cli.emulate import emulate; emulate()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "pn532", "--tap"], stdout=subprocess.PIPE, env=environment(), text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("/dev/pts/")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("driver", WORDS)
def test_the_plug_is_pulled_on_request_and_that_ends_it(driver: str) -> None:
    async def main() -> None:
        async with started("emulate", driver, *WORDS[driver], "--misbehave", "unplug", "--json") as process:
            reader = open_reader((await says(process))["reader"])
            with kept(reader.url):
                with pytest.raises((LineError, FramingError)):  # half a swipe may be heard before the end
                    await taken(reader)
                await process.wait()

    async def taken(reader: Reader) -> None:
        async with reader:
            await reader.wait_for_card(30)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("pn532", "--insert"), "pn532 takes --tap, and not --insert"),
        (("acs", "--insert", "--tap"), "acs has one slot at a time"),
        (("pn532", "--pty", "--socket"), "Say either --pty or --socket"),
        (("pn532", "--tap", "--encrypt", "aes"), "--encrypt is for vivopay"),
        (("pn532", "--tap", "--format", "uic"), "--format is for magstripe"),
        (("pn532", "--tap", "--misbehave", "explode"), "pn532 does not know 'explode' (it knows: garbage, "),
        (("pn532", "--tap", "--card", "visa-credid"), "There is no card 'visa-credid' (there are: amex, "),
        (("pn532", "--tap", "--card", "visa"), "There is no card 'visa' (there are: amex, "),
        (("magstripe", "--swipe", "--card", "garbled"), "--swipe: the card 'garbled' has no number"),
        (("gemcore", "--insert", "--card", "nowhere.toml"), "--insert: "),
        (("punchcard",), "'punchcard' is not one of"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], why: str) -> None:
    done = CliRunner().invoke(emulate, words)
    assert done.exit_code == 2
    assert why in done.output


def test_who_sits_at_a_keyboard_is_told_what_the_keys_do() -> None:
    keyboard, stdin = os.openpty()
    program = "from sim.cli.emulate import emulate; emulate()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "pn532"],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "ENTER presents the card, the next takes it away; Ctrl-C ends.\n"
    finally:
        process.kill()
        process.communicate()
        os.close(stdin)
        os.close(keyboard)


def test_without_keys_it_says_what_to_say_and_is_never_ready() -> None:
    program = "from sim.cli.emulate import emulate; emulate()"
    done = subprocess.run(
        [sys.executable, "-c", program, "pn532"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "say --tap, --insert, --swipe or --present-every" in done.stderr


def test_a_shells_background_has_no_keys_either(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, stdin = os.openpty()

    async def main() -> None:
        check_keys("--tap")  # it is not the terminal that we were started from
        monkeypatch.setattr(os, "tcgetpgrp", lambda keys: os.getpgrp())
        check_keys("--tap")
        monkeypatch.setattr(os, "tcgetpgrp", lambda keys: os.getpgrp() + 1)
        with pytest.raises(click.UsageError, match="in the background: say --tap"):
            check_keys("--tap")

    with os.fdopen(stdin) as keys, os.fdopen(keyboard):
        monkeypatch.setattr(sys, "stdin", keys)
        asyncio.run(main())


async def recorded() -> str:
    lines: list[str] = []
    async with started("emulate", "pn532", "--tap", "--json") as process:
        reader = open_reader((await says(process))["reader"])
        reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
        async with reader:
            await reader.wait_for_card(30)
    return "".join(lines)


def test_a_replay_says_when_it_is_over_and_ends_with_5_at_a_deviation(tmp_path: Path) -> None:
    file = tmp_path / "reader.trace"
    file.write_text(asyncio.run(recorded()))

    async def main() -> None:
        async with started("replay", str(file), "--json", code=5) as process:
            ready = await says(process)
            assert ready["reader"] == f"pn532://{ready['device']}"
            async with open_reader(ready["reader"]) as reader:
                await reader.wait_for_card(30)
            assert (await says(process))["event"] == "over"
            with kept(ready["reader"]), contextlib.suppress(ReaderError):
                async with open_reader(ready["reader"]) as reader:
                    with pytest.raises(LineGone):
                        await reader.wait_for_card(30)
            assert process.stderr is not None
            assert b"the trace is over after" in await process.stderr.read()
            await process.wait()

    asyncio.run(main())


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "reader.trace"
    for said in (b"hello\n", b"\x7fELF\xff\xfe\n"):
        file.write_bytes(said)
        done = CliRunner().invoke(replay, [str(file)])
        assert done.exit_code == 5
        assert f"{file}: line 1 of the trace is no frame\nA trace is what `till reader trace" in done.output
    swipe = b"%B4761730000000119^X^28122010000?;4761730000000119=28122010000?\r".hex()
    file.write_text(json.dumps({"t": 0, "way": "in", "frame": swipe}) + "\n")
    done = CliRunner().invoke(replay, [str(file), "--socket", "--driver", "magstripe"])
    assert done.exit_code == 2
    assert "say --pty" in done.output
