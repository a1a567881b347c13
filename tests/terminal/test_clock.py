from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.clock import HostClock, Verdict, parse_rfc3339, rfc3339

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
