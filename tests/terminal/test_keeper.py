"""The schedule of what keeps a terminal in order: pure, told the time."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.keeper import BACKOFF_MOST, BUSY, DUTIES, IDLE_MOST, NEVER, Chore, Keeper, Seen

DAY = 86_400.0
DUTY = {duty.chore: duty for duty in DUTIES}


def keeper(seed=1, began=0.0):
    return Keeper(began, random.Random(seed).randbytes)


def live(schedule, seen, until, *, now=0.0, ends=lambda chore: True):
    """Do what is due from ``now`` on; when each chore was done. ``ends`` says whether it went well."""
    log = []
    while now < until:
        duty = schedule.due(now, seen)
        if duty is None:
            now += max(schedule.wait(now, seen), 1e-3)
            continue
        log.append((now, duty.chore))
        if ends(duty.chore):
            schedule.done(duty, now)
        else:
            schedule.failed(duty, now)
    return log


def times(log, chore):
    return [at for at, done in log if done is chore]


def test_every_chore_has_its_one_row():
    assert [duty.chore for duty in DUTIES] == list(DUTY)
    assert set(DUTY) == set(Chore)


@given(st.integers(0, 2**32))
def test_an_hour_has_its_heartbeats_at_their_interval_give_or_take_the_jitter(seed):
    beats = times(live(keeper(seed), Seen(), 3600), Chore.HEARTBEAT)
    gaps = [b - a for a, b in pairwise(beats)]
    assert beats[0] <= 5
    assert all(54 <= gap <= 66 for gap in gaps)
    assert 55 <= len(beats) <= 67


def test_two_terminals_that_wake_together_part():
    one, other = (times(live(keeper(seed), Seen(), 3600), Chore.HEARTBEAT) for seed in (1, 2))
    assert one[-1] != other[-1]


def test_configuration_and_parameters_are_looked_for_at_their_interval():
    log = live(keeper(), Seen(update_check=7200), DAY)
    for chore in (Chore.REFRESH_CONFIG, Chore.REFRESH_PARAMETERS):
        assert 11 <= len(times(log, chore)) <= 15
        assert times(log, chore)[0] <= 60


def test_an_interval_that_becomes_shorter_holds_at_once():
    schedule = keeper()
    live(schedule, Seen(heartbeat=86_400), 100)
    assert len(times(live(schedule, Seen(heartbeat=10), 200, now=100), Chore.HEARTBEAT)) >= 9


def test_keys_are_renewed_when_they_are_to_be_and_not_before():
    schedule = keeper()
    assert schedule.due(100, Seen(keys_in=0)).chore is Chore.RENEW_KEYS
    quiet = replace(Seen(heartbeat=1e6, update_check=1e6), keys_in=17)
    live(schedule, quiet, 150, now=100)
    assert schedule.wait(150, quiet) <= 17
    assert schedule.due(150, quiet) is None


def test_a_key_set_that_is_old_as_soon_as_it_comes_does_not_keep_the_host_busy():
    log = live(keeper(), Seen(keys_in=-1), 3600)
    assert len(times(log, Chore.RENEW_KEYS)) <= 3600 / DUTY[Chore.RENEW_KEYS].rest + 1


def test_a_host_that_asks_for_the_same_all_the_time_does_not_get_it_all_the_time():
    schedule, done = keeper(), 0
    for now in range(3600):
        schedule.ask(Chore.REFRESH_CONFIG)
        while (duty := schedule.due(now, Seen())) is not None:
            done += duty.chore is Chore.REFRESH_CONFIG
            schedule.done(duty, now)
    assert done <= 3600 / DUTY[Chore.REFRESH_CONFIG].rest + 1


def test_a_process_that_stood_still_for_an_hour_does_each_chore_once():
    schedule = keeper()
    live(schedule, Seen(), 600)
    woken = []
    while (duty := schedule.due(4200, Seen())) is not None:
        woken.append(duty.chore)
        schedule.done(duty, 4200)
    assert max(Counter(woken).values()) == 1
    assert {Chore.HEARTBEAT, Chore.TIDY} <= set(woken)


def test_while_a_payment_goes_on_nothing_is_due_but_a_heartbeat():
    everything = Seen(busy=True, keys_in=-1, resolve_in=0)
    log = live(keeper(), everything, 3600)
    assert {chore for _, chore in log} == {Chore.HEARTBEAT}
    schedule = keeper()
    live(schedule, everything, 100)
    assert schedule.wait(100, everything) <= BUSY


def test_a_host_that_is_lost_is_only_knocked_at():
    log = live(keeper(), Seen(host_lost=True, keys_in=-1), 3600, ends=lambda chore: chore is Chore.TIDY)
    assert {chore for _, chore in log} == {Chore.HEARTBEAT, Chore.TIDY}
    assert len(times(log, Chore.HEARTBEAT)) < 100


@pytest.mark.parametrize(
    ("seen", "chores"),
    [
        (Seen(activated=False), {Chore.TIDY}),
        (Seen(activated=False, fallen=True), {Chore.TIDY, Chore.COME_BACK}),
    ],
)
def test_a_terminal_that_is_not_activated_keeps_no_hours(seen, chores):
    assert {chore for _, chore in live(keeper(), seen, 3600)} == chores


def test_what_lies_in_the_journal_decides_when_open_payments_are_gone_on_with():
    schedule = keeper()
    assert times(live(schedule, Seen(resolve_in=NEVER), 600), Chore.RESOLVE) == []
    assert schedule.due(600, Seen(resolve_in=0, heartbeat=1e6, update_check=1e6)).chore is Chore.RESOLVE


@given(st.sampled_from(list(Chore)), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 1e6))
def test_the_wait_after_a_failure_is_never_shorter_than_a_second_and_is_bounded(chore, failures, seed, asked):
    schedule, duty = keeper(seed), DUTY[chore]
    seen = Seen(activated=chore is not Chore.COME_BACK, fallen=True, retains=False)
    for _ in range(failures):
        schedule.failed(duty, 1000)
    assert schedule.failures(chore) == failures
    waits = [next(w for w in range(1, 301) if schedule_is_due(schedule, chore, 1000 + w, seen))]
    assert not schedule_is_due(schedule, chore, 1000 + 0.99, seen)
    assert waits[0] <= BACKOFF_MOST
    schedule.failed(duty, 1000, asked)
    assert not schedule_is_due(schedule, chore, 1000 + min(asked, 3600) - 0.01, seen)
    assert schedule_is_due(schedule, chore, 1000 + 3600, seen)


def schedule_is_due(schedule, chore, now, seen):
    return schedule._at(DUTY[chore], now, seen) <= now


def test_the_ceiling_of_the_wait_doubles():
    longest = []
    for failures in (1, 2, 4, 6, 12):
        waits = []
        for seed in range(200):
            schedule = keeper(seed)
            for _ in range(failures):
                schedule.failed(DUTY[Chore.HEARTBEAT], 0)
            waits.append(schedule._courses[Chore.HEARTBEAT].not_before)
        longest.append(max(waits))
    assert longest == sorted(longest)
    assert 1 <= longest[0] <= 2 < longest[1] <= 4
    assert longest[-1] <= BACKOFF_MOST


def test_after_a_success_the_wait_begins_anew():
    schedule, duty = keeper(), DUTY[Chore.HEARTBEAT]
    for _ in range(20):
        schedule.failed(duty, 0)
    schedule.done(duty, 0)
    assert schedule.failures(Chore.HEARTBEAT) == 0
    schedule.failed(duty, 100)
    assert schedule_is_due(schedule, Chore.HEARTBEAT, 102, Seen())


def test_what_a_payment_interrupted_is_tried_again_soon():
    schedule = keeper()
    duty = schedule.due(100, Seen(keys_in=-1))
    schedule.interrupted(duty, 100)
    assert not schedule_is_due(schedule, Chore.RENEW_KEYS, 100.9, Seen(keys_in=-1))
    assert schedule_is_due(schedule, Chore.RENEW_KEYS, 102, Seen(keys_in=-1))
    assert schedule.failures(Chore.RENEW_KEYS) == 0


def test_what_is_interrupted_again_and_again_is_tried_less_and_less():
    schedule, tried, now = keeper(), 0, 100.0
    while now < 100 + 3600:
        duty = schedule.due(now, Seen(keys_in=-1))
        if duty is not None and duty.chore is Chore.RENEW_KEYS:
            schedule.interrupted(duty, now)
            tried += 1
        elif duty is not None:
            schedule.done(duty, now)
        else:
            now += 1
    assert 5 <= tried <= 60


@given(
    st.builds(
        Seen,
        activated=st.booleans(),
        fallen=st.booleans(),
        busy=st.booleans(),
        host_lost=st.booleans(),
        keys_in=st.floats(-1e6, 1e6) | st.just(NEVER),
        resolve_in=st.floats(0, 1e6) | st.just(NEVER),
        heartbeat=st.integers(1, 604_800),
        update_check=st.integers(1, 604_800),
    ),
    st.lists(st.sampled_from(list(Chore)), max_size=4),
    st.integers(0, 2**32),
)
def test_whatever_there_is_to_see_the_terminal_is_looked_at_again_within_a_minute(seen, asked, seed):
    schedule = keeper(seed)
    for chore in asked:
        schedule.ask(chore)
    for now in (0.0, 10.0, 5000.0):
        assert 0 <= schedule.wait(now, seen) <= IDLE_MOST
        duty = schedule.due(now, seen)
        assert duty is None or duty.where(seen)
        assert duty is None or not (duty.between and seen.busy)
