from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from terminal import __version__
from terminal.cli.commands import OWN
from terminal.cli.entry import main

HEAVY = {"click", "rich", "httpx", "starlette", "uvicorn", "cryptography", "asyncio", "msgspec", "serial"}


def loaded_after(*words: str) -> set[str]:
    """Which heavy modules a run of ``till`` imports."""
    program = (
        "import sys\nfrom terminal.cli.entry import main\nmain(sys.argv[1:])\n"
        "print('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, timeout=60
    )
    return HEAVY & set(done.stderr.splitlines()[-1].split())


def test_the_version_costs_no_import() -> None:
    assert loaded_after("--version") == set()


def test_help_loads_no_command() -> None:
    loaded = loaded_after("--help")
    assert loaded == {"click"}


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("--json", "status")])
def test_status_imports_neither_cryptography_nor_http(home: Path, words: tuple[str, ...]) -> None:
    loaded = loaded_after("--home", str(home), *words)
    assert not loaded & {"httpx", "starlette", "uvicorn", "cryptography", "rich", "serial"}


def test_the_journal_imports_neither_cryptography_nor_http(home: Path) -> None:
    loaded = loaded_after("--home", str(home), "journal", "--verify")
    assert not loaded & {"httpx", "starlette", "uvicorn", "cryptography", "rich", "serial"}


@pytest.mark.parametrize("name", [name for name in OWN if name not in ("status", "journal")])
def test_the_help_of_a_command_needs_neither_the_web_nor_a_picture(name: str) -> None:
    assert not loaded_after(*name.split(), "--help") & {"httpx", "starlette", "rich", "serial"}


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "terminal.cli.entry", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"till {__version__}\n")


def test_the_version_stands_anywhere_before_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "--version"]) == 0
    assert capsys.readouterr().out == f"till {__version__}\n"


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert main(["reader", "--help"]) == 0
    readers = capsys.readouterr().out
    assert "\n  Find, test and watch card readers.\n" in readers
    for name, own in OWN.items():
        group, _, last = name.rpartition(" ")
        assert f"  {last} " in (readers if group else text)
        assert own.help in (readers if group else text)
    assert "reader Find, test and watch card readers." in " ".join(text.split())
    flat = " ".join(text.split())
    assert "host Run a simulated host. Comes with tillwright[sim]." in flat
    assert "swipe Swipe a simulated card" in flat
    assert "tillwright[sim]" in text
    assert "1 declined" in text


@pytest.mark.parametrize("name", OWN)
def test_every_command_has_its_help_and_the_common_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--home", "--json", "--verbose"):
        assert text.count(f"{option} ") + text.count(f"{option}\n") == 1


def test_without_a_word_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    told = capsys.readouterr().err
    assert "\n  provision  Give this terminal" in told
    assert "?" not in told
    assert told.endswith("\ntill: no command was given\n")
    assert main(["--json", "reader"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["message"], told["exit_code"]) == ("no command was given", 2)


def test_an_unknown_command_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chrage", "12.50"]) == 2
    error = capsys.readouterr().err
    assert "'chrage'" in error
    assert "charge" in error


@pytest.mark.parametrize(
    "words",
    [
        ["--home", "HOME", "--json", "status"],
        ["status", "--home", "HOME", "--json"],
        ["--json", "status", "--home", "HOME"],
        ["--home", "HOME", "status", "--json"],
        ["--home", "/nowhere", "status", "--home", "HOME", "--json"],
    ],
)
def test_common_options_stand_before_and_after(
    home: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(home) if word == "HOME" else word for word in words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["home"] == str(home)


def test_the_home_comes_from_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILL_HOME", str(home))
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device_id"] == "POS-8F3A2C91"


@pytest.mark.parametrize("words", [["charge", "--json"], ["status", "--json", "--frob"], ["--json", "frob"]])
def test_a_usage_error_is_an_object_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["event"] == "error"
    assert told["exit_code"] == 2


# -- commands of other packages ---------------------------------------------------------------------------------


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    here = "tests.terminal.cli.extension"
    found = EntryPoints(
        EntryPoint(name, value, "till.commands")
        for name, value in {
            "plain": f"{here}:plain",
            "broken": f"{here}:broken",
            "reader emulate": f"{here}:emulate",
            "wrong": f"{here}:not_a_command",
            "bare": "tests.terminal.cli.needs_more:command",
        }.items()
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **wanted: found.select(**wanted))


@pytest.mark.usefixtures("extensions")
@pytest.mark.parametrize("words", [["plain", "--json", "-v", "--home", "/x"], ["--json", "--home", "/x", "plain"]])
def test_an_extension_takes_the_common_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == "done\n"


@pytest.mark.usefixtures("extensions")
@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["--json", "reader", "emulate", "--home", "/x"], "own=True common=True home=/x"),
        (["reader", "--json", "--home", "/x", "emulate"], "own=True common=True home=/x"),
        (["--home", "/x", "reader", "emulate", "--json"], "own=True common=False home=/x"),
        (["--home", "/x", "reader", "emulate"], "own=False common=False home=/x"),
    ],
)
def test_an_entry_point_carries_a_path_and_an_own_option_hears_what_was_said_before(
    words: list[str], own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == own


@pytest.mark.usefixtures("extensions")
def test_extensions_are_listed_without_being_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    assert main(["reader", "--help"]) == 0
    assert "bare" in top
    assert "reader" in top
    assert "emulate" not in top
    assert "emulate" in capsys.readouterr().out


@pytest.mark.usefixtures("extensions")
def test_an_entry_point_that_is_no_command_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wrong"]) == 2
    assert "not a command" in capsys.readouterr().err


@pytest.mark.usefixtures("extensions")
def test_an_extension_keeps_its_own_exit_code_but_never_says_declined(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broken", "--code", "5", "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert (told["message"], told["advice"]) == ("the line is gone", "Plug it in again.")
    assert main(["broken"]) == 2


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_the_simulator_says_what_to_install(missing: str) -> None:
    program = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom terminal.cli.entry import main\nsys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "host", "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert missing in done.stderr
    assert "pip install 'tillwright[sim]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("extensions")
def test_a_module_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bare"]) == 2
    assert "tests.terminal.cli.needs_more" in capsys.readouterr().err
