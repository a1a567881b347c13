"""What may go wrong, as data: match -> what happens; the first match wins, an unknown word is a FaultError.

In JSON, or the same in TOML with ``[[rules]]``::

    {"rules": [
        {"match": {"call": "charge", "nth": 2}, "do": "drop_answer"},
        {"match": {"amount": 4242}, "do": "status", "status": 503, "retry_after": 2},
        {"match": {"card": "visa", "probability": 0.01}, "do": "delay", "seconds": 3.5}
     ],
     "line": [{"match": {"nth": 3}, "do": "split"}],
     "disk": [{"match": {"op": "commit", "nth": 7}, "do": "power_cut", "when": "during"}]}

``match`` (all that is given must hold; left out, it always does): ``nth``, ``times`` and ``probability`` for every
rule (``sim.faults.grammar``). ``rules``, those for calls, know besides

- ``call``: the name of a call (``sim.host.call_names.CALLS``); ``device_id``;
- ``amount`` in minor units, of a charge or a refund;
- ``card`` of a charge: the first digits (as far as the masked PAN shows them), or the card's network.

Those for the ``disk`` know ``op`` (commit, checkpoint, write, sync, replace) and ``file``.

Done by the host, a real one too:

====================  ======================================================================================
``delay``             waits ``seconds``, then goes on as if nothing had been
``status``            answers ``status`` with an error body (``code``, ``message``, ``retry_after`` seconds)
``html``              answers a page of HTML with ``status``, as a proxy does
``cached_5xx``        a 500, which the idempotency key stands for from then on; ``acted`` (true) or not
``drop_request``      the host never sees the request; ``how``: the connection is ``cut``, or there is ``silence``
``drop_answer``       the host acts, and there is no answer; ``how`` as above
``cut``               the host acts, and the connection closes in the middle of the answer
``drip``              the host acts, and its answer comes ``size`` bytes (1) every ``seconds``
``corrupt``           the host acts, and one byte of the answer is another (``at`` says which, or the seed)
``corrupt_request``   one byte of the request is another when the host sees it (``at``)
``wrong_mac``         a signed request's signature does not fit; the key blocks in an answer have wrong MACs
``wrong_kcv``         every KCV in the answer has another first digit
``wrong_key``         the answer's envelope is sealed under a key that nobody has
``other_amount``      the answer is for one minor unit more than was asked
``other_charge_id``   the answer bears a charge id that is nobody's
``old_charge_id``     the answer bears the id of this terminal's last other charge (of nobody's, without one)
``clock``             the host's clock is ``seconds`` ahead (or behind, below zero) for this call
``late_approval``     a charge is pending for ``seconds``; its answer comes then, and says approved whatever has
                      become of it meanwhile
``expired_token``     the token of this call, or else the device's, has just expired
``rotated_keys``      the device's key sets are superseded: 4011 until it takes new ones
``revoked_device``    the device is revoked (4031), for ``seconds`` or for good
``unclaimed_device``  the merchant has given the device up (4031): it must pair again
====================  ======================================================================================

Done by the network between, in ``sim.world`` alone:

====================  ======================================================================================
``unreachable``       no connection: ``how`` ``refused``, or ``silence`` until the caller's timeout
``outage``            the same (``how``: ``silence``) for all, for ``seconds``; what was under way comes after it
``duplicate``         the request arrives again ``seconds`` (0) after it was answered; ``heard`` says which
                      answer the caller gets, the ``first`` or the ``second``
``reorder``           the request arrives ``seconds`` later, its caller gone (``how``: ``cut`` or ``silence``)
``cut_request``       half of the request's body arrives, and the connection breaks
``power_cut``         the terminal's power goes: ``when`` is ``before`` the request leaves, with it ``under_way``,
                      or with the answer come and ``unread``
====================  ======================================================================================

On a serial line (``sim.reader.line``): ``drop``, ``split`` (``size``, ``seconds``), ``double``, ``corrupt``
(``at``), ``stall`` (``seconds``), ``unplug``.

By the disk (``sim.disk``): ``full``, ``read_only``, ``fsync_fails``, ``power_cut`` (``when``: ``before``,
``during`` or ``after``), and ``lost``: the same in the middle, and all that was not synchronised is lost.

``status`` and ``html`` with ``"acted": true`` come after the host has acted.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from sim.faults.disk import AnyDiskRule
from sim.faults.grammar import MAX_RULES, Chooser, FaultError, Rule, decode, kind
from sim.faults.line import AnyLineRule
from sim.faults.wire import PLACE, AnyRule, Faults, Place, Seen, check, parse

__all__ = [
    "PLACE",
    "AnyDiskRule",
    "AnyLineRule",
    "AnyRule",
    "Chooser",
    "FaultDocument",
    "FaultError",
    "Faults",
    "Place",
    "Rule",
    "Seen",
    "kind",
    "parse",
    "parse_document",
]


class FaultDocument(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Rules for everything: calls, the reader's line, the disk."""

    rules: Annotated[list[AnyRule], Meta(max_length=MAX_RULES)] = []
    line: Annotated[list[AnyLineRule], Meta(max_length=MAX_RULES)] = []
    disk: Annotated[list[AnyDiskRule], Meta(max_length=MAX_RULES)] = []


def parse_document(document: bytes | str, *, toml: bool = False) -> FaultDocument:
    """All the rules in a JSON or TOML document for a world; FaultError on what makes no sense."""
    parsed = decode(document, FaultDocument, toml=toml)
    check(parsed.rules, network=True)
    return parsed
