"""The fixtures as somebody else's package uses them, by its own pytest; and what a failure reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "package_of_a_user"
INSTALLED = any(point.value == "sim.pytest_plugin" for point in entry_points(group="pytest11"))
"""Whether this environment was installed since the plugin has an entry point; else pytest is told of it."""

FAILING = """
def test_fails(till_host, till_terminal):
    till_terminal.charge("1.00", reference="r")
    assert till_host.charges() == []

def test_seed(till_seed):
    assert till_seed == 42
"""
LIGHT = """
import sys

def test_nothing_is_loaded():
    assert "sim.world" not in sys.modules
    assert "httpx" not in sys.modules
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    if not INSTALLED:
        command += ["-p", "sim.pytest_plugin"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def written(folder: Path, text: str) -> Path:
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def test_a_package_of_somebody_elses() -> None:
    done = run_pytest(PACKAGE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^7 passed", done.stdout, re.MULTILINE)


def test_a_failure_reports_the_seed_and_what_happened(tmp_path: Path) -> None:
    done = run_pytest(written(tmp_path, FAILING), "--till-seed", "42")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "again with: --till-seed 42" in done.stdout
    happened = ["card_wanted", "card_read", '"state":"in_flight"', "POST /pos/charge", '"state":"approved"']
    assert sorted(happened, key=done.stdout.index) == happened
    assert "4761739001010119" not in done.stdout


def test_who_does_not_ask_for_it_loads_nothing(tmp_path: Path) -> None:
    done = run_pytest(written(tmp_path, LIGHT))
    assert done.returncode == 0, done.stdout + done.stderr
