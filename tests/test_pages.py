"""What the pages for users name has to be there: every rule's test, every setting, every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from terminal.cli.commands import OWN
from tests.test_conformance import SETTINGS, a_test_is_there

ROOT = Path(__file__).parent.parent
RULES = "tests/terminal/test_rules.py"
PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
FROM_SIM = frozenset({"host", "swipe", "soak", "prove"})


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of the tables whose first column has that name."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if inside and cells and set(line) - set("|- "):
            found.append(cells)
        inside = bool(cells) and (inside or cells[0] == first)
    return found


def place(name: str) -> str:
    """A test of the recovery page as the conformance page would name it."""
    if name.endswith(".py") or ".py::" in name:
        return f"tests/terminal/{name}"
    return f"{RULES}::{name}"


RECOVERY = rows(page("docs/recovery.md"), "rule")


@pytest.mark.parametrize("row", RECOVERY, ids=[row[0][:60] for row in RECOVERY])
def test_a_rule_of_recovery_names_tests_that_are_there(row: list[str]) -> None:
    rule, tested = row
    assert rule
    assert codes(tested)
    assert [name for name in codes(tested) if not a_test_is_there(place(name))] == []


def test_the_rules_were_found() -> None:
    assert len(RECOVERY) == page("docs/recovery.md").count("` |\n") > 30


def test_every_setting_has_its_row_and_every_row_a_setting() -> None:
    named = set()
    for cells in rows(page("docs/operations.md"), "setting"):
        named |= {f"host{name}" if name.startswith(".") else name for name in codes(cells[0])}
    assert named == SETTINGS - {"host", "keys", "lab", "home"}


def test_every_command_of_a_device_has_its_row() -> None:
    named = {name.split()[0] for cells in rows(page("docs/operations.md"), "command") for name in codes(cells[0])}
    assert {command.partition(" ")[0] for command in OWN} - named == set()


@pytest.mark.parametrize("name", PAGES)
def test_a_command_that_is_named_is_there(name: str) -> None:
    text = page(name)
    said = [code for code in codes(text) if code.startswith("till ")]
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        said += [line for line in block.splitlines() if line.startswith("till ")]
    words = {words[1] for line in said if (words := line.split())[1:] and not words[1].startswith("-")}
    known = {command.partition(" ")[0] for command in OWN} | FROM_SIM
    assert words - known - {"COMMAND"} == set()
