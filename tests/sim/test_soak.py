"""A day as data, drawn and shrunk; lived twice; and what the command says of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sim.cli import soak as command
from sim.soak import day as of
from sim.soak import run
from sim.soak.day import Day, DayError, decode, encode
from sim.soak.everything import EVERYTHING, NEXT
from sim.soak.evidence import Violation
from sim.soak.history import History, Secrets
from sim.soak.plan import planned
from sim.soak.shrink import shrunk


class TestADayAsData:
    def test_it_is_the_same_for_the_same_seed_and_another_for_another(self) -> None:
        assert planned(7, 300) == planned(7, 300)
        assert planned(7, 300).steps != planned(8, 300).steps

    def test_it_has_so_many_payments(self) -> None:
        assert planned(7, 321).payments == 321

    @given(seed=st.integers(0, 2**32), payments=st.integers(1, 40), lookup=st.booleans())
    def test_written_and_read_again_it_is_the_same(self, seed: int, payments: int, lookup: bool) -> None:
        day = planned(seed, payments, lookup=lookup)
        assert decode(encode(day)) == day

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"[]",
            b'{"seed": 1}',
            b'{"seed": 1, "steps": [{"do": "explode"}]}',
            b'{"seed": 1, "steps": [{"do": "wait", "seconds": -1}]}',
            b'{"seed": 1, "steps": [{"do": "wait", "seconds": 1, "why": "?"}]}',
            b"[" * 5000,
            b"\xff",
        ],
    )
    def test_what_is_no_day_is_refused(self, text: bytes) -> None:
        with pytest.raises(DayError):
            decode(text)

    def test_every_kind_of_trouble_comes_as_often_as_it_should(self) -> None:
        day = planned(3, 2000)
        troubles = [step for step in day.steps if isinstance(step, of.Trouble)]
        expected = 2000 * sum(kind.often for kind in EVERYTHING)
        assert abs(len(troubles) - expected) < len(EVERYTHING)
        assert NEXT not in str(troubles)

    def test_every_fault_and_every_cut_has_its_place_in_the_table(self) -> None:
        planned_for = {rule["do"] for kind in EVERYTHING for rule in (*kind.rules, *kind.disk)}
        assert planned_for == run.FAULT_KINDS

    def test_a_wrong_amount_is_never_planned_for_one_that_is_approved_in_part(self) -> None:
        steps = planned(3, 4000).steps
        wrong = {
            rule["match"].get("amount")
            for step in steps
            if isinstance(step, of.Trouble)
            for rule in step.rules or ()
            if rule["do"] == "other_amount"
        } - {None}
        assert wrong
        assert not any(minor % 100 == 30 for minor in wrong)


class TestShrinking:
    @staticmethod
    def day(size: int) -> Day:
        return Day(seed=1, steps=[of.Charge(reference=f"r{n}", minor=100) for n in range(size)])

    @given(size=st.integers(2, 60), data=st.data())
    def test_only_what_it_takes_is_left(self, size: int, data: st.DataObject) -> None:
        needed = {f"r{n}" for n in data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=3))}

        def fails(day: Day) -> bool:
            return needed <= {step.reference for step in day.steps if isinstance(step, of.Charge)}

        short = shrunk(self.day(size), fails, about=min(needed), tries=10_000)
        assert {step.reference for step in short.steps if isinstance(step, of.Charge)} == needed

    def test_where_nothing_shorter_fails_the_day_stays(self) -> None:
        day = self.day(20)
        assert shrunk(day, lambda shorter: False) == day

    def test_it_gives_up_after_so_many_days(self) -> None:
        tried = []

        def fails(day: Day) -> bool:
            tried.append(day)
            return False

        shrunk(self.day(500), fails, tries=17)
        assert len(tried) == 17


class TestSecrets:
    def test_they_are_found_in_any_case_and_in_bytes(self) -> None:
        secrets = Secrets(["4111111111111111", "ABCDEF0123"])
        assert secrets.within("pan 4111111111111111.")
        assert secrets.within(b"\x00abcdef0123\xff")
        assert not secrets.within("411111******1111")

    def test_a_line_with_one_is_noted_and_not_written(self) -> None:
        file = io.StringIO()
        history = History(file)
        history.secrets = Secrets(["4111111111111111"])
        history.add(1.0, "till", "says", pan="4111111111111111")
        assert history.leaks == ["line 1 of the history (till says)"]
        assert "4111111111111111" not in file.getvalue()


class TestADayLived:
    def test_the_same_seed_is_the_same_history_to_the_byte(self) -> None:
        day = planned(7, 120)
        histories = []
        for _ in range(2):
            file = io.StringIO()
            run.lived(day, file=file)
            histories.append(file.getvalue())
        assert histories[0].count("\n") > 500
        assert histories[0] == histories[1]

    def test_another_seed_is_another_day(self) -> None:
        one, two = (run.lived(planned(seed, 30)).report.history_sha256 for seed in (1, 2))
        assert one != two

    @pytest.mark.parametrize("seed", range(20, 24))
    def test_nothing_is_violated(self, seed: int) -> None:
        done = run.lived(planned(seed, 250))
        assert [str(one) for one in done.violations] == []
        assert done.report.payments == 250
        assert sum(done.report.faults.values()) > 20
        assert sum(done.report.power_cuts.values()) > 3

    def test_nor_where_the_host_offers_no_look_ups(self) -> None:
        assert [str(one) for one in run.lived(planned(31, 250, lookup=False)).violations] == []

    @pytest.mark.long
    @pytest.mark.parametrize("seed", [7, 8])
    def test_nor_in_a_longer_day(self, seed: int) -> None:
        assert [str(one) for one in run.lived(planned(seed, 2500)).violations] == []

    def test_a_refund_is_looked_at_again_though_the_clock_was_a_day_ahead_at_the_start(self) -> None:
        steps = [
            of.ClockJump(seconds=-90_000.0),
            of.Wait(seconds=600.0),
            of.Charge(reference="r", minor=3645),  # an amount whose refunds fail later
            of.Refund(reference="r", name="all"),
            of.PowerOff(),
        ]
        done = run.lived(Day(seed=1, steps=steps))
        assert done.violations == []
        assert done.happened["refund failed"] == 1

    def test_what_happened_too_rarely_is_named(self) -> None:
        often = dict.fromkeys(run.FAULT_KINDS, run.AT_LEAST)
        cuts = dict.fromkeys(run.CUT_POINTS, run.AT_LEAST)
        assert run.missing(often, cuts) == []
        assert run.missing(often | {"cut": 19}, cuts) == ["fault cut: 19"]
        del cuts["commit.during"]
        assert run.missing(often, cuts) == ["cut commit.during: 0"]


class TestTheCommand:
    def test_json_is_one_object_and_exit_code_0(self) -> None:
        done = CliRunner().invoke(
            command.soak, ["--seed", "5", "--payments", "20", "--faults", "nothing", "--json"]
        )
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert report["payments"] == 20
        assert report["violations"] == []
        assert report["faults"] == {}
        assert report["seed"] == 5
        assert {"power_cuts", "simulated_hours", "seconds", "payments_per_second"} <= report.keys()

    def test_another_process_has_the_same_history(self) -> None:
        """Sets and dictionaries of strings are in another order there, and the day lives in another folder."""
        words = ["--seed", "7", "--payments", "120", "--json", "--no-shrink"]
        program = f"from sim.cli.soak import soak; soak({words!r})"
        told = set()
        for hashes in ("1", "2"):
            environment = os.environ | {"PYTHONHASHSEED": hashes}
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
            told.add(json.loads(done.stdout)["history_sha256"])
        assert len(told) == 1

    def test_history_and_replay(self, tmp_path: Path) -> None:
        day, first, second = tmp_path / "day.json", tmp_path / "one", tmp_path / "two"
        day.write_bytes(encode(planned(5, 25)))
        for file in (first, second):
            done = CliRunner().invoke(command.soak, ["--replay", str(day), "--history", str(file)])
            assert done.exit_code == 0, done.output
        assert first.read_bytes() == second.read_bytes()
        assert first.read_text().startswith("0.000 ")

    def test_rules_of_ones_own(self, tmp_path: Path) -> None:
        rules = tmp_path / "rules.toml"
        rules.write_text('[[rules]]\ndo = "drop_answer"\nmatch = {call = "charge", probability = 0.3}\n')
        done = CliRunner().invoke(command.soak, ["--payments", "40", "--faults", str(rules), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["faults"]["drop_answer"] > 3

    def test_a_typo_in_the_rules_is_refused(self, tmp_path: Path) -> None:
        rules = tmp_path / "rules.json"
        rules.write_text('{"rules": [{"do": "drop_anser"}]}')
        done = CliRunner().invoke(command.soak, ["--faults", str(rules)])
        assert done.exit_code == 1
        assert f"{rules}: faults: rules[0].do: 'drop_anser' is unknown (one of " in done.output

    def test_rules_for_a_line_are_refused_where_there_is_none(self, tmp_path: Path) -> None:
        rules = tmp_path / "rules.toml"
        rules.write_text('[[line]]\ndo = "double"\n')
        done = CliRunner().invoke(command.soak, ["--faults", str(rules)])
        assert (done.exit_code, "'line' is not for a soak" in done.output) == (1, True)

    def test_a_history_that_cannot_be_written_is_told_before_the_day_begins(self, tmp_path: Path) -> None:
        file = tmp_path / "none" / "history"
        done = CliRunner().invoke(command.soak, ["--payments", "1", "--history", str(file)])
        assert (done.exit_code, str(file) in done.output) == (2, True)

    def test_a_violation_is_told_shrunk_and_written_as_a_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(run, "violations", lambda seen: [Violation("rule", "r3", "said")])
        done = CliRunner().invoke(command.soak, ["--seed", "9", "--payments", "10", "--faults", "nothing"])
        assert done.exit_code == 1
        assert "VIOLATED rule: r3: said" in done.output
        assert "till soak --replay soak-9.json" in done.output
        assert len(decode((tmp_path / "soak-9.json").read_bytes()).steps) == 1

    def test_what_is_too_rare_is_another_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run, "ENOUGH", 5)
        done = CliRunner().invoke(command.soak, ["--seed", "9", "--payments", "5"])
        assert done.exit_code == 4
        assert "too rare: fault cut: 0" in done.output
