"""What went wrong, told to a person on stderr and to a script by the exit code.

A script may rely on these: after 0 it is done; after 1 no money moved and the card is to blame; after 2 and 3 no
money moved by this call; after 4 only the host knows, or nobody: ask again with the same reference, which never
takes a payment twice. What is still open is 4 as well (looked for, taken back, approved in part and not accepted),
and so are books that do not agree with the host's. A wrong passphrase, a home that is not provisioned or not
activated, and what the terminal itself refuses are the caller's to mend, and so 2. Keys and answers of a host that
cannot be believed are 4.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from hw.errors import ReaderError
from terminal import errors
from terminal.cli.common import Common
from terminal.cli.text import how_to_go_on, printable
from terminal.payment import UNRESOLVED, Payment, State

if TYPE_CHECKING:
    from terminal.events import PaymentChanged

OK: Final = 0
DECLINED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
IN_DOUBT: Final = 4
READER: Final = 5
UNEXPECTED: Final = 70
"""An error of this program (EX_SOFTWARE of sysexits.h)."""
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""

EXIT_CODES_HELP: Final = (
    "Exit codes: 0 approved or done, 1 declined, 2 usage, passphrase or state of this terminal, "
    "3 the host refused, 4 unreachable, pending or in doubt, 5 the reader, 70 an error of this program, "
    "130 interrupted."
)

EXIT_CODES: Final[dict[type[BaseException], int]] = {
    click.ClickException: USAGE,
    errors.SettingsError: USAGE,
    errors.AmountError: USAGE,
    errors.CardDataError: USAGE,
    errors.PaymentRefused: USAGE,
    errors.LiveGuardError: USAGE,
    errors.NotReady: USAGE,
    errors.KeystoreError: USAGE,
    errors.JournalError: USAGE,
    # The outcome may be what could not be written.
    errors.JournalUnwritable: IN_DOUBT,
    errors.CryptoError: IN_DOUBT,
    errors.HostError: IN_DOUBT,
    errors.HostRefused: REFUSED,
    errors.VersionTooOld: REFUSED,
    ReaderError: READER,
}
"""By the nearest class of the error's own line; what is in no line is UNEXPECTED."""

OUTCOMES: Final[dict[State, int]] = {
    State.APPROVED: OK,
    State.PARTIALLY_REFUNDED: OK,
    State.DECLINED: DECLINED,
    # A reference that is asked for again, and whose money is gone back: nobody is to think it paid.
    State.CANCELED: DECLINED,
    State.REFUNDED: DECLINED,
    State.REVERSED: DECLINED,
    State.REFUSED: REFUSED,
    State.WITHDRAWN: IN_DOUBT,
    State.NEW: IN_DOUBT,
    State.IN_FLIGHT: IN_DOUBT,
    State.IN_DOUBT: IN_DOUBT,
    State.PENDING: IN_DOUBT,
    State.HELD: OK,
    State.OFFLINE: OK,
    State.FORWARDING: OK,
    State.ABANDONED: IN_DOUBT,
    State.REVERSING: IN_DOUBT,
    State.LOST: DECLINED,
    State.FAILED: DECLINED,
}
"""The exit code of a charge, refund or cancel by the state that it reached."""

OPEN: Final = frozenset(state.value for state in UNRESOLVED)


def code_of(payment: Payment) -> int:
    """The exit code of a payment. A part of what was asked, which nobody has accepted yet, is not paid."""
    if payment.state is State.HELD and not payment.hold and payment.approved != payment.amount:
        return IN_DOUBT
    return OUTCOMES[payment.state]


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    for kind in type(error).__mro__:
        if kind in EXIT_CODES:
            return EXIT_CODES[kind]
    return UNEXPECTED


def report(error: BaseException, common: Common) -> int:
    """Tell what went wrong, to what, and what to do next; the exit code.

    On stderr always, and under ``--json`` as the last object on stdout. With ``--verbose`` the traceback too,
    which holds no values.
    """
    message, advice, code = _told(error, common)
    common.close_screen()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        _say(error.ctx.get_help() if _is_bare(error) else error.ctx.get_usage())
    _say(f"till: {printable(message)}")
    if advice:
        _say(f"      {printable(advice)}")
    if common.verbose and not isinstance(error, (click.ClickException, KeyboardInterrupt)):
        from terminal import log

        _say(log.trace(error).rstrip())
    if common.json:
        common.screen.result(_facts(error, message, advice, code), ())
    return code


def _facts(error: BaseException, message: str, advice: str, code: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"event": "error", "error": type(error).__name__, "message": message, "advice": advice}
    if isinstance(error, errors.HostRefused):
        facts |= {"status": error.status, "code": error.code, "trace_id": error.trace_id}
    return facts | {"exit_code": code}


def _told(error: BaseException, common: Common) -> tuple[str, str, int]:
    """Message, advice and exit code."""
    code = exit_code(error)
    if isinstance(error, KeyboardInterrupt):
        return *_stopped(common), INTERRUPTED
    if isinstance(error, ModuleNotFoundError) and common.extension and _is_foreign(error):
        message = f"{common.extension.name!r} needs what is not installed here: {error.name}"
        return message, f"Run: pip install '{common.extension.needs}'", USAGE
    if isinstance(error, click.ClickException):
        # A command that is not ours may know its code; click's own 1 would read as declined.
        code = error.exit_code if error.exit_code != DECLINED else USAGE
        if _is_bare(error):
            return "no command was given", "", code
        message, _, advice = error.format_message().partition("\n")
        return message, " ".join(advice.split()), code
    if code == UNEXPECTED:
        again = "Run it again with --verbose to see where, and report it."
        message = f"an error of this program: {type(error).__name__}"
        if (left := _left_open(common)) is None:
            return message, again, code
        return message, f"{_outcome_unknown(left)} {again}", IN_DOUBT
    if (left := _left_open(common)) is not None:
        return str(error), _outcome_unknown(left), IN_DOUBT
    return str(error), getattr(error, "advice", ""), code


def _is_bare(error: click.ClickException) -> bool:
    """A group was called without a command: click says so by an error whose message is the whole help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def _is_foreign(error: ModuleNotFoundError) -> bool:
    return (error.name or "terminal").partition(".")[0] not in ("terminal", "hw", "sim")


def _left_open(common: Common) -> PaymentChanged | None:
    """The payment that this call leaves without an outcome, or None."""
    payment = common.payment
    return payment if payment is not None and payment.state in OPEN else None


def _outcome_unknown(payment: PaymentChanged) -> str:
    return f"The payment's outcome is not known. {how_to_go_on(payment.kind, payment.reference)}"


GIVEN_UP: Final = frozenset({State.ABANDONED.value, State.REVERSING.value})


def _stopped(common: Common) -> tuple[str, str]:
    if common.payment is not None and common.payment.state in GIVEN_UP:
        message = f"interrupted: payment {common.payment.payment_id} is given up: what the host has is taken back"
        return message, "`till resolve` goes on with that, and so does `till run`."
    if payment := _left_open(common):
        message = f"interrupted: payment {payment.payment_id} is in the journal, its outcome unknown"
        return message, how_to_go_on(payment.kind, payment.reference)
    return "interrupted", common.after_a_stop


def _say(text: str) -> None:
    """A line on stderr; where nobody can read it, the exit code has to do."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        return
