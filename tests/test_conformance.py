"""The conformance page names modules, functions, settings and tests: each of them must be there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import msgspec
import pytest

from terminal.settings import Settings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "conformance.md"
TEXT = PAGE.read_text(encoding="utf-8")

CHOICES = ["What we chose", "Where"]
HEADER = ["What", "", "Implemented in", "Tested by", "If it proves wrong, change"]

_CODE = re.compile(r"`([^`]+)`")
_TEST = re.compile(r"tests/[\w/]+\.py(::\w+)*")
_NAME = re.compile(r"(terminal|hw|sim)(\.\w+)+")
_FILE = re.compile(r"(terminal|hw|sim|docs|scripts)/[\w/.]+")


def settings_names() -> frozenset[str]:
    """``answer_skew``, ``host.url``...: every setting as one writes it."""
    names = set()
    for field in msgspec.structs.fields(Settings):
        names.add(field.name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            names |= {f"{field.name}.{inner.name}" for inner in msgspec.structs.fields(field.type)}
    return frozenset(names)


SETTINGS = settings_names()


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a source file defines, without importing it: ``name``, and ``Class.name`` for what is in a class."""
    return frozenset(_defined(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> list[str]:
    names: list[str] = []
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                names.append(prefix + node.name)
            case ast.ClassDef():
                names += [prefix + node.name, *_defined(node.body, f"{prefix}{node.name}.")]
            case ast.Assign():
                names += [prefix + target.id for target in node.targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(prefix + name)
    return names


def source_is_there(name: str) -> bool:
    """Whether ``terminal.hosts.auth.TerminalAuth.auth_flow``, or the module alone, exists."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:cut]).with_suffix(".py")
        if path.is_file():
            return cut == len(parts) or ".".join(parts[cut:]) in names_in(path)
    return False


def a_test_is_there(name: str) -> bool:
    file, _, inner = name.partition("::")
    path = ROOT / file
    return path.is_file() and (not inner or inner.replace("::", ".") in names_in(path))


def is_reference(code: str) -> bool:
    return code in SETTINGS or bool(_NAME.fullmatch(code))


def rows(header: list[str]) -> list[list[str]]:
    """The rows of all tables with this header, as lists of cells."""
    found, inside = [], False
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells == header:
            inside = True
        elif inside and set(line) - set("|-"):
            found.append(cells)
    return found


ROWS, CHOSEN = rows(HEADER), rows(CHOICES)
CODES = sorted(set(_CODE.findall(re.sub(r"```.*?```", "", TEXT, flags=re.S))))


@pytest.mark.parametrize("name", [code for code in CODES if _TEST.fullmatch(code)])
def test_a_test_that_is_named_is_there(name: str) -> None:
    assert a_test_is_there(name)


@pytest.mark.parametrize("name", [code for code in CODES if _NAME.fullmatch(code)])
def test_a_name_in_the_source_is_there(name: str) -> None:
    assert source_is_there(name)


@pytest.mark.parametrize("name", [code for code in CODES if re.fullmatch(r"(host|keys|lab)\.\w+", code)])
def test_a_setting_is_there(name: str) -> None:
    assert name in SETTINGS


@pytest.mark.parametrize("name", [code for code in CODES if _FILE.fullmatch(code)])
def test_a_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("page", re.findall(r"\]\(([\w./-]+)\)", TEXT))
def test_a_page_that_is_linked_is_there(page: str) -> None:
    assert (PAGE.parent / page).is_file()


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_a_row_says_where_it_is_done_where_it_is_tested_and_what_to_change(row: list[str]) -> None:
    assert len(row) == len(HEADER)
    what, kind, done, tested, change = row
    assert what
    assert kind in ("D", "A")
    assert _CODE.findall(done)
    assert all(is_reference(code) for code in _CODE.findall(done))
    assert _CODE.findall(tested)
    assert all(_TEST.fullmatch(code) and "::" in code for code in _CODE.findall(tested))
    assert all(is_reference(code) for code in _CODE.findall(change))
    assert bool(_CODE.findall(change)) == (kind == "A")


@pytest.mark.parametrize("row", CHOSEN, ids=[row[0][:60] for row in CHOSEN])
def test_a_choice_says_where_it_is_made(row: list[str]) -> None:
    assert len(row) == len(CHOICES)
    assert _CODE.findall(row[1])
    assert all(is_reference(code) for code in _CODE.findall(row[1]))


def test_the_rows_were_found() -> None:
    """Should the tables be written in another way one day, these tests must not fall silent."""
    assert TEXT.count("| D |") + TEXT.count("| A |") == len(ROWS)
    assert {row[1] for row in ROWS} == {"D", "A"}
    assert CHOSEN


@pytest.mark.parametrize("name", ["tests/nothing.py::test_x", "tests/test_conformance.py::test_nothing"])
def test_a_test_that_is_gone_is_noticed(name: str) -> None:
    assert not a_test_is_there(name)


@pytest.mark.parametrize("name", ["terminal.nothing", "terminal.clock.nothing", "terminal.clock.HostClock.nothing"])
def test_a_name_that_is_gone_is_noticed(name: str) -> None:
    assert not source_is_there(name)
