"""The suite that ships with the package, by pytest itself, against every emulator and behind real PC/SC."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from hw.errors import LineError, LineGone
from sim.card import inserted, tapped
from tests.hil.emulated import environment, run_suite, running, suite_command
from tests.hw.test_pcsc_pcscd import NAME, free_port, served

EMULATED = {
    "pn532": ("pn532", "--tap"),
    "gemcore": ("gemcore", "--insert"),
    "acs-icc": ("acs", "--insert"),
    "acs-picc": ("acs", "--tap"),
    "magstripe": ("magstripe", "--swipe"),
    "vivopay": ("vivopay", "--tap", "--insert", "--swipe"),
    "vivopay-encrypts": ("vivopay", "--tap", "--insert", "--swipe", "--encrypt", "aes"),
}
AGAIN = ("--present-every", "2")
PATIENT = ("--reader-timeout", "60")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "line"), [*((name, "--pty") for name in EMULATED), ("pn532", "--socket")])
def test_every_emulated_reader_passes(name: str, line: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with running("emulate", *EMULATED[name], line, *AGAIN) as url:
        done = run_suite(tmp_path, "--reader", url, *PATIENT, "--reader-report", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    found = json.loads(report.read_text())
    assert found["reader"] == url
    assert set(found["tests"].values()) <= {"passed", "skipped"}
    for way, capability in {"tap": "contactless", "insert": "contact", "swipe": "stripe"}.items():
        outcome = found["tests"][f"test_a_card_comes_as_the_reader_says[{way}]"]
        assert outcome == ("passed" if capability in found["capabilities"] else "skipped")
    assert found["counts"]["frames_in"] > 0
    assert "4761739001010119" not in done.stdout
    assert re.search(r">>> (tap|insert|swipe) a card", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "ways", "passed"),
    [
        ("passthrough", ("--tap",), 12),
        ("passthrough&interface=contact", ("--insert",), 12),
        ("contact", ("--insert", "--swipe"), 11),
        ("burst", ("--tap", "--swipe"), 11),
    ],
)
def test_the_other_modes_of_a_reader_with_a_kernel(
    mode: str, ways: tuple[str, ...], passed: int, tmp_path: Path
) -> None:
    with running("emulate", "vivopay", *ways, *AGAIN) as url:
        done = run_suite(tmp_path, "--reader", f"{url}?mode={mode}", *PATIENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout


@pytest.mark.slow
def test_a_stripe_reader_that_is_set_passes(tmp_path: Path) -> None:
    with running("emulate", "magstripe", "--format", "idtech", "--swipe", *AGAIN) as url:
        done = run_suite(tmp_path, "--reader", f"{url}?setup=idtech", *PATIENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout


@pytest.mark.slow
def test_a_card_behind_real_pcsc_passes(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, free_port()) as reader:

            async def present() -> None:
                while True:
                    await reader.insert(inserted("visa-credit"))
                    await asyncio.sleep(1.5)
                    await reader.remove()
                    await asyncio.sleep(1)
                    await reader.tap(tapped("visa-credit"))
                    await asyncio.sleep(1.5)
                    await reader.remove()
                    await asyncio.sleep(1)

            presenting = asyncio.create_task(present())
            process = await asyncio.create_subprocess_exec(
                *suite_command("--reader", f"pcsc://{NAME}*", *PATIENT),
                cwd=tmp_path,
                env=environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await process.communicate()
            presenting.cancel()
            assert process.returncode == 0, said.decode()

    asyncio.run(main())


def test_a_reader_that_is_not_there_is_told_once_and_what_to_do(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "--reader", "pn532:///dev/ttyNowhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: pn532:///dev/ttyNowhere: there is no such port\n" in done.stdout + done.stderr
    assert "ls /dev/serial/by-id" in done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert run_suite(tmp_path, "--reader", "pn532:///dev/ttyNowhere", "--collect-only").returncode == 0


def test_a_line_that_fails_in_the_middle_is_told_without_a_traceback(tmp_path: Path) -> None:
    words = ("magstripe", "--swipe", "--misbehave", "unplug")
    for style, traced in ((), False), (("--tb=long",), True):
        with running("emulate", *words) as url:
            done = run_suite(tmp_path, "--reader", url, "-k", "as_the_reader_says", *style)
        assert done.returncode == pytest.ExitCode.TESTS_FAILED
        # It was opened once before, which may have been the swipe's moment.
        assert re.search(rf"{re.escape(url)}: (the device is gone|there is no such port)", done.stdout), done.stdout
        advised = any(error.advice in done.stdout for error in (LineGone, LineError))
        assert advised is not traced
        assert ("hw/reader.py" in done.stdout) is traced


def test_only_the_packaged_suite_is_collected(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own() -> None:\n    assert False\n")
    with running("emulate", "magstripe", "--swipe") as url:
        done = run_suite(tmp_path, "--reader", url, "test_own.py", "--collect-only")
        assert "test_own" not in done.stdout
        assert "test_it_opens_and_closes_and_opens_again" in done.stdout
        assert "test_a_reader_that_is_unplugged" not in done.stdout
        more = run_suite(tmp_path, "--reader", url, "--reader-unplug", "--collect-only")
        assert "test_a_reader_that_is_unplugged" in more.stdout


def test_a_test_skipped_for_a_declared_capability_is_a_failure(tmp_path: Path) -> None:
    with running("emulate", "magstripe", "--swipe") as url:
        done = run_suite(tmp_path, "--reader", url, "-p", "tests.hil.skipping", "-k", "a_card_comes")
    assert done.returncode == 1
    assert "1 failed, 2 skipped" in done.stdout
    assert "skipped, and the reader declares all that it needs" in done.stdout


def test_nobody_there_is_told_and_fails(tmp_path: Path) -> None:
    with running("emulate", "pn532") as url:
        done = run_suite(tmp_path, "--reader", url, "--reader-timeout", "0.2", "-k", "a_card_comes")
    assert done.returncode == 1
    assert "no card within 0.2 seconds" in done.stdout
    assert ">>> tap a card, and leave it there" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--reader", "punchcard:///dev/ttyS1"), "there is no driver named 'punchcard'"),
        (("--reader", "pn532:///dev/ttyS1?chip_baud=fast"), "chip_baud is one of"),
        (("--reader", "pn532:///dev/ttyS1", "-n", "2"), "leave out -n"),
        (
            ("--reader", "sim://visa-credit", "--reader-report", "no/such/report.json"),
            "--reader-report no/such/report.json: No such file or directory",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments: tuple[str, ...], why: str, tmp_path: Path) -> None:
    done = run_suite(tmp_path, *arguments)
    assert done.returncode == 4
    assert why in done.stderr


def test_without_a_reader_nothing_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        'import sys\n\ndef test_own() -> None:\n    assert "hw.conformance.session" not in sys.modules\n'
        '    assert "hw.reader" not in sys.modules\n'
    )
    done = run_suite(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
