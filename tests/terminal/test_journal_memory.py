"""What the journal remembers for others: outcomes, doubles, children, marks, totals; and what it forgets."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal import journal_tables
from terminal.errors import IllegalEvent, JournalDamaged, JournalError
from terminal.journal import Care, Journal, SealedRequest
from terminal.journal_care import set_aside
from terminal.payment import OPEN, PAYMENT, SENT_FROM_HERE, Happened, Kind, State
from terminal.totals import Bucket, Total
from tests.terminal.test_journal import NOON, REQUEST, approve, charge, copied, related, wal_end

DAY = timedelta(days=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path):
    journal = Journal.create(path, "j1")
    yield journal
    journal.close()


def reopened(journal, path):
    journal.close()
    return Journal.open(path, "j1")


def scheme(masked_pan):
    return "visa" if masked_pan.startswith("4") else "other"


# -- questions ------------------------------------------------------------------------------------------------


def test_every_open_state_is_unresolved_in_memory_and_in_the_table(journal, path):
    ways = {
        State.IN_FLIGHT: (),
        State.IN_DOUBT: (Happened.SILENT,),
        State.PENDING: (Happened.PENDING,),
        State.HELD: (Happened.HELD,),
        State.ABANDONED: (Happened.LEFT,),
        State.REVERSING: (Happened.LEFT, Happened.APPROVED),
        State.OFFLINE: (Happened.STORED,),
        State.FORWARDING: (Happened.STORED, Happened.FORWARDED),
    }
    assert set(ways) == OPEN
    for number, way in enumerate(ways.values(), start=1):
        payment = journal.begin(charge(number), REQUEST)
        for happened in way:
            journal.record(payment.id, happened, NOON)
    approve(journal, journal.begin(charge(99), REQUEST))
    assert [p.state for p in journal.unresolved()] == list(ways)
    with closing(reopened(journal, path)) as again:
        assert [p.state for p in again.unresolved()] == list(ways)
        kept = {p.state for p in again.unresolved() if again.request(p.id) == REQUEST}
        assert kept == SENT_FROM_HERE


def test_what_the_host_has_answered_is_not_kept_however_long_it_stays_open(journal, path):
    """Nothing of the card after authorisation, not even sealed (PCI DSS 3.3.1)."""
    ways = {
        State.PENDING: (Happened.PENDING,),
        State.HELD: (Happened.HELD,),
        State.REVERSING: (Happened.LEFT, Happened.APPROVED),
        State.APPROVED: (Happened.STORED, Happened.FORWARDED, Happened.APPROVED),
    }
    for number, way in enumerate(ways.values(), start=1):
        payment = journal.begin(charge(number), REQUEST)
        for happened in way:
            assert journal.request(payment.id) == REQUEST
            payment = journal.record(payment.id, happened, NOON)
        assert journal.request(payment.id) is None
        assert journal._store._put is None
    with closing(reopened(journal, path)) as again:
        assert {again.payment(charge(number).id).state for number in range(1, 5)} == set(ways)
        assert [again.request(charge(number).id) for number in range(1, 5)] == [None] * 4


def test_the_request_of_this_moment_is_that_of_one_payment_and_of_one_sealing(journal):
    begun = journal.begin(charge(1), REQUEST)
    assert journal.request(begun.id) is REQUEST
    journal.record(begun.id, Happened.SILENT, NOON)
    other = SealedRequest("ks_2", REQUEST.body)
    later = journal.begin(charge(2), other)
    assert (journal.request(later.id), journal.request(begun.id)) == (other, REQUEST)
    with pytest.raises(JournalError, match="has begun already"):
        journal.begin(charge(2), REQUEST)
    assert (journal.request(later.id), journal.request(begun.id)) == (other, REQUEST)


def test_payments_are_counted_by_kind_and_what_they_concern(journal, path):
    first = approve(journal, journal.begin(charge(1), REQUEST))
    journal.begin(replace(charge(2), reference="order-1"), REQUEST)
    journal.begin(related(Kind.REFUND, first, 100, 3), REQUEST)

    def counts(book):
        asked = ((Kind.CHARGE, "order-1"), (Kind.REFUND, "ch_1"), (Kind.CANCEL, "ch_1"), (Kind.REFUND, ""))
        return [book.count(kind, of) for kind, of in asked]

    assert counts(journal) == [2, 1, 0, 0]
    with closing(reopened(journal, path)) as again:
        assert counts(again) == [2, 1, 0, 0]


def test_the_same_card_and_amount_is_found_within_the_window(journal):
    card = {"card": "ab" * 16}
    journal.begin(replace(charge(1), **card, created_at=NOON), REQUEST)
    journal.begin(replace(charge(2), card="cd" * 16, created_at=NOON + timedelta(seconds=10)), REQUEST)
    journal.begin(replace(charge(3, 999), **card, created_at=NOON + timedelta(seconds=20)), REQUEST)
    journal.tidy(whole=True)
    journal.begin(replace(charge(4), **card, created_at=NOON + timedelta(seconds=30)), REQUEST)

    def found(since):
        return [p.reference for p in journal.recent("ab" * 16, charge().amount, NOON + timedelta(seconds=since))]

    assert found(0) == ["order-4", "order-1"]
    assert found(1) == ["order-4"]
    assert found(31) == []
    assert list(journal.recent("", charge().amount, NOON)) == []


def test_outcomes_are_given_again_until_they_are_acknowledged(journal, path):
    paid = approve(journal, journal.begin(charge(1), REQUEST))
    pending = journal.begin(charge(2), REQUEST)
    journal.record(pending.id, Happened.SILENT, NOON)
    journal = reopened(journal, path)
    assert journal.outcomes() == [paid]
    journal.acknowledge([paid.id, pending.id, "nobody"])
    assert journal.outcomes() == []
    declined = journal.record(pending.id, Happened.DECLINED, NOON)
    assert [record.acknowledged for record in journal.records()] == [(), (), (), (), (paid.id,)]
    with closing(Journal.read(path)) as other:
        assert other.outcomes() == [declined]
    journal.acknowledge([declined.id])
    journal = reopened(journal, path)
    assert journal.outcomes() == []
    journal.close()


def test_an_acknowledgement_makes_no_record_and_a_power_cut_only_repeats_the_outcome(journal, path, tmp_path):
    paid = approve(journal, journal.begin(charge(1), REQUEST))
    before = wal_end(path)
    journal.acknowledge([paid.id])
    assert wal_end(path) == before
    with closing(Journal.open(copied(path, tmp_path))) as cut:
        assert cut.outcomes() == [paid]


def test_what_the_till_asked_for_is_no_news_and_what_it_did_not_is(journal):
    paid = approve(journal, journal.begin(charge(1), REQUEST))
    journal.acknowledge([paid.id])
    cancel = journal.begin(related(Kind.CANCEL, paid, 1250, 2), None)
    done = journal.record(cancel.id, Happened.APPROVED, NOON)
    assert journal.outcomes() == [done]
    journal.acknowledge([done.id])
    stored = journal.begin(charge(3), REQUEST)
    stored = journal.record(stored.id, Happened.STORED, NOON)
    assert journal.outcomes() == [stored]
    journal.acknowledge([stored.id])
    journal.record(stored.id, Happened.FORWARDED, NOON)
    lost = journal.record(stored.id, Happened.DECLINED, NOON)
    assert lost.state is State.LOST
    assert journal.outcomes() == [lost]
    held = journal.begin(charge(4), REQUEST)
    journal.record(held.id, Happened.HELD, NOON)
    journal.acknowledge([lost.id, held.id])
    voided = journal.record(held.id, Happened.VOIDED, NOON)
    assert journal.outcomes() == [voided]


# -- children -------------------------------------------------------------------------------------------------


def test_a_refund_that_fails_later_is_taken_off_its_charge(journal, path):
    paid = approve(journal, journal.begin(charge(1), REQUEST))
    refunds = []
    for number, minor in ((2, 1000), (3, 250)):
        refund = journal.begin(related(Kind.REFUND, paid, minor, number), REQUEST)
        refunds.append(journal.record(refund.id, Happened.APPROVED, NOON, refund_id=f"rf_{number}"))
    assert journal.payment(paid.id).state is State.REFUNDED
    journal.record(refunds[0].id, Happened.FAILED, NOON)
    now = journal.payment(paid.id)
    assert (now.state, now.refunded, now.left) == (State.PARTIALLY_REFUNDED, 250, 1000)
    journal.record(refunds[1].id, Happened.FAILED, NOON)
    now = journal.payment(paid.id)
    assert (now.state, now.refunded, now.left) == (State.APPROVED, 0, 1250)
    assert journal.verify() == 2 + 2 * 3 + 2 * 2
    with closing(reopened(journal, path)) as again:
        assert again.payment(paid.id) == now


def test_a_charge_that_is_owed_a_reversal_is_canceled_with_its_cancel(journal):
    begun = journal.begin(charge(1), REQUEST)
    journal.record(begun.id, Happened.LEFT, NOON)
    owed = journal.record(begun.id, Happened.APPROVED, NOON, charge_id="ch_1", approved=begun.amount)
    assert owed.state is State.REVERSING
    cancel = journal.begin(related(Kind.CANCEL, owed, 1250, 2), None)
    journal.record(cancel.id, Happened.APPROVED, NOON)
    assert journal.payment(begun.id).state is State.CANCELED
    assert journal.unresolved() == []


def test_what_its_charge_does_not_know_is_written_of_neither(journal):
    paid = approve(journal, journal.begin(charge(1), REQUEST))
    for number, kind in ((2, Kind.CANCEL), (3, Kind.REFUND)):
        journal.begin(related(kind, paid, 1250, number), None)
    journal.record(f"{2:032x}", Happened.APPROVED, NOON)
    records = journal.verify()
    with pytest.raises(IllegalEvent):
        journal.record(f"{3:032x}", Happened.APPROVED, NOON)
    assert journal.payment(f"{3:032x}").state is State.IN_FLIGHT
    assert journal.verify() == records


def test_a_payment_begins_once(journal):
    journal.begin(charge(1), REQUEST)
    with pytest.raises(JournalError, match="has begun already"):
        journal.begin(charge(1), REQUEST)
    journal.tidy(whole=True)
    with pytest.raises(JournalError, match="has begun already"):
        journal.begin(charge(1), REQUEST)
    assert journal.verify() == 1


def test_the_chain_knows_which_bytes_were_put_by(journal):
    begun = journal.begin(charge(1), REQUEST)
    other = SealedRequest("ks_2", b"stored and forwarded")
    journal.record(begun.id, Happened.STORED, NOON, request=other)
    assert journal.request(begun.id) == other
    marks = [record.mark for record in journal.records()]
    assert marks[0].slot != marks[1].slot
    assert marks[0].sha256 != marks[1].sha256
    assert journal.last_at == NOON


# -- any life -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),
            st.sampled_from([*Happened, "tidy", "reopen", "acknowledge"]),
            st.text(max_size=8),
        ),
        max_size=60,
    )
)
def test_any_records_are_the_same_after_a_restart(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("life") / "journal.db"
    journal = Journal.create(path, "j1")
    known = {}
    for number, step, text in steps:
        payment = known.get(number)
        if step == "tidy":
            journal.tidy(whole=True)
        elif step == "reopen":
            journal = reopened(journal, path)
        elif payment is None:
            known[number] = journal.begin(replace(charge(number), reference=text), REQUEST)
        elif step == "acknowledge":
            journal.acknowledge([payment.id])
        elif step in PAYMENT.table[payment.state]:
            known[number] = journal.record(payment.id, step, NOON, message=text, charge_id=text)
    expected = sorted(known.values(), key=lambda p: journal.payments().index(p))
    outcomes = journal.outcomes()
    assert journal.payments() == expected
    with closing(Journal.read(path)) as other:
        assert other.payments() == expected
    with closing(reopened(journal, path)) as again:
        assert again.payments() == expected
        assert again.outcomes() == outcomes
        assert again.unresolved() == [p for p in expected if p.state in OPEN]
        for payment in expected:
            assert (again.request(payment.id) is not None) == (payment.state in SENT_FROM_HERE)
        again.verify()


# -- compaction -----------------------------------------------------------------------------------------------


def days(journal, count):
    """On each day a charge that is approved, one that is declined, and on the first also one that stays open."""
    for day in range(count):
        at = NOON + day * DAY
        paid = journal.begin(replace(charge(10 * day + 1), created_at=at), REQUEST)
        journal.record(paid.id, Happened.APPROVED, at, charge_id=f"ch_{day}", approved=paid.amount)
        other = journal.begin(replace(charge(10 * day + 2, 777), created_at=at), REQUEST)
        journal.record(other.id, Happened.DECLINED, at)
        journal.acknowledge([paid.id, other.id])
    journal.tidy(whole=True)


def test_what_is_old_goes_and_its_totals_stay(journal, path):
    begun = journal.begin(replace(charge(9), created_at=NOON), REQUEST)
    days(journal, 4)
    before, chain = journal.totals(scheme), journal.verify()
    last = journal.seq
    gone = journal.compact(NOON + 2 * DAY, NOON + 4 * DAY, scheme)
    assert gone == 4
    assert journal.seq == last + 1
    assert journal.verify() == chain - 9 + 1
    assert [r.happened for r in journal.records()][-1] is Care.COMPACTED
    assert journal.unresolved() == [begun]
    assert journal.request(begun.id) == REQUEST
    assert journal.charge_by_reference("order-1") is None
    assert journal.charge_by_reference("order-21") is not None
    assert before[Bucket("2025-12-13", "EUR", "visa", "swipe", "charge", "approved")] == Total(1, 1250)
    with closing(reopened(journal, path)) as again:
        assert again.totals(scheme) == before
        ended = approve(again, begun, "ch_9")
        whole = again.totals(scheme)
        assert again.compact(NOON + 30 * DAY, NOON + 31 * DAY, scheme) == 4
        assert again.payments() == [ended]  # nobody has acknowledged it
        assert again.totals(scheme) == whole
        again.verify()


def test_the_totals_of_what_has_left_outlive_a_journal_that_is_set_aside(journal, path):
    journal.begin(replace(charge(9), created_at=NOON), REQUEST)
    days(journal, 4)
    whole = journal.totals(scheme)
    journal.compact(NOON + 2 * DAY, NOON + 4 * DAY, scheme)
    gone = journal.totals(scheme, gone=True)
    journal.close()
    for second in range(2):  # the one that follows is set aside as well
        set_aside(path, "j1", now=NOON + 5 * DAY + timedelta(seconds=second))
        with closing(Journal.open(path, "j1")) as follower:
            assert follower.totals(scheme, gone=True) == gone
            assert follower.totals(scheme) == whole
            assert follower.verify() == 1 + len(follower.payments()) + 1
    with closing(Journal.open(path, "j1")) as follower:
        follower.acknowledge([payment.id for payment in follower.outcomes()])
        assert follower.compact(NOON + 30 * DAY, NOON + 31 * DAY, scheme) == 4
        assert follower.totals(scheme) == whole
        follower.verify()


def test_totals_that_were_edited_are_not_taken_over(journal, path):
    days(journal, 4)
    journal.compact(NOON + 2 * DAY, NOON + 4 * DAY, scheme)
    journal._store.db.execute("UPDATE totals SET minor = minor + 1")
    journal.close()
    set_aside(path, "j1", now=NOON + 5 * DAY)
    with closing(Journal.open(path, "j1")) as follower:
        assert follower.totals(scheme) == {}
        follower.verify()


def test_nothing_old_is_nothing_done(journal):
    days(journal, 1)
    assert journal.compact(NOON - DAY, NOON, scheme) == 0
    assert journal.verify() == 4


def test_a_refund_of_yesterday_keeps_its_charge_of_last_week(journal):
    days(journal, 2)
    paid = journal.charge_by_charge_id("ch_0")
    refund = journal.begin(replace(related(Kind.REFUND, paid, 100, 77), created_at=NOON + 7 * DAY), REQUEST)
    journal.record(refund.id, Happened.APPROVED, NOON + 7 * DAY, refund_id="rf_1")
    assert journal.compact(NOON + 5 * DAY, NOON + 8 * DAY, scheme) == 3
    assert journal.charge_by_charge_id("ch_0").left == 1150
    assert [p.refund_id for p in journal.concerning(journal.charge_by_charge_id("ch_0"))] == ["rf_1"]
    journal.verify()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE base SET facts = replace(facts, '1250', '9250')",
        "DELETE FROM base",
        "UPDATE totals SET minor = minor + 1",
        "UPDATE journal SET base = base + 1",
    ],
)
def test_an_edit_of_what_compaction_kept_is_noticed(journal, path, statement):
    journal.begin(replace(charge(9), created_at=NOON), REQUEST)
    days(journal, 3)
    journal.compact(NOON + 2 * DAY, NOON + 4 * DAY, scheme)
    journal._store.db.execute(statement)
    journal.close()
    with pytest.raises(JournalDamaged), closing(Journal.open(path)) as again:
        again.verify()


WAYS = (Happened.SILENT, Happened.APPROVED, Happened.DECLINED, Happened.HELD, Happened.LEFT)
STEPS = st.one_of(
    st.just(("begin", Happened.JOURNALLED)),
    st.tuples(st.integers(1, 9), st.sampled_from(WAYS)),
    st.tuples(st.integers(1, 9), st.none()),
    st.just(("tidy", None)),
)


@given(steps=st.lists(STEPS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_what_was_asked_for_before_is_told_as_the_file_has_it(steps):
    """Open payments, outcomes and the latest stay in memory once they were asked for."""

    def asked():
        since = [NOON + timedelta(seconds=seconds) for seconds in (60, 3, -1)]
        latest = [(journal.last_answered(moment), journal.begun_since(moment)) for moment in since]
        return journal.unresolved(), journal.outcomes(), latest

    with (
        TemporaryDirectory() as folder,
        mock.patch.multiple(journal_tables, RECENT=5, _BATCH=2),
        closing(Journal.create(Path(folder) / "journal.db", "j1")) as journal,
    ):
        begun = 0
        for what, happened in steps:
            if what == "tidy":
                journal.tidy(whole=True)
            elif what == "begin":
                begun += 1
                at = NOON + timedelta(seconds=begun)
                journal.begin(replace(charge(begun), reference=f"r{begun}", created_at=at), REQUEST)
            elif what <= begun and happened is None:
                journal.acknowledge([f"{what:032x}"])
            elif what <= begun:
                with suppress(IllegalEvent):
                    journal.record(f"{what:032x}", happened, NOON, charge_id=f"ch_{what}")
            asked()
        held = asked()
        journal._store.forget()
        assert asked() == held
        answered, latest = held[2][-1]
        assert len(latest) == min(begun, 5)
        assert answered == next((payment for payment in reversed(latest) if payment.charge_id), None)


def test_a_refund_is_found_behind_however_many_charges(journal, monkeypatch):
    monkeypatch.setattr("terminal.journal_reading.RECENT", 5)
    paid = approve(journal, journal.begin(charge(1), None))
    refund = related(Kind.REFUND, paid, 400, 2)
    journal.begin(refund, None)
    journal.record(refund.id, Happened.APPROVED, NOON, refund_id="rf_1")
    for number in range(3, 30):
        journal.begin(replace(charge(number), reference=f"r{number}"), None)
        journal.record(f"{number:032x}", Happened.DECLINED, NOON, response_code="51")
    journal.tidy(whole=True)
    journal._store.forget()
    assert [found.id for found in journal.refunds_since(NOON - DAY)] == [refund.id]
    assert journal.refunds_since(refund.created_at + timedelta(seconds=1)) == []


def test_until_when_refunds_were_seen_outlives_the_process(journal, path):
    assert journal.refunds_seen() is None
    journal.saw_refunds(NOON)
    assert journal.refunds_seen() == NOON
    with closing(reopened(journal, path)) as again:
        assert again.refunds_seen() == NOON
        again.verify()


def test_of_a_long_past_only_the_last_few_are_read_where_they_are_enough(journal):
    for number in range(1, 3 * journal_tables._BATCH):
        journal.begin(replace(charge(number), reference=f"r{number}"), None)
        journal.record(f"{number:032x}", Happened.DECLINED, NOON, response_code="51")
    journal.tidy(whole=True)
    journal._store.forget()
    assert journal.last_answered(NOON - DAY).id == f"{number:032x}"
    assert len(journal._store.tables._latest) == journal_tables._BATCH
    assert len(journal.begun_since(NOON - DAY)) == number
