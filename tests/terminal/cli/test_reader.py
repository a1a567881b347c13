"""``till reader``: with emulators as processes of their own at the other end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hw.errors import LineError
from hw.finding import Port
from terminal.cli.entry import main
from tests.hil.emulated import environment, running
from tests.hw.peers import full_disk

TILL = (sys.executable, "-m", "terminal.cli.entry")
NUMBER = "4761739001010119"


def path_of(url: str) -> str:
    return url.partition("://")[2].partition("?")[0]


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def silent() -> Iterator[str]:
    """A serial device at whose other end nobody is."""
    master, device = os.openpty()
    yield os.ttyname(device)
    os.close(master)
    os.close(device)


def known_ports(monkeypatch: pytest.MonkeyPatch, *ports: Port) -> None:
    monkeypatch.setattr("hw.finding.ports", lambda: ports)


def test_list_shows_each_port_and_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], silent: str
) -> None:
    with running("emulate", "gemcore", "--insert") as url:
        known_ports(
            monkeypatch,
            Port(path_of(url), 0x08E6, 0x3437, "A1", "1-1", "GemPC\x1b", "/dev/serial/by-id/usb-Gem"),
            Port(silent, 0x0ACD, 0x3810),
            Port("/dev/ttyACM7", 0x2341, 0x0043),
            Port("/dev/ttyNowhere"),
        )
        assert main(["reader", "list"]) == 0
        text = capsys.readouterr().out
        assert main(["reader", "list", "--json"]) == 0
        facts = said(capsys)
    lines = text.splitlines()
    assert "gemcore:///dev/serial/by-id/usb-Gem  GemCore-Tillwright-1.0" in lines[1]
    assert "\x1b" not in text
    assert "nobody answers; vivopay or magstripe by its USB ids" in lines[2]
    assert "not asked: an Arduino" in lines[3]
    assert "not asked: there is no such port" in lines[4]
    assert lines[5:] == [LineError.advice]
    assert [one["event"] for one in facts] == ["port"] * 4 + ["result"]
    assert facts[0]["reader"] == "gemcore:///dev/serial/by-id/usb-Gem"
    assert facts[3]["error"] == "/dev/ttyNowhere: there is no such port"
    assert facts[-1] == {"event": "result", "ports": 4, "exit_code": 0}


def test_list_without_asking_goes_by_usb_ids(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], silent: str
) -> None:
    known_ports(monkeypatch, Port(silent, 0x0ACD, 0x3810), Port("/dev/ttyS0"))
    assert main(["reader", "list", "--no-ask"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("vivopay or magstripe by its USB ids")
    assert lines[2].endswith("not asked")
    known_ports(monkeypatch)
    assert main(["reader", "list"]) == 0
    assert capsys.readouterr().out == "There is no serial port.\n"


@pytest.mark.parametrize("line", ["--pty", "--socket"])
def test_probe_names_the_reader(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with running("emulate", "pn532", line, "--tap") as url:
        where = path_of(url) if line == "--pty" else url.removeprefix("pn532+")
        assert main(["reader", "probe", where]) == 0
        assert capsys.readouterr().out == f"{url}  PN532 1.6\n"
        assert main(["reader", "probe", url, "--json"]) == 0
        probed, result = said(capsys)
        assert (probed["driver"], probed["reader"], probed["says"]) == ("pn532", url, "PN532 1.6")
        assert result == {"event": "result", "readers": 1, "exit_code": 0}


def test_probe_of_all_ports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with running("emulate", "acs", "--insert") as url:
        known_ports(monkeypatch, Port(path_of(url), 0x072F, 0x0001), Port("/dev/ttyACM7", 0x2341, 0x0043))
        assert main(["reader", "probe"]) == 0
        says = "a reader of ACS's; contactless cards come with ?slot=picc"
        assert capsys.readouterr().out == f"acs://{path_of(url)}  {says}\n"
    known_ports(monkeypatch, Port("/dev/ttyNowhere"))
    assert main(["reader", "probe"]) == 5
    told = capsys.readouterr().out
    assert told == f"No reader answers.\n/dev/ttyNowhere: there is no such port  {LineError.advice}\n"
    known_ports(monkeypatch)
    assert main(["reader", "probe"]) == 5
    assert capsys.readouterr().out == "No reader answers.\n"


def test_probe_says_why_nobody_answers(silent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reader", "probe", silent]) == 5
    error = capsys.readouterr().err
    assert f"{silent}: no reader answers" in error
    assert "A stripe reader says nothing until a swipe" in error
    assert main(["reader", "probe", "/dev/ttyNowhere"]) == 5
    assert "there is no such port" in capsys.readouterr().err
    assert main(["reader", "test", "/dev/ttyNowhere"]) == 5
    assert "`till reader probe /dev/ttyNowhere` asks" in capsys.readouterr().err
    assert main(["reader", "probe", "punchcard:///dev/ttyS0"]) == 5
    assert "there is no driver named 'punchcard'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reader", "way"), [("pn532", "--tap"), ("gemcore", "--insert"), ("vivopay", "--tap"), ("magstripe", "--swipe")]
)
def test_the_self_test_reports_and_ends_with_0_where_all_is_well(
    reader: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with running("emulate", reader, way) as url:
        assert main(["reader", "test", url]) == 0
        captured = capsys.readouterr()
        asked = "Swipe a card now." if way == "--swipe" else "Present a card now, and leave it there."
        assert captured.err == f"{asked}\n"
        assert captured.out.endswith("everything passed\n")
        assert f"reader        {url}\n" in captured.out
        assert NUMBER not in captured.out


def test_the_self_test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with running("emulate", "pn532", "--tap", "--card", "maestro") as url:
        assert main(["reader", "test", url, "--json"]) == 0
    *told, result = said(capsys)
    assert [one["event"] for one in told].count("prompt") == 1
    assert [one["name"] for one in told if one["event"] == "step"] == [step["name"] for step in result["steps"]]
    assert (result["event"], result["passed"], result["exit_code"]) == ("result", True, 0)
    assert any("MAESTRO 630493" in step["detail"].upper() for step in result["steps"])


def test_the_self_test_of_a_reader_that_is_not_there_ends_with_5(
    silent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reader", "test", "magstripe:///dev/ttyNowhere"]) == 5
    text = capsys.readouterr().out
    assert "failed        opens and answers: magstripe:///dev/ttyNowhere: there is no such port" in text
    assert text.endswith("NOT everything passed\n")
    assert main(["reader", "test", f"magstripe://{silent}", "--timeout", "0.1"]) == 5
    assert "no card within 0.1 seconds" in capsys.readouterr().out
    assert main(["reader", "test", f"magstripe://{silent}", "--no-card"]) == 0


def test_a_trace_is_written_and_replays_for_the_self_test_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reader.trace"
    with running("emulate", "gemcore", "--insert", "--card", "mastercard-debit") as url:
        assert main(["reader", "trace", url, str(file), "--json"]) == 0
    (recorded,) = said(capsys)
    lines = file.read_text().splitlines()
    assert recorded["frames"] == len(lines)
    assert all(json.loads(line)["what"] for line in lines)
    with running("replay", str(file)) as url:
        assert main(["reader", "trace", url, str(tmp_path / "again"), "--json"]) == 0
        (again,) = said(capsys)
        assert again == recorded
    with running("replay", str(file), "--tolerant") as url:
        assert main(["reader", "test", url]) == 0
        assert "everything passed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("pn532", "--tap"), ""),
        (("gemcore", "--insert"), ""),
        (("acs", "--tap"), "?slot=picc"),
        (("vivopay", "--tap"), ""),
        (("vivopay", "--insert", "--encrypt", "aes"), "?encrypts=yes"),
        (("magstripe", "--swipe"), ""),
    ],
)
def test_the_self_test_says_the_same_of_a_reader_and_of_its_trace(
    words: tuple[str, ...], options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word, but for the number of frames, and whether a card is there again later."""
    file = tmp_path / "reader.trace"
    reports = []
    with running("emulate", *words) as url:
        assert main(["reader", "trace", url, str(file)]) == 0
        capsys.readouterr()
        assert main(["reader", "test", url, "--json"]) == 0
        reports.append(said(capsys)[-1])
    with running("replay", str(file), "--tolerant") as url:
        assert main(["reader", "test", url.partition("?")[0] + options, "--json"]) == 0
        reports.append(said(capsys)[-1])
    aside = ("a wait ends on time", "a wait can be called off", "the line is clean")
    first, second = (
        [(step["name"], step["state"], step["detail"]) for step in report["steps"] if step["name"] not in aside]
        for report in reports
    )
    assert first == second
    assert reports[0]["about"].get("firmware") == reports[1]["about"].get("firmware")


def test_a_trace_to_stdout_is_the_frames_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with running("emulate", "magstripe", "--swipe") as url:
        done = subprocess.run(
            [*TILL, "reader", "trace", url, "-"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["way"] == "in"
    assert NUMBER not in done.stdout
    assert NUMBER.encode().hex() not in done.stdout


def test_what_a_trace_cannot_have(tmp_path: Path, capsys: pytest.CaptureFixture[str], silent: str) -> None:
    file = tmp_path / "reader.trace"
    assert main(["reader", "trace", f"magstripe://{silent}", str(file), "--timeout", "0.1"]) == 5
    assert "no card within" in capsys.readouterr().err
    assert main(["reader", "trace", f"magstripe://{silent}", str(tmp_path / "no" / "file")]) == 2


def test_a_trace_that_is_not_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with running("emulate", "pn532", "--tap") as url:
        assert main(["reader", "trace", url, full_disk()]) == 2
    told = capsys.readouterr()
    assert "/dev/full: the trace is not whole: No space left on device" in told.err
    assert "frames in" not in told.out


def test_watch_shows_cards_masked(capsys: pytest.CaptureFixture[str]) -> None:
    with running("emulate", "pn532", "--tap", "--present-every", "1.5") as url:
        assert main(["reader", "watch", url, "--count", "2"]) == 0
        text = capsys.readouterr().out
        assert text.splitlines()[0] == f"watching {url}"
        assert text.count("card by contactless: VISA CREDIT 476173******0119") == 2
        assert "the card was taken away" in text
        assert main(["reader", "watch", url, "--count", "1", "--json"]) == 0
    facts = said(capsys)
    assert facts[0] == {"event": "watching", "reader": url}
    (card,) = [one for one in facts if one["event"] == "card"]
    assert (card["pan"], card["aid"]) == ("476173******0119", "A0000000031010")


def test_watch_of_a_reader_that_was_never_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reader", "watch", "magstripe:///dev/ttyNowhere"]) == 5
    assert "there is no such port" in capsys.readouterr().err


def test_a_reader_comes_back_under_another_name_and_is_watched_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its USB serial number: what the system lists is told here, the lines are real."""
    with contextlib.ExitStack() as stack:
        first = running("emulate", "magstripe", "--swipe", "--misbehave", "unplug")
        url = stack.enter_context(first)
        second = stack.enter_context(running("emulate", "magstripe", "--swipe"))
        asked = 0

        def ports() -> tuple[Port, ...]:
            nonlocal asked
            asked += 1
            path = {1: path_of(url), 2: "/dev/ttyElse"}.get(asked, path_of(second))
            serial = "B2" if asked == 2 else "A1"
            return (Port(path, 0x0403, 0x6001, serial, "1-1"),)

        monkeypatch.setattr("hw.finding.ports", ports)
        assert main(["reader", "watch", url, "--count", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"watching {url}"
    assert "the reader is gone" in lines
    # In a wait, or before it began.
    assert any("the device is gone" in line or "there is no such port" in line for line in lines)
    assert "card by swipe: 476173******0119" in lines
    assert asked >= 3


def test_a_reader_that_was_unplugged_comes_back_by_its_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the links in /dev/serial/by-id do."""
    device = tmp_path / "by-id"
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running("emulate", "magstripe", "--swipe", "--misbehave", "unplug"))
        device.symlink_to(path_of(url))
        later = stack.enter_context(running("emulate", "magstripe", "--swipe"))
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "terminal.cli.entry",
                "reader",
                "watch",
                f"magstripe://{device}",
                "--count",
                "1",
            ],
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while "is gone" not in lines[-1]:
            lines.append(process.stdout.readline())
        device.unlink()
        device.symlink_to(path_of(later))
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the reader is back\n" in rest
    assert rest.endswith("card by swipe: 476173******0119\n")
