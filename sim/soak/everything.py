"""Everything that may go wrong in a day, as one literal table: what, how often, and the rules that do it.

``often`` is the chance before each payment. Where a rule has a list in place of a value, one of it is drawn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

NEXT = "next"
"""In place of an amount: that of the next charge. It is then one that the host does not approve in part, as nobody
can tell a wrong amount from a partial approval that is true."""

Rules = tuple[dict[str, Any], ...]


class Kind(NamedTuple):
    """A kind of trouble: ``rules`` for calls, ``disk`` rules for the disk."""

    name: str
    often: float
    rules: Rules = ()
    disk: Rules = ()


_N = {"nth": [1, 1, 1, 2, 3]}
_CHARGE = {"call": "charge", "nth": 1}
_PAY = {"call": ["charge", "charge", "refund", "cancel"], "nth": 1}
_OF_ONE = {"call": ["refund", "cancel", "charge_lookup"], "nth": 1}
_SEEK = {"call": ["charge_search", "charge_lookup", "refund_lookup", "charge"], "nth": 1}
_STATUS = [400, 401, 403, 404, 422, 500, 503]
_WHEN = ["before", "during", "after"]
_KEYS = {"call": "keys", "nth": 1}
_ROTATE = {"match": {"call": "charge", "nth": 1}, "do": "rotated_keys"}

AT_CALLS: tuple[Kind, ...] = (
    #    name                often    rules
    Kind("delay",            0.003, ({"match": _N, "do": "delay", "seconds": [2, 12, 20, 60, 200]},)),
    Kind("status",           0.005, ({"match": _N, "do": "status", "status": _STATUS},)),
    Kind("status_acted",     0.002, ({"match": _PAY, "do": "status", "status": [500, 502, 504], "acted": True},)),
    Kind("status_conflict",  0.002, ({"match": _PAY, "do": "status", "status": 409},)),
    Kind("status_too_many",  0.002, ({"match": _N, "do": "status", "status": 429, "retry_after": [1, 5, 120]},)),
    Kind("html",             0.002, ({"match": _N, "do": "html", "status": [200, 502], "acted": [True, False]},)),
    Kind("cached_5xx",       0.002, ({"match": _PAY, "do": "cached_5xx", "acted": [True, False]},)),
    Kind("drop_request",     0.002, ({"match": _N, "do": "drop_request", "how": ["cut", "silence"]},)),
    Kind("drop_answer",      0.006, ({"match": _PAY, "do": "drop_answer", "how": ["cut", "silence"]},)),
    Kind("drop_answers",     0.002, (
        {"match": {"call": "charge", "times": [2, 4, 5]}, "do": "drop_answer", "how": ["cut", "silence"]},
        {"match": {"call": "charge_search", "times": [1, 2, 4]}, "do": "drop_answer"},
    )),
    Kind("drop_refunds",     0.002, 4 * ({"match": {"call": "refund", "nth": 1}, "do": "drop_answer"},)),
    Kind("cut",              0.002, ({"match": _N, "do": "cut"},)),
    Kind("drip",             0.002, ({"match": _N, "do": "drip", "seconds": [0.01, 1], "size": 64},)),
    Kind("corrupt",          0.003, ({"match": _N, "do": "corrupt", "at": [7, 40, 99, 333]},)),
    Kind("corrupt_request",  0.002, ({"match": _PAY, "do": "corrupt_request", "at": [5, 50, 250]},)),
    Kind("wrong_mac",        0.002, ({"match": _PAY, "do": "wrong_mac"},)),
    Kind("wrong_mac_keys",   0.002, (_ROTATE, {"match": _KEYS, "do": "wrong_mac"})),
    Kind("wrong_kcv",        0.002, (_ROTATE, {"match": _KEYS, "do": "wrong_kcv"})),
    Kind("wrong_key",        0.002, ({"match": _N, "do": "wrong_key"},)),
    Kind("other_amount",     0.003, ({"match": {"call": "charge", "amount": NEXT}, "do": "other_amount"},)),
    Kind("other_amount_got", 0.002, (
        {"match": {"call": "charge", "amount": NEXT, "nth": 1}, "do": "drop_answer"},
        {"match": {"call": "charge", "amount": NEXT, "nth": 1}, "do": "other_amount"},
        {"match": {"call": "charge_search", "times": 3}, "do": "other_amount"},
    )),
    Kind("other_charge_id",  0.003, ({"match": _OF_ONE, "do": "other_charge_id"},)),
    Kind("old_charge_id",    0.002, ({"match": _SEEK, "do": "old_charge_id"},)),
    Kind("clock",            0.002, ({"match": _N, "do": "clock", "seconds": [-100000, -400, 400, 100000]},)),
    Kind("late_approval",    0.002, ({"match": _CHARGE, "do": "late_approval", "seconds": [10, 40, 300]},)),
    Kind("expired_token",    0.002, (_ROTATE, {"match": _KEYS, "do": "expired_token"})),
    Kind("rotated_keys",     0.002, ({"match": _PAY, "do": "rotated_keys"},)),
    Kind("rotated_open",     0.002, (  # the keys change while an envelope is open
        {"match": _CHARGE, "do": "drop_answer"},
        {"match": {"call": ["charge_search", "charge"], "nth": 1}, "do": "rotated_keys"},
    )),
    Kind("revoked_device",   0.002, ({"match": _N, "do": "revoked_device", "seconds": [30, 400]},)),
    Kind("unclaimed_device", 0.002, ({"match": _N, "do": "unclaimed_device"},)),
    Kind("unreachable",      0.003, ({"match": _N, "do": "unreachable", "how": ["refused", "silence"]},)),
    Kind("outage",           0.002, ({"match": _N, "do": "outage", "seconds": [20, 90, 600],
                                      "how": ["refused", "silence"]},)),
    Kind("duplicate",        0.002, ({"match": _PAY, "do": "duplicate", "seconds": [0, 3],
                                      "heard": ["first", "second"]},)),
    Kind("reorder",          0.002, ({"match": _PAY, "do": "reorder", "seconds": [1, 20, 100],
                                      "how": ["cut", "silence"]},)),
    Kind("cut_request",      0.002, ({"match": _PAY, "do": "cut_request"},)),
    Kind("power_cut_before", 0.002, ({"match": _PAY, "do": "power_cut", "when": "before"},)),
    Kind("power_cut_way",    0.003, ({"match": _PAY, "do": "power_cut", "when": "under_way"},)),
    Kind("power_cut_unread", 0.003, ({"match": _PAY, "do": "power_cut", "when": "unread"},)),
)  # fmt: skip
"""At the calls between terminal and host."""

_C, _P, _W, _S, _R = (
    {"op": op, "nth": [1, 2, 3] if op == "commit" else 1}
    for op in ("commit", "checkpoint", "write", "sync", "replace")
)

AT_THE_DISK: tuple[Kind, ...] = (
    #    name                  often         rules
    Kind("full",               0.002, disk=({"match": {"nth": [1, 2, 3]}, "do": "full"},)),
    Kind("read_only",          0.002, disk=({"match": {"nth": [1, 2, 3]}, "do": "read_only"},)),
    Kind("fsync_fails",        0.002, disk=({"match": {"nth": [1, 2, 3]}, "do": "fsync_fails"},)),
    Kind("lost",               0.003, disk=({"match": {"nth": [1, 2, 3]}, "do": "lost"},)),
    Kind("cut_commit",         0.0045, disk=({"match": _C, "do": "power_cut", "when": _WHEN},)),
    Kind("cut_checkpoint",     0.005, disk=({"match": _P, "do": "power_cut", "when": _WHEN},)),
    Kind("cut_write",          0.0045, disk=({"match": _W, "do": "power_cut", "when": _WHEN},)),
    Kind("cut_sync",           0.0045, disk=({"match": _S, "do": "power_cut", "when": _WHEN},)),
    Kind("cut_replace",        0.0045, disk=({"match": _R, "do": "power_cut", "when": _WHEN},)),
)  # fmt: skip
"""At the terminal's disk. One that waits for an operation stays until it comes, whatever goes wrong at calls."""

EVERYTHING: tuple[Kind, ...] = AT_CALLS + AT_THE_DISK
