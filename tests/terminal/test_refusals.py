"""What a refusal proves: the table, by example and whole."""

from __future__ import annotations

from itertools import product

import pytest

from terminal.payment import Kind
from terminal.recovery import Act
from terminal.refusals import CREDENTIALS, JUDGED, OLDER, PROOFS, SUPERSEDED, Proof, proof_of

CHARGE, REFUND, CANCEL = Kind.CHARGE, Kind.REFUND, Kind.CANCEL
CAUSES = [
    SUPERSEDED,
    OLDER,
    CREDENTIALS,
    *((status, "") for status in (400, 401, 403, 404, 409, 422, 426, 429, 500, 503)),
]
EVERYTHING = [
    (cause, kind, act, repeat, resigned)
    for cause, kind, act, repeat, resigned in product(
        CAUSES, Kind, (Act.SEND, Act.SEND_TO_CANCEL, Act.FORWARD), (True, False), (True, False)
    )
    if kind is CHARGE or act is Act.SEND
]


def proof(cause, kind, act, repeat, resigned):
    return proof_of(cause, kind, act, repeat=repeat, resigned=resigned)


@pytest.mark.parametrize(
    ("kind", "act", "status", "says"),
    [
        (CHARGE, Act.SEND, 400, Proof.NOT_THIS_ONE),  # it can be sealed again
        (CHARGE, Act.FORWARD, 400, Proof.NEVER),  # it cannot: its card is gone
        (CHARGE, Act.SEND, 404, Proof.NEVER),
        (CHARGE, Act.SEND, 409, Proof.KEY_SEEN),
        (CHARGE, Act.SEND, 422, Proof.NEVER),
        (REFUND, Act.SEND, 409, Proof.NEVER),
        (REFUND, Act.SEND, 422, Proof.NEVER),
        (CANCEL, Act.SEND, 409, Proof.NEVER),
        (CANCEL, Act.SEND, 429, Proof.NOT_THIS_ONE),
    ],
)
def test_of_what_was_never_sent_before_a_judgement_is_final(kind, act, status, says):
    assert proof_of((status, ""), kind, act, repeat=False, resigned=False) is says


@pytest.mark.parametrize(
    ("kind", "status", "resigned", "says"),
    [
        (CHARGE, 400, False, Proof.NOT_THIS_ONE),
        (CHARGE, 400, True, Proof.NEVER_ONCE_KEYS_ARE_OVER),
        (REFUND, 400, True, Proof.NEVER_ONCE_KEYS_ARE_OVER),
        (CANCEL, 400, True, Proof.NOT_THIS_ONE),  # it has no bytes that are older than its signature
        (CHARGE, 404, False, Proof.NOT_THIS_ONE),
        (CHARGE, 409, False, Proof.KEY_SEEN),
        (REFUND, 409, False, Proof.NOT_THIS_ONE),
        (CANCEL, 409, False, Proof.NEVER_IF_IT_STANDS),
        (CHARGE, 422, False, Proof.NEVER),
        (REFUND, 422, False, Proof.CHARGE_TELLS),
        (CANCEL, 422, False, Proof.NOT_THIS_ONE),
    ],
)
def test_of_a_repeat_only_what_a_host_that_had_acted_would_not_say_is_a_proof(kind, status, resigned, says):
    assert proof_of((status, ""), kind, Act.SEND, repeat=True, resigned=resigned) is says


def test_credentials_that_are_refused_prove_nothing_of_anything():
    assert {proof(*case) for case in EVERYTHING if case[0] == CREDENTIALS} == {Proof.NOTHING}


def test_what_the_host_has_not_opened_is_never_judged():
    """But what was approved here, and cannot be opened: it cannot be sealed again."""
    unopened = [case for case in EVERYTHING if case[0][0] not in JUDGED and case[2] is not Act.FORWARD]
    assert Proof.NEVER not in {proof(*case) for case in unopened}


def test_every_row_says_something():
    used = {id(next((row for row in PROOFS if _fits(row, *case)), None)) for case in EVERYTHING}
    assert [row for row in PROOFS if id(row) not in used] == []


def _fits(row, cause, kind, act, repeat, resigned):
    return (
        kind in row.kinds
        and cause[0] in row.statuses
        and row.code in (None, cause[1])
        and row.act in (None, act)
        and row.repeat in (None, repeat)
        and row.resigned in (None, resigned)
    )
