"""The tables: complete, closed, reachable, and drawn as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.diagrams import PAGE, page
from terminal.activation import ACTIVATION, CALLS_LEFT, WAYS_BACK, Level, Step
from terminal.errors import IllegalEvent
from terminal.payment import OPEN, OUTCOMES, PAYMENT, TAKEN, WITHOUT_EFFECT, Happened, Outcome, State

MACHINES = [(ACTIVATION, Level, Step), (PAYMENT, State, Happened)]


@pytest.mark.parametrize(("machine", "states", "events"), MACHINES)
def test_every_state_has_a_row_and_every_event_a_use(machine, states, events):
    assert set(machine.table) == set(states)
    assert {event for row in machine.table.values() for event in row} == set(events)


@pytest.mark.parametrize(("machine", "states", "events"), MACHINES)
def test_every_state_can_be_reached_from_the_start(machine, states, events):
    reached, fresh = {machine.start}, [machine.start]
    while fresh:
        for after in machine.table[fresh.pop()].values():
            if after not in reached:
                reached.add(after)
                fresh.append(after)
    assert reached == set(states)


@given(st.sampled_from([(m, s, e) for m, states, events in MACHINES for s in states for e in events]))
def test_a_step_follows_the_table_or_names_what_was_wrong(case):
    machine, state, event = case
    if event in machine.table[state]:
        assert machine.step(state, event) is machine.table[state][event]
    else:
        with pytest.raises(IllegalEvent) as caught:
            machine.step(state, event)
        assert (caught.value.machine, caught.value.state, caught.value.event) == (machine.name, state, event)
        assert all(word in str(caught.value) for word in (machine.name, state, event))


def test_every_level_above_unprovisioned_can_climb_to_activated():
    for level in set(Level) - {Level.UNPROVISIONED, Level.ACTIVATED}:
        seen, fresh = {level}, [level]
        while fresh:
            for after in ACTIVATION.table[fresh.pop()].values():
                if after not in seen:
                    seen.add(after)
                    fresh.append(after)
        assert Level.ACTIVATED in seen, level


def test_ways_back_never_lead_forward():
    order = list(Level)
    for row_level, row in ACTIVATION.table.items():
        for step in {*WAYS_BACK.values(), Step.CODE_EXPIRED} & set(row):
            assert order.index(row[step]) <= order.index(row_level)


def test_levels_that_need_the_token_know_that_it_can_expire():
    assert all(Step.TOKEN_EXPIRED in ACTIVATION.table[level] for level in CALLS_LEFT)


def test_a_payment_is_open_taken_without_effect_or_a_loss_and_only_one_of_them():
    losses = {State.LOST, State.FAILED}
    parts = [OPEN, TAKEN, WITHOUT_EFFECT, losses]
    assert set(State) == set.union(*map(set, parts))
    assert sum(map(len, parts)) == len(State)
    assert set(OUTCOMES) == set(State)


def test_money_that_was_taken_is_never_forgotten():
    """No event leads from a taken payment to one without effect, nor back into doubt: at most to its reversal."""
    for state in TAKEN:
        assert set(PAYMENT.table[state].values()) <= TAKEN | {State.REVERSING, State.FAILED}


def test_a_payment_whose_shopper_has_left_can_only_end_as_one_that_does_not_stand():
    reached, found = set(), {State.ABANDONED}
    while found:
        state = found.pop()
        reached.add(state)
        found |= set(PAYMENT.table[state].values()) - reached
    assert {OUTCOMES[state] for state in reached - {State.ABANDONED}} == {Outcome.DECLINED}


def test_the_drawn_page_is_not_stale():
    assert Path(PAGE).read_text() == page(), "run: python scripts/diagrams.py"
