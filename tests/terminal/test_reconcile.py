from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from terminal.comparison import AGREEING, STANDING, Difference, Reconciliation, Row, judge, pick, to_write
from terminal.errors import HostSilent
from terminal.fit import Answer
from terminal.journal import Journal, SealedRequest
from terminal.money import Amount
from terminal.payment import OPEN, PAYMENT, Happened, Kind, Payment, State
from terminal.reconcile import GIVE_UP_AFTER, Reconciler, patiently
from terminal.turn import Turn

AT = datetime(2025, 12, 13, 12, tzinfo=UTC)
EUR = Amount(1250, "EUR")
CHARGE_STATES = sorted(set(AGREEING) - {State.NEW, State.FAILED})


def charge(n: int = 1, state: State = State.APPROVED, **facts: Any) -> Payment:
    known: dict[str, Any] = {
        "created_at": AT + timedelta(minutes=n),
        "amount": EUR,
        "reference": f"order-{n}",
    } | facts
    return Payment(id=f"p{n}", kind=Kind.CHARGE, state=state, **known)


def said(
    happened: Happened = Happened.APPROVED,
    charge_id: str = "ch_1",
    amount: Amount = EUR,
    reference: str = "order-1",
    at: datetime = AT + timedelta(minutes=1),
    refund_id: str = "",
) -> Answer:
    return Answer(
        happened=happened, charge_id=charge_id, amount=amount, reference=reference, at=at, refund_id=refund_id
    )


# -- judging ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", CHARGE_STATES)
def test_what_agrees_is_no_difference(state: State) -> None:
    for happened in AGREEING[state]:
        assert judge(charge(state=state), None if happened is None else said(happened)) == ()


def test_what_is_final_is_judged_and_what_is_open_is_not() -> None:
    assert AGREEING.keys() == set(State) - OPEN
    for state in OPEN:
        for theirs in (None, said(), said(Happened.DECLINED, amount=Amount(1, "EUR"))):
            assert judge(charge(state=state), theirs) == ()


@pytest.mark.parametrize(
    ("state", "theirs", "found"),
    [
        (State.APPROVED, None, {Difference.MISSING}),
        (State.APPROVED, said(Happened.DECLINED), {Difference.STATUS}),
        (State.APPROVED, said(Happened.CANCELED), {Difference.STATUS}),
        (State.APPROVED, said(amount=Amount(1251, "EUR")), {Difference.AMOUNT}),
        (State.APPROVED, said(amount=Amount(1250, "USD")), {Difference.AMOUNT}),
        (State.APPROVED, said(Happened.REFUNDED), {Difference.REFUNDS}),
        (State.PARTIALLY_REFUNDED, said(), {Difference.REFUNDS}),
        (State.DECLINED, None, {Difference.MISSING}),
        (State.DECLINED, said(), {Difference.LATE}),
        (State.WITHDRAWN, said(Happened.PENDING), {Difference.LATE}),
        (State.REFUSED, said(Happened.REFUNDED_IN_PART), {Difference.LATE}),
        (State.CANCELED, said(), {Difference.LATE}),
        (State.CANCELED, said(Happened.DECLINED), {Difference.STATUS}),
        (State.WITHDRAWN, said(amount=Amount(5, "EUR")), {Difference.LATE, Difference.AMOUNT}),
        (State.LOST, said(), {Difference.STATUS}),
    ],
)
def test_differences(state: State, theirs: Answer | None, found: set[Difference]) -> None:
    assert set(judge(charge(state=state), theirs)) == found


def test_a_partial_approval_is_held_against_what_was_approved() -> None:
    partial = charge(approved=Amount(600, "EUR"))
    assert judge(partial, said(amount=Amount(600, "EUR"))) == ()
    assert judge(partial, said()) == (Difference.AMOUNT,)


def test_with_a_refund_under_way_the_status_says_nothing_and_the_amount_does() -> None:
    assert judge(charge(), said(Happened.REFUNDED), busy=True) == ()
    assert judge(charge(), said(amount=Amount(1, "EUR")), busy=True) == (Difference.AMOUNT,)
    assert judge(charge(), None, busy=True) == (Difference.MISSING,)


@pytest.mark.parametrize("state", CHARGE_STATES)
@pytest.mark.parametrize("happened", [*sorted(STANDING), Happened.DECLINED, Happened.CANCELED, Happened.REFUNDED])
def test_whatever_is_written_the_state_knows(state: State, happened: Happened) -> None:
    payment = charge(state=state)
    written = to_write(payment, said(happened), judge(payment, said(happened)))
    if written is not None:
        assert written in PAYMENT.table[state]
    written_off = state in (State.DECLINED, State.REFUSED, State.WITHDRAWN, State.CANCELED)
    assert (written is Happened.LATE) == (written_off and happened in STANDING)


def test_a_charge_without_an_id_is_one_that_was_made_in_its_time_of_its_amount_first() -> None:
    payment = charge(1, State.WITHDRAWN)
    minute = timedelta(minutes=1)
    other, same = said(charge_id="ch_o", amount=Amount(9, "EUR")), said(charge_id="ch_s")
    late = said(charge_id="ch_l", at=AT + timedelta(hours=3))
    early = said(charge_id="ch_e", at=AT - timedelta(hours=3))
    assert pick(payment, [late, early, other, same], before=minute, after=minute) == same
    assert pick(payment, [late, early, other], before=minute, after=minute) == other
    assert pick(payment, [late, early], before=minute, after=minute) is None
    again = replace(payment, sent_at=AT + timedelta(hours=3))
    assert pick(again, [late], before=minute, after=minute) == late


# -- asking -----------------------------------------------------------------------------------------------------


@dataclass
class Host:
    """Knows these, and counts what it is asked."""

    known: list[Answer] = field(default_factory=list)
    refunds: list[Answer] = field(default_factory=list)
    silent: int = 0
    asked: list[str] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.silent:
            self.silent -= 1
            raise HostSilent("the host is silent")
        self.meanwhile()

    async def charges(self, reference: str) -> Sequence[Answer]:
        """As Books."""
        self._ask(reference)
        return [answer for answer in self.known if answer.reference == reference]

    async def charge(self, charge_id: str) -> Answer | None:
        """As Books."""
        self._ask(charge_id)
        return next((answer for answer in self.known if answer.charge_id == charge_id), None)

    async def refund(self, refund_id: str) -> Answer | None:
        """As Books."""
        self._ask(refund_id)
        return next((answer for answer in self.refunds if answer.refund_id == refund_id), None)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    book = Journal.create(tmp_path / "journal.db", "journal-1")
    yield book
    book.close()


def entered(journal: Journal, n: int, *happened: Happened, charge_id: str = "", **facts: Any) -> Payment:
    payment = charge(n, State.NEW, **facts)
    journal.begin(payment, SealedRequest("ks_1", b"{}"))
    for event in happened:
        told: dict[str, Any] = {"charge_id": charge_id} if charge_id else {}
        if event is Happened.APPROVED:
            told["approved"] = payment.amount
        payment = journal.record(f"p{n}", event, payment.created_at, **told)
    return payment


def given_back(journal: Journal, of: Payment, minor: int, refund_id: str = "rf_1") -> Payment:
    refund = Payment(
        id=f"r{refund_id}",
        kind=Kind.REFUND,
        reference="cold",
        amount=Amount(minor, "EUR"),
        parent=of.id,
        charge_id=of.charge_id,
        created_at=of.created_at + timedelta(seconds=30),
    )
    journal.begin(refund, SealedRequest("ks_1", b"{}"))
    return journal.record(
        refund.id, Happened.APPROVED, refund.created_at, refund_id=refund_id, approved=Amount(minor, "EUR")
    )


def reconciled(
    journal: Journal, host: Host, since: datetime | None = None, until: datetime | None = None
) -> Reconciliation:
    async def between(ask: Callable[[], Awaitable[Any]]) -> Any:
        return await ask()

    def write(payment: Payment, happened: Happened, **facts: Any) -> Payment:
        return journal.record(payment.id, happened, AT + timedelta(hours=1), **facts)

    day = timedelta(minutes=10)
    return asyncio.run(Reconciler(journal, host, write, between, day, day).run(since, until))


def differing(found: Reconciliation) -> dict[str, tuple[Difference, ...]]:
    return {row.payment.id: row.differences for row in found.differences}


def test_books_that_agree(journal: Journal) -> None:
    sold = entered(journal, 1, Happened.APPROVED, charge_id="ch_1")
    entered(journal, 2, Happened.DECLINED, charge_id="ch_2")
    entered(journal, 3, Happened.UNREACHABLE)
    given_back(journal, sold, 1250)
    host = Host(
        [said(Happened.REFUNDED), said(Happened.DECLINED, "ch_2", reference="order-2")],
        [said(refund_id="rf_1")],
    )
    before = journal.payments()
    found = reconciled(journal, host)
    assert found.differences == ()
    assert [row.payment.id for row in found.rows] == ["rrf_1", "p1", "p2", "p3"]
    assert found.payments == 4
    assert journal.payments() == before
    assert host.asked == ["order-1", "rf_1", "order-2", "order-3"]


def test_a_charge_that_its_reference_does_not_bring_is_asked_about_by_its_id(journal: Journal) -> None:
    entered(journal, 1, Happened.APPROVED, charge_id="ch_1")
    host = Host([said(reference="another")])
    assert reconciled(journal, host).differences == ()
    assert host.asked == ["order-1", "ch_1"]


def test_each_difference_is_told_of_its_payment(journal: Journal) -> None:
    entered(journal, 1, Happened.APPROVED, charge_id="ch_1")
    entered(journal, 2, Happened.APPROVED, charge_id="ch_2")
    entered(journal, 3, Happened.APPROVED, charge_id="ch_3")
    host = Host([said(amount=Amount(1251, "EUR")), said(Happened.CANCELED, "ch_2", reference="order-2")])
    found = reconciled(journal, host)
    assert differing(found) == {
        "p1": (Difference.AMOUNT,),
        "p2": (Difference.STATUS,),
        "p3": (Difference.MISSING,),
    }
    assert found.counts == {Difference.STATUS: 1, Difference.AMOUNT: 1, Difference.MISSING: 1}
    assert [row.written for row in found.rows] == [None, None, None]


@pytest.mark.parametrize("happened", [Happened.UNREACHABLE, Happened.DECLINED, Happened.REFUSED])
def test_an_approval_that_was_written_off_is_taken_back_from_now_on(journal: Journal, happened: Happened) -> None:
    entered(journal, 1, happened)
    found = reconciled(journal, Host([said(charge_id="ch_late")]))
    (row,) = found.differences
    assert (row.differences, row.written) == ((Difference.LATE,), Happened.LATE)
    after = journal.payment("p1")
    assert (after.state, after.charge_id, after.approved) == (State.REVERSING, "ch_late", EUR)
    assert row.payment == after
    assert reconciled(journal, Host([said(charge_id="ch_late")])).differences == ()


def test_a_charge_of_another_payment_under_the_same_reference_is_not_the_one_that_was_written_off(
    journal: Journal,
) -> None:
    entered(journal, 1, Happened.UNREACHABLE, reference="order-1")
    entered(journal, 2, Happened.APPROVED, reference="order-1", charge_id="ch_1")
    assert reconciled(journal, Host([said()])).differences == ()
    assert journal.payment("p1").state is State.WITHDRAWN


def test_nor_is_one_that_is_still_under_way(journal: Journal) -> None:
    entered(journal, 1, Happened.UNREACHABLE, reference="order-1")
    entered(journal, 2, reference="order-1")
    found = reconciled(journal, Host([said()]))
    assert found.differences == ()
    assert [row.open for row in found.rows] == [False, True]
    assert [payment.state for payment in journal.payments()] == [State.WITHDRAWN, State.IN_FLIGHT]


def test_nor_one_that_begins_while_the_host_is_asked(journal: Journal) -> None:
    entered(journal, 1, Happened.UNREACHABLE, reference="order-1")
    host = Host([said()])

    def begin() -> None:
        host.meanwhile = lambda: None
        entered(journal, 2, reference="order-1")

    host.meanwhile = begin
    assert reconciled(journal, host).differences == ()
    assert host.asked == ["order-1", "order-1"]
    assert journal.payment("p1").state is State.WITHDRAWN


def test_nor_one_of_another_day_which_is_told_and_left_alone(journal: Journal) -> None:
    entered(journal, 1, Happened.UNREACHABLE)
    found = reconciled(journal, Host([said(at=AT + timedelta(days=3))]))
    (row,) = found.differences
    assert (row.differences, row.written) == ((Difference.UNKNOWN,), None)
    assert "ch_1" in row.note
    assert journal.payment("p1").state is State.WITHDRAWN


def test_a_second_charge_under_a_reference_is_found(journal: Journal) -> None:
    entered(journal, 1, Happened.APPROVED, charge_id="ch_1")
    found = reconciled(journal, Host([said(), said(charge_id="ch_2")]))
    (row,) = found.differences
    assert row.differences == (Difference.UNKNOWN,)
    assert row.theirs is not None
    assert row.theirs.charge_id == "ch_2"


def test_a_refund_that_failed_since_is_written_and_changes_its_charge(journal: Journal) -> None:
    sold = entered(journal, 1, Happened.APPROVED, charge_id="ch_1")
    given_back(journal, sold, 250)
    found = reconciled(
        journal, Host([said()], [said(Happened.FAILED, amount=Amount(250, "EUR"), refund_id="rf_1")])
    )
    assert differing(found) == {"rrf_1": (Difference.STATUS,)}
    assert journal.payment("rrf_1").state is State.FAILED
    assert journal.payment("p1").state is State.APPROVED


def test_a_payment_that_changes_all_the_time_is_said_not_to_have_been_compared(journal: Journal) -> None:
    sold = entered(journal, 1, Happened.APPROVED, charge_id="ch_1")
    numbers = iter(range(100))
    host = Host([said()], meanwhile=lambda: given_back(journal, sold, 1, f"rf_{next(numbers)}"))
    found = reconciled(journal, host)
    assert found.counts == {Difference.NOT_COMPARED: 1}


def test_a_moment_of_silence_costs_one_payment_and_a_silent_host_ends_it(journal: Journal) -> None:
    for n in range(1, 7):
        entered(journal, n, Happened.UNREACHABLE)
    found = reconciled(journal, Host(silent=GIVE_UP_AFTER - 1))
    assert found.counts == {Difference.NOT_COMPARED: GIVE_UP_AFTER - 1}
    assert len(found.rows) == 6
    with pytest.raises(HostSilent):
        reconciled(journal, Host(silent=GIVE_UP_AFTER))


def test_only_what_began_in_the_time_is_compared(journal: Journal) -> None:
    for n in range(1, 5):
        entered(journal, n, Happened.UNREACHABLE)
    found = reconciled(journal, Host(), AT + timedelta(minutes=2), AT + timedelta(minutes=4))
    assert [row.payment.id for row in found.rows] == ["p2", "p3"]


def test_it_gives_way_to_payments() -> None:
    async def work() -> list[str]:
        turn, done = Turn(), list[str]()

        async def pay() -> None:
            async with turn:
                await asyncio.sleep(0)
                done.append("paid")

        async def ask() -> str:
            await asyncio.sleep(0)
            done.append("asked")
            return "answer"

        async with turn:
            asking = asyncio.create_task(patiently(turn, ask))
            await asyncio.sleep(0)
            paying = asyncio.create_task(pay())
            await asyncio.sleep(0)
        await paying
        assert await asking == "answer"
        return done

    assert asyncio.run(work()) == ["paid", "asked"]


def test_a_row_of_what_is_open_is_told_as_such() -> None:
    assert Row(charge(state=State.IN_DOUBT), State.IN_DOUBT, None).open
    assert not Row(charge(), State.APPROVED, said()).open
