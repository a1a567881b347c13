"""The bench's own arithmetic and its output. Nothing here depends on how fast anything is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.measure import Figure, Samples, alternate, compare, repeats_in
from tests.bench.start_lines import HEAVY, imported

FIELDS = ["name", "ours", "theirs", "unit", "ratio", "bound", "holds"]


class Clock:
    """Time that passes only when the work says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def figure(name="a_line", ours=1.0, theirs=4.0, bound=None):
    return Figure(name=name, ours=ours, theirs=theirs, unit="us", bound=bound, about="one / another")


def test_the_sides_alternate_and_each_batch_is_divided_by_its_operations():
    clock, order = Clock(), []

    def side(name, seconds):
        def work():
            order.append(name)
            clock.now += seconds

        return work

    samples = alternate({"a": side("a", 3.0), "b": side("b", 6.0)}, operations=3, rounds=4, clock=clock)
    assert "".join(order) == "ab" + "abbaabba"  # the first of each only warms up
    assert samples.seconds == {"a": [1.0] * 4, "b": [2.0] * 4}


def test_short_work_is_repeated_until_it_can_be_seen():
    clock = Clock()

    def work():
        clock.now += 0.001

    assert repeats_in(work, 0.02, clock) == 20
    assert repeats_in(work, 0.0001, clock) == 1


def test_compare_runs_both_sides_as_often_as_it_says():
    runs = {"a": 0, "b": 0}

    def side(name):
        def work():
            runs[name] += 1

        return work

    samples = compare({"a": side("a"), "b": side("b")}, rounds=3, batch=0.0005)
    assert [len(found) for found in samples.seconds.values()] == [3, 3]
    assert min(runs.values()) >= 3


def test_a_figure_is_the_pair_whose_ratio_is_the_median():
    # A machine that turned slow in the middle: each pair suffers alike, and the ratio stays what it is.
    samples = Samples({"a": [1.0, 10.0, 2.0, 11.0, 1.0], "b": [2.0, 20.0, 1.0, 20.0, 4.0]})
    found = samples.figure("x", "a", "b", bound=0.5)
    assert found.ratio == 0.5
    assert (found.ours, found.theirs) in {(1e6, 2e6), (10e6, 20e6)}
    assert found.spread is not None
    assert found.spread[0] < 0.5 < found.spread[1]
    assert found.holds


def test_a_bound_holds_up_to_itself_and_no_bound_always():
    assert figure(ours=1, theirs=4, bound=0.25).holds
    assert not figure(ours=1.01, theirs=4, bound=0.25).holds
    assert figure(ours=400, theirs=4).holds


def test_json_is_one_object_a_line_with_these_fields(capsys):
    lines = {"one": lambda: [figure(bound=0.5), figure("b")], "two": lambda: [figure("c")]}
    assert bench.main(["--json"], lines) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(each) for each in told] == [FIELDS] * 3
    assert told[0] == {
        "name": "a_line",
        "ours": 1.0,
        "theirs": 4.0,
        "unit": "us",
        "ratio": 0.25,
        "bound": 0.5,
        "holds": True,
    }
    assert told[1]["bound"] is None
    assert told[1]["holds"] is True


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_bound_that_does_not_hold_is_exit_code_1_and_stops_nothing(capsys, form):
    lines = {"one": lambda: [figure(bound=0.1)], "two": lambda: [figure("after")]}
    assert bench.main(form, lines) == 1
    out = capsys.readouterr().out
    assert "after" in out
    assert '"holds": false' in out or "DOES NOT HOLD" in out


def test_only_runs_what_it_names(capsys):
    lines = {"one": lambda: [figure("first")], "two": lambda: [figure("second")]}
    assert bench.main(["--only", "two"], lines) == 0
    assert "first" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--only", "three"], lines)
    assert stopped.value.code == 2


def test_the_table_shows_name_ratio_spread_and_what_is_compared():
    shown = Samples({"a": [1e-6] * 5, "b": [4e-6] * 5}).figure("x", "a", "b", bound=0.5, about="one / another")
    assert re.search(r"x +1 +4 +us +0\.250 +0\.25 to 0\.25 +0\.5 holds\n +one / another", bench.row(shown))


def test_what_a_script_imports_is_seen(tmp_path: Path):
    script = tmp_path / "script"
    script.write_text("import json, wave\n")
    names = imported(str(script))
    assert {"json", "json.decoder", "wave"} <= set(names)
    assert not HEAVY.intersection(names)
