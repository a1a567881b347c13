"""Everything that can go wrong in the terminal, as one tree.

Each error says what happened and to what (``str(error)``) and what to do next (``error.advice``).
No message ever holds a key, a PAN, a passphrase, a token or a decrypted byte.

    TillError
     +- SettingsError          a setting is missing or makes no sense
     +- AmountError            zero, negative, too large, or not in an ISO 4217 currency
     +- CardDataError          a PAN or an expiry date that cannot be one
     +- IllegalEvent           a machine was given an event that its state does not know
     +- CryptoError
     |   +- EnvelopeError      an envelope does not open: one message for every reason
     |   +- KeyBlockError      a key block is malformed or its MAC is wrong
     |   +- KeyPolicyError     a key may not have the role in which it came
     |   +- KeystoreError      the keys at rest: wrong passphrase, damaged, read-only, missing
     +- JournalError           the durable record cannot be read or written
     |   +- JournalDamaged     it is not what we wrote
     |   +- JournalTooNew      a newer version of this program wrote it
     |   +- JournalUnwritable  read-only, or the disk is full
     +- HostError
     |   +- HostUnreachable    no connection: the host has certainly not acted
     |   +- HostSilent         the request may have left, and no usable answer came: in doubt
     |   +- HostRefused        the host answered with an error body
     |   +- HostAnswerInvalid  an answer came and a field of it is wrong
     +- LiveGuardError         clear card data, a typed PIN or a software TPK against a live host
     +- NotReady               the terminal is not at the level that the call needs
     +- VersionTooOld          the host wants a newer version of this program
     +- PaymentRefused         the terminal itself will not do that to that payment
"""

from __future__ import annotations


class TillError(Exception):
    """The root. ``advice`` is one sentence on what to do next, or empty."""

    advice: str = ""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        if advice:
            self.advice = advice


class SettingsError(TillError):
    """Example: ``host: 'ftp://x' is not an http or https URL``."""


class AmountError(TillError, ValueError):
    """Example: ``an amount of EUR 0.00: it must be above zero``."""


class CardDataError(TillError, ValueError):
    """Example: ``the card number fails its Luhn check``."""


class IllegalEvent(TillError):
    """Example: ``activation: the state 'claimed' does not know the event 'keys_installed'``."""

    def __init__(self, machine: str, state: str, event: str) -> None:
        super().__init__(f"{machine}: the state {state!r} does not know the event {event!r}")
        self.machine, self.state, self.event = machine, state, event


class CryptoError(TillError):
    """The root of what the crypto package raises."""


class EnvelopeError(CryptoError):
    """An envelope did not open. Says nothing of the reason, so that it is no oracle."""

    advice = "Check that host and terminal hold the same key set: `till keys` shows the KCVs."

    def __init__(self) -> None:
        super().__init__("the envelope does not open")


class KeyBlockError(CryptoError):
    """Example: ``key block: the MAC does not match``."""


class KeyPolicyError(CryptoError):
    """Example: ``tpk: usage P0 with mode B is not allowed for this role (wants E)``."""


class KeystoreError(CryptoError):
    """Example: ``the keystore does not open with this passphrase``."""


class JournalError(TillError):
    """The root of what the journal raises."""


class JournalDamaged(JournalError):
    """Example: ``journal.db is damaged: file is not a database``."""


class JournalTooNew(JournalError):
    """Example: ``journal.db has format 3; this program knows formats up to 1``."""


class JournalUnwritable(JournalError):
    """Example: ``journal.db cannot be written: the disk is full``."""


class HostError(TillError):
    """The root of what talking to a host raises."""


class HostUnreachable(HostError):
    """No connection was made, so the host has certainly not acted."""


class HostSilent(HostError):
    """The request may have left and no usable answer came: the host may or may not have acted."""


class HostRefused(HostError):
    """The host answered with an error body: ``{"error": {code, message, details, trace_id}}``.

    ``retry_after`` is in seconds where the host gave one, else None. ``in_doubt`` says that the host may have
    acted all the same: it answered with a status of 500 or above, or an earlier attempt may have got through.
    """

    def __init__(
        self,
        call: str,
        status: int,
        code: str,
        message: str,
        *,
        trace_id: str = "",
        retry_after: float | None = None,
        in_doubt: bool = False,
        advice: str = "",
    ) -> None:
        trace = f" (trace {trace_id})" if trace_id else ""
        super().__init__(f"{call}: the host refused with {status} {code!r}: {message}{trace}", advice=advice)
        self.call, self.status, self.code = call, status, code
        self.host_message, self.trace_id, self.retry_after = message, trace_id, retry_after
        self.in_doubt = in_doubt


class HostAnswerInvalid(HostError):
    """An answer with a wrong field: ``pos/charge: amount.value: expected a string of digits``."""

    def __init__(self, call: str, field: str, problem: str) -> None:
        super().__init__(f"{call}: the host's answer is not usable: {field}: {problem}")
        self.call, self.field, self.problem = call, field, problem


class LiveGuardError(TillError):
    """Example: ``a reader that gives card data in the clear may not be used with api.viopay.io``."""


class NotReady(TillError):
    """Example: ``the terminal is not activated (it is at level 'claimed')``."""

    advice = "Run `till activate`."


class VersionTooOld(TillError):
    """Example: ``the host wants version 0.2.0 or newer, and this is 0.1.0``."""


class PaymentRefused(TillError):
    """Example: ``reference 'order-17' was used for another amount (EUR 12.50)``."""
