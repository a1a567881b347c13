"""The searches that ``till prove`` makes: one row each, and each complete for what its row lets happen.

A row of its own for each kind of trouble keeps the searches small. What they share (losses, delays, copies, wrong
answers, power cuts, a shopper who leaves at any moment, hours that pass) is in every row.
"""

from __future__ import annotations

from sim.prove.states import Bounds

SEARCHES: tuple[Bounds, ...] = (
    Bounds("charge", in_flight=2),
    Bounds("wary", wary=True),
    Bounds("no look-up", lookup=False, in_flight=2, person=True),
    Bounds("hold", hold=True),
    Bounds("approved in part", partial=True),
    Bounds("part accepted", partial=True, accept_partial=True),
    Bounds("pending", pending=True, declines=True),
    Bounds("pending, no look-up", pending=True, declines=True, lookup=False, person=True),
    Bounds("second attempt", declines=True, attempts=2),
    Bounds("offline", offline=True, declines=True),
    Bounds("offline, no look-up", offline=True, lookup=False, person=True),
    Bounds("offline, keys rotated", offline=True, rotates=True, cuts=False, forgets=False),
    Bounds("settled", settles=True, unfit=0),
    Bounds("settled, wrong answers", settles=True, unfit=2, cuts=False, person=True),
    Bounds("settled, no look-up", settles=True, lookup=False, unfit=0, person=True),
    Bounds("back office", office=True),
    Bounds("keys rotated", rotates=True, forgets=False),
    Bounds("revoked", revokes=True, forgets=False),
    Bounds("errors", errors=True),
    Bounds("errors, no look-up", errors=True, lookup=False, person=True),
    Bounds("refunds", asks=("cancel", "refund"), settles=True, unfit=0, person=True),
    Bounds("refund fails", asks=("refund",), refund_fails=1, person=True),
    Bounds("refunded by others", asks=("refund",), others=True, unfit=0, person=True),
    Bounds("reversal fails", settles=True, refund_fails=1, unfit=0, person=True),
)
"""By default one request is under way at a time, besides its copy."""

QUICK: tuple[str, ...] = ("charge", "no look-up", "hold", "refund fails")
"""Searches of a few seconds, for a first look."""
