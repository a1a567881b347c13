from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.virtual_time import EPOCH
from terminal.clock import LATEST, NEAR, RELEASED, HostClock, Verdict, parse_rfc3339, rfc3339, system_steady

NOON = datetime(2025, 12, 13, 12, 0, tzinfo=UTC)


def test_the_hosts_clock_is_followed_and_the_move_is_told():
    clock = HostClock(lambda: NOON)
    assert clock.follow(NOON + timedelta(hours=1)) == (Verdict.MOVED, timedelta(hours=1))
    assert clock.now() == NOON + timedelta(hours=1)
    assert clock.follow(NOON + timedelta(minutes=59)) == (Verdict.MOVED, timedelta(minutes=-1))
    assert clock.now() == NOON + timedelta(minutes=59)


def test_moments_are_written_in_utc_and_whole_seconds():
    athens = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2025, 12, 13, 14, 25, 30, 999, tzinfo=athens)) == "2025-12-13T12:25:30Z"


@given(st.integers(0, 2**32))
def test_what_is_written_is_read_back(seconds):
    moment = datetime.fromtimestamp(seconds, UTC)
    assert parse_rfc3339(rfc3339(moment)) == moment


@pytest.mark.parametrize("text", ["2025-12-13T14:25:30", "yesterday", ""])
def test_a_moment_without_a_zone_is_refused(text):
    with pytest.raises(ValueError):
        parse_rfc3339(text)


HOUR = timedelta(hours=1)
YEAR = timedelta(days=365)


class Device:
    """A device's clock, which can be wrong, and a steady one, which cannot."""

    def __init__(self, now=NOON + YEAR):
        self.wall, self.steady = now, 100.0

    def pass_(self, seconds):
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds

    def clock(self, **words):
        return HostClock(lambda: self.wall, steady=lambda: self.steady, **({"floor": RELEASED} | words))


def test_this_program_is_older_than_the_world_it_is_tried_in():
    assert RELEASED < EPOCH < LATEST


def test_a_step_is_followed_at_once_and_more_than_that_only_when_it_is_said_twice():
    device = Device()
    clock = device.clock()
    assert clock.follow(device.wall + HOUR).verdict is Verdict.MOVED
    far = clock.now() + 3 * HOUR
    assert clock.follow(far) == (Verdict.ONCE, 3 * HOUR)
    assert clock.now() == far - 3 * HOUR
    device.pass_(60)
    assert clock.follow(far + timedelta(minutes=1)) == (Verdict.MOVED, 3 * HOUR)
    assert clock.now() == far + timedelta(minutes=1)


def test_two_answers_that_do_not_agree_move_nothing():
    device = Device()
    clock = device.clock()
    before = clock.now()
    for hours in (5, 7, 9, 5):
        assert clock.follow(device.wall + hours * HOUR).verdict is Verdict.ONCE
    assert clock.now() == before


def test_an_old_answer_that_is_heard_once_more_later_is_not_the_same_answer():
    device = Device()
    clock = device.clock()
    said = device.wall - 5 * HOUR
    assert clock.follow(said).verdict is Verdict.ONCE
    device.pass_(3600)
    assert clock.follow(said).verdict is Verdict.ONCE


def test_an_answer_in_between_that_is_ours_makes_the_far_one_a_stray():
    device = Device()
    clock = device.clock()
    far = device.wall + 5 * HOUR
    assert clock.follow(far).verdict is Verdict.ONCE
    assert clock.follow(device.wall).verdict is Verdict.NEAR
    assert clock.follow(far).verdict is Verdict.ONCE


def test_what_was_long_on_its_way_is_not_taken_for_late():
    device = Device()
    clock = device.clock()
    said = device.wall
    device.pass_(8)
    assert clock.follow(said, 8.0).verdict is Verdict.NEAR
    assert clock.follow(said, 2.0).verdict is Verdict.MOVED
    assert clock.now() == said + NEAR


@pytest.mark.parametrize("said", [RELEASED - timedelta(seconds=5), LATEST + YEAR, NOON - 40 * YEAR])
def test_a_time_at_which_this_program_cannot_run_is_refused_however_often_it_is_said(said):
    device = Device()
    clock = device.clock()
    for _ in range(5):
        assert clock.follow(said).verdict is Verdict.REFUSED
    assert clock.now() == device.wall


@pytest.mark.parametrize("year", [1, 9999])
def test_the_ends_of_the_calendar_are_refused(year):
    clock = Device().clock()
    assert clock.follow(datetime(year, 1, 1, tzinfo=UTC), 40.0).verdict is Verdict.REFUSED
    assert clock.follow(datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC), 40.0).verdict is Verdict.REFUSED


def test_the_floor_rises_with_what_the_host_confirms_and_stays_a_step_below():
    device = Device()
    clock = device.clock(step=HOUR)
    clock.confirm(device.wall)
    assert clock.floor == device.wall - HOUR
    assert clock.follow(device.wall - 2 * HOUR).verdict is Verdict.REFUSED
    assert clock.follow(device.wall - HOUR).verdict is Verdict.MOVED
    clock.confirm(clock.now())
    assert clock.floor == device.wall - HOUR


@pytest.mark.parametrize("jump", [-YEAR, -HOUR, timedelta(seconds=-2), timedelta(seconds=2), HOUR, 9 * YEAR])
def test_a_jump_of_the_devices_clock_moves_only_the_offset_and_is_told_once(jump):
    device = Device()
    clock = device.clock()
    before = clock.now()
    device.pass_(10)
    device.wall += jump
    assert clock.now() == before + timedelta(seconds=10)
    assert (clock.offset, clock.jumped(), clock.jumped()) == (-jump, jump, timedelta())


def test_a_process_that_stood_still_sees_no_jump():
    device = Device()
    clock = device.clock()
    before = clock.now()
    device.pass_(7 * 3600)
    assert clock.now() == before + 7 * HOUR
    assert clock.jumped() == timedelta()


@pytest.mark.parametrize("wakes", [NOON - 50 * YEAR, NOON - YEAR, LATEST + YEAR])
def test_a_device_that_wakes_in_an_impossible_year_begins_at_the_floor(wakes):
    device = Device(wakes)
    clock = device.clock()
    assert clock.now() == RELEASED
    device.pass_(60)
    assert clock.now() == RELEASED + timedelta(minutes=1)


def test_a_device_that_fell_back_goes_on_from_what_was_confirmed_last():
    device = Device()
    clock = device.clock()
    confirmed = device.wall + HOUR
    clock.restore(timedelta(), confirmed)
    assert clock.now() == confirmed
    device.pass_(60)
    assert clock.now() == confirmed + timedelta(minutes=1)


def test_a_last_record_is_where_we_begin_and_no_floor_for_the_host():
    device = Device()
    clock = device.clock()
    clock.not_before(device.wall + 30 * 24 * HOUR)
    assert clock.now() == device.wall + 30 * 24 * HOUR
    assert clock.follow(device.wall).verdict is Verdict.ONCE
    assert clock.follow(device.wall).verdict is Verdict.MOVED
    clock.not_before(LATEST + YEAR)
    assert clock.now() == device.wall


def test_the_offset_of_the_last_process_holds():
    device = Device()
    clock = device.clock()
    clock.restore(-3 * HOUR, None)
    assert clock.now() == device.wall - 3 * HOUR


moves = st.one_of(
    st.tuples(st.just("pass"), st.floats(0, 1e6)),
    st.tuples(st.just("jump"), st.floats(-1e9, 1e9)),
    st.tuples(st.just("host"), st.floats(-1e9, 1e9)),
    st.tuples(st.just("confirm"), st.just(0.0)),
)


@given(st.lists(moves, max_size=30), st.floats(60, 1e5))
def test_time_goes_back_only_where_it_is_told_never_below_the_floor_and_only_by_a_step_at_once(told, step):
    device = Device()
    clock = device.clock(step=timedelta(seconds=step))
    before, heard = clock.now(), []
    for what, seconds in told:
        verdict = None
        if what == "pass":
            device.pass_(seconds)
        elif what == "jump":
            device.wall += timedelta(seconds=seconds)
        elif what == "confirm":
            clock.confirm(clock.now())
        else:
            verdict, off = clock.follow(clock.now() + timedelta(seconds=seconds))
            if verdict is Verdict.MOVED and abs(off) > timedelta(seconds=step):
                assert abs(heard[-1] - off.total_seconds()) <= 2.001
            heard.append(off.total_seconds())
        now = clock.now()
        assert now >= clock.floor - timedelta(microseconds=1)
        assert now >= before or verdict is Verdict.MOVED
        before = now


def test_the_systems_steady_clock_does_not_go_back():
    first = system_steady()
    assert system_steady() >= first
