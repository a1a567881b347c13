from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime

import click
import pytest

import hw.errors
from terminal import errors
from terminal.cli import failures
from terminal.cli.common import Common, Extension
from terminal.events import PaymentChanged
from terminal.money import Amount
from terminal.payment import OPEN, Kind, Payment, State


def changed(state: str) -> PaymentChanged:
    return PaymentChanged(
        at=datetime(2025, 12, 13, tzinfo=UTC),
        payment_id="p1",
        kind="charge",
        state=state,
        reference="order-17",
        amount=Amount(1250, "EUR"),
        charge_id="",
        response_code="",
    )


CODES = {
    "SettingsError": 2,
    "AmountError": 2,
    "CardDataError": 2,
    "EnvelopeError": 4,
    "KeyBlockError": 4,
    "KeyPolicyError": 4,
    "KeystoreError": 2,
    "JournalDamaged": 2,
    "JournalTooNew": 2,
    "JournalUnwritable": 4,
    "HostUnreachable": 4,
    "HostSilent": 4,
    "HostRefused": 3,
    "HostAnswerInvalid": 4,
    "LiveGuardError": 2,
    "NotReady": 2,
    "VersionTooOld": 3,
    "PaymentRefused": 2,
    "IllegalEvent": 70,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_the_exit_code_of_an_error(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert failures.exit_code(kind.__new__(kind)) == code


def test_every_error_of_the_terminal_has_a_code_here() -> None:
    leaves = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.TillError) and not kind.__subclasses__()
    }
    assert leaves <= CODES.keys()


@pytest.mark.parametrize(
    "kind", [kind for _, kind in inspect.getmembers(hw.errors, inspect.isclass) if issubclass(kind, Exception)]
)
def test_the_reader_is_five(kind: type[Exception]) -> None:
    assert failures.exit_code(kind("gone")) == 5


def test_every_state_of_a_payment_has_an_exit_code() -> None:
    assert failures.OUTCOMES.keys() == set(State)
    assert {state for state, code in failures.OUTCOMES.items() if code == 0} == {
        State.APPROVED,
        State.PARTIALLY_REFUNDED,
        State.HELD,
        State.OFFLINE,
        State.FORWARDING,
    }
    for state in OPEN - {State.HELD, State.OFFLINE, State.FORWARDING}:
        assert failures.OUTCOMES[state] == failures.IN_DOUBT


def test_a_part_that_nobody_has_accepted_is_not_paid() -> None:
    def code(state: State, approved: int, *, hold: bool = False) -> int:
        payment = Payment(
            id="p1",
            kind=Kind.CHARGE,
            reference="order-17",
            amount=Amount(1250, "EUR"),
            approved=Amount(approved, "EUR"),
            state=state,
            hold=hold,
            created_at=datetime(2025, 12, 13, tzinfo=UTC),
        )
        return failures.code_of(payment)

    assert code(State.HELD, 600) == failures.IN_DOUBT
    assert code(State.HELD, 1250) == code(State.HELD, 600, hold=True) == failures.OK
    assert code(State.APPROVED, 600) == failures.OK


def test_an_error_says_what_happened_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    refused = errors.HostRefused("pos/charge", 422, "4220", "no\x1b[2J", trace_id="t1", advice="Try less.")
    assert failures.report(refused, Common(json=True)) == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "event": "error",
        "error": "HostRefused",
        "message": str(refused),
        "advice": "Try less.",
        "status": 422,
        "code": "4220",
        "trace_id": "t1",
        "exit_code": 3,
    }
    assert "\x1b" not in err
    assert "Try less." in err


def test_what_nobody_foresaw_shows_its_kind_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("canary-horse")
    except ValueError as error:
        code = failures.report(error, Common(verbose=True))
    assert code == 70
    err = capsys.readouterr().err
    assert "ValueError" in err
    assert "test_failures.py" in err
    assert "canary-horse" not in err.replace('raise ValueError("canary-horse")', "")


def test_without_verbose_there_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("canary-horse")
    except ValueError as error:
        failures.report(error, Common())
    assert "test_failures.py" not in capsys.readouterr().err


@pytest.mark.parametrize("state", ["in_flight", "in_doubt", "pending"])
@pytest.mark.parametrize("error", [ValueError("x"), errors.KeystoreError("x"), hw.errors.LineGone("x")])
def test_an_error_that_leaves_a_payment_open_is_in_doubt(
    state: str, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures.report(error, Common(payment=changed(state))) == 4
    assert "known" in capsys.readouterr().err


def test_an_error_after_a_settled_payment_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(errors.SettingsError("x"), Common(payment=changed("declined"))) == 2
    assert capsys.readouterr().err == "till: x\n"


def test_interrupted_it_says_where_the_payment_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report(KeyboardInterrupt(), Common()) == 130
    assert capsys.readouterr().err == "till: interrupted\n"
    assert failures.report(KeyboardInterrupt(), Common(after_a_stop="Begin again.")) == 130
    assert capsys.readouterr().err == "till: interrupted\n      Begin again.\n"
    assert failures.report(KeyboardInterrupt(), Common(payment=changed("in_flight"))) == 130
    assert "payment p1 is in the journal" in capsys.readouterr().err


def test_a_module_of_ours_that_is_missing_is_our_error() -> None:
    common = Common(extension=Extension("host", "tillwright[sim]"))
    assert failures.report(ModuleNotFoundError("x", name="sim.gone"), common) == 70
    assert failures.report(ModuleNotFoundError("x", name="starlette.routing"), common) == 2
    assert failures.report(ModuleNotFoundError("x", name="starlette"), Common()) == 70


def test_what_click_says_in_lines_is_said_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    missing = click.MissingParameter("Choose from:\n\tpn532,\n\tacs", param_type="argument", param_hint="READER")
    assert failures.report(missing, Common()) == 2
    assert capsys.readouterr().err == "till: Missing argument READER. Choose from:\n      pn532, acs\n"


def test_a_usage_error_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(click.Command("charge"), info_name="charge")
    assert failures.report(click.UsageError("say more", context), Common()) == 2
    assert capsys.readouterr().err == "Usage: charge [OPTIONS]\ntill: say more\n"
