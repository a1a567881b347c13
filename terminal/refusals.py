"""What it proves of a payment that the host has refused a request, by the refusal's status: a literal table. Pure.

A host looks a key up by the raw bytes before it opens them. So a repeat sends the same bytes, signed under a newer
key set where the one that sealed them is superseded; and a refusal that comes from opening or judging them proves
that no earlier attempt has acted. ``terminal.asking`` does what the table says; ``till prove`` searches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from terminal.errors import HostRefused
from terminal.payment import Kind
from terminal.recovery import Act

Cause = tuple[int, str]
"""HTTP status and code of a refusal."""

SUPERSEDED: Cause = (401, "4011")
"""The host has replaced the key set and so has not acted on this attempt."""
OLDER: Cause = (401, "4011 of an older one")
"""The same of a key set that is not in use any more: the one that is may still be good."""
CREDENTIALS: Cause = (401, "4010")
"""Nor has it on one that it does not take as ours. The date may be at fault; or the network has delivered the
request twice and this answers the second, whose nonce had been used: then it may have acted on the first."""

UNREADABLE = 400
"""It cannot open or read the request. What was approved here cannot be sealed again: its card is gone."""
GONE = 404
"""It does not know what it had given an id to: nothing is proved by that, but to ask again is no use either."""
CONFLICT = 409
"""Of a charge: the host knows the idempotency key, with another request. Of what undoes one: it is too late, or has
been undone."""
RULE_BROKEN = 422
"""It has read the request, which asks for what cannot be. Under a key that it knows it would have said the same
again."""
JUDGED = frozenset({404, CONFLICT, RULE_BROKEN})
"""The host has opened the request and says no. It says 401, 403 and 429 of any request, and may say yes later."""


class Proof(StrEnum):
    """What a refusal proves, once what it names and can be put right was put right."""

    NOTHING = "nothing"
    """This attempt may have acted, too."""
    KEY_SEEN = "key_seen"
    """So it is; and the host has something under the payment's key."""
    NOT_THIS_ONE = "not_this_one"
    """The host has not acted on this attempt, unless the refusal itself is in doubt."""
    NEVER = "never"
    """It has not acted on any attempt."""
    NEVER_IF_IT_STANDS = "never_if_it_stands"
    """So it is of a cancel, unless the host, where it can be asked, has the charge as canceled."""
    NEVER_ONCE_KEYS_ARE_OVER = "never_once_keys_are_over"
    """So it is once nothing can be under way any more that was let in under an older key set."""
    CHARGE_TELLS = "charge_tells"
    """Nothing by itself: the charge that was to be refunded, looked up, may tell."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: what is None fits everything."""

    kinds: frozenset[Kind]
    statuses: frozenset[int]
    proof: Proof
    code: str | None = None
    act: Act | None = None
    repeat: bool | None = None
    resigned: bool | None = None


_ANY = frozenset(Kind)
_CHARGE, _REFUND, _CANCEL = frozenset({Kind.CHARGE}), frozenset({Kind.REFUND}), frozenset({Kind.CANCEL})
_OLDER_BYTES = _CHARGE | _REFUND

PROOFS: tuple[Row, ...] = (
    # The date was right: perhaps a copy of this very request was there before.
    Row(_ANY, frozenset({CREDENTIALS[0]}), Proof.NOTHING, code=CREDENTIALS[1]),
    Row(_CHARGE, frozenset({CONFLICT}), Proof.KEY_SEEN),
    # No earlier attempt can have got through.
    Row(_ANY, JUDGED, Proof.NEVER, repeat=False),
    Row(_ANY, frozenset({UNREADABLE}), Proof.NEVER, act=Act.FORWARD, repeat=False),
    # One may have. A host that had acted would know the key, and says this only of what it does not know: that it
    # breaks a rule, or (signed under a newer key set than the one that sealed it) that it does not open.
    Row(_CHARGE, frozenset({RULE_BROKEN}), Proof.NEVER, repeat=True),
    Row(_OLDER_BYTES, frozenset({UNREADABLE}), Proof.NEVER_ONCE_KEYS_ARE_OVER, repeat=True, resigned=True),
    # More than is left: this very refund may have taken it.
    Row(_REFUND, frozenset({RULE_BROKEN}), Proof.CHARGE_TELLS, repeat=True),
    # A second cancel gives the answer of the first, so that one which is refused has not been.
    Row(_CANCEL, frozenset({CONFLICT}), Proof.NEVER_IF_IT_STANDS, repeat=True),
)
"""The first row that fits says; where none does, it is NOT_THIS_ONE."""


def proof_of(cause: Cause, kind: Kind, act: Act, *, repeat: bool, resigned: bool) -> Proof:
    """What the refusal of an act proves.

    ``repeat``: an earlier attempt may have reached the host. ``resigned``: the request was signed under the key set
    in use, whichever one sealed it.
    """
    status, code = cause
    for row in PROOFS:
        if (
            kind in row.kinds
            and status in row.statuses
            and (row.code is None or row.code == code)
            and (row.act is None or row.act is act)
            and (row.repeat is None or row.repeat is repeat)
            and (row.resigned is None or row.resigned is resigned)
        ):
            return row.proof
    return Proof.NOT_THIS_ONE


def cause_of(refusal: HostRefused) -> Cause:
    """What the refusal gives as its cause."""
    return refusal.status, refusal.code
