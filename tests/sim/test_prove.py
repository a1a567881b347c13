"""The search itself: that it is complete within its bounds, sees what it says, and finds nothing in what ships."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sim.cli.prove import prove
from sim.prove.bounds import QUICK, SEARCHES
from sim.prove.search import Search, without_a_way
from sim.prove.states import Bounds

PAGE = Path(__file__).parents[2] / "docs" / "proof.md"
BY_NAME = {bounds.name: bounds for bounds in SEARCHES}
SHORT = frozenset({"revoked", "offline, keys rotated"})
SMALL = Bounds("small", cuts=False, forgets=False)


def figures():
    """The table of the page: name -> (states, transitions, depth, ends)."""
    rows = re.findall(
        r"^\| ([a-z, -]+) \| ([\d,]+) \| ([\d,]+) \| (\d+) \| (\d+) \|", PAGE.read_text(), re.MULTILINE
    )
    return {name: tuple(int(figure.replace(",", "")) for figure in figures) for name, *figures in rows}


def seen(result):
    return result.states, result.transitions, result.depth, result.ends


def test_nothing_is_found_in_what_ships_within_a_small_bound():
    result = Search(SMALL).run()
    assert result.found is None
    assert result.complete
    assert result.ends > 1


def test_a_search_is_the_same_each_time():
    assert Search(SMALL).run() == Search(SMALL).run()


def test_a_search_to_a_depth_is_not_complete_and_part_of_the_whole():
    whole, part = Search(SMALL).run(), Search(SMALL).run(depth=10)
    assert not part.complete
    assert part.states < whole.states
    assert part.depth == 10


def test_a_state_without_a_way_to_an_end_is_found_backwards():
    onward = [[1, 2], [3], [2], []]  # 2 leads only to itself
    assert without_a_way(onward, ends=[3]) == 2
    assert without_a_way([[1], [2], [2]], ends=[2]) is None


def test_every_trouble_is_searched_by_somebody():
    for name, usual in Bounds._field_defaults.items():
        if name != "leaves":  # that is in every one of them
            assert {getattr(bounds, name) for bounds in SEARCHES} != {usual}, name


def test_names_are_told_apart():
    assert len(BY_NAME) == len(SEARCHES)
    assert set(QUICK) <= set(BY_NAME)


def test_the_page_has_a_row_for_every_search():
    assert list(figures()) == [bounds.name for bounds in SEARCHES]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name not in SHORT else []) for name in BY_NAME]
)
def test_nothing_is_found_in_what_ships_and_the_page_says_what_was_seen(name):
    result = Search(BY_NAME[name]).run()
    assert result.found is None
    assert result.complete
    assert seen(result) == figures()[name]


def test_the_command_says_what_it_saw():
    done = CliRunner().invoke(prove, ["--search", "revoked", "--search", "charge", "--depth", "12"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[:4]] == [
        "search",
        "revoked",
        "charge",
        "altogether",
    ]
    assert "as far as was searched" in done.output


def test_the_command_ends_with_one_object_where_it_is_asked_to():
    done = CliRunner().invoke(prove, ["--search", "revoked", "--depth", "12", "--json"])
    said = json.loads(done.output)
    assert said["holds"] is True
    (row,) = said["searches"]
    assert (row["name"], row["depth"], row["complete"]) == ("revoked", 12, False)
    assert row["states"] > 100


def test_the_command_knows_its_searches():
    done = CliRunner().invoke(prove, ["--search", "nothing"])
    assert done.exit_code == 2
    assert "there are: 'charge'" in done.output
