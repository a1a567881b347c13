"""What may go wrong between a terminal and its host, as data: match -> what happens; the first match wins.

In JSON, or the same in TOML with ``[[rules]]``::

    {"rules": [
        {"match": {"call": "charge", "nth": 2}, "do": "drop_answer"},
        {"match": {"amount": 4242}, "do": "status", "status": 503, "retry_after": 2},
        {"match": {"probability": 0.01}, "do": "delay", "seconds": 3.5}
    ]}

``match`` (all that is given must hold; an empty one matches every call):

- ``call``: the name of a call (``sim.host.calls.CALLS``); ``device_id``;
- ``amount`` in minor units, of a charge or a refund;
- ``nth``: only the n-th call that the rest of the match fits, from 1; ``times``: only the first that many of them;
- ``probability``: 0 to 1, drawn from the seed.

``do``:

====================  ======================================================================================
``delay``             waits ``seconds``, then goes on as if nothing had been
``status``            answers ``status`` with an error body (``code``, ``message``, ``retry_after`` seconds)
``html``              answers a page of HTML with ``status``, as a proxy does
``drop_request``      closes the connection, and the host never sees the request
``drop_answer``       the host acts, and the connection closes without an answer
``cut``               the host acts, and the connection closes in the middle of the answer
``corrupt``           the host acts, and one byte of the answer is another (``at`` says which, or the seed)
``wrong_kcv``         every KCV in the answer has another first digit
``wrong_key``         the answer's envelope is sealed under a key that nobody has
``other_amount``      the answer is for one minor unit more than was asked
``clock``             the host's clock is ``seconds`` ahead (or behind, below zero) for this call
====================  ======================================================================================

``status`` and ``html`` with ``"acted": true`` come after the host has acted. An unknown word is a FaultError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from sim.host.calls import CALLS, PAYMENT_CALLS
from sim.seed import chance
from terminal.clock import Random

MAX_RULES = 1000

Count = Annotated[int, Meta(ge=1, le=10**9)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Status = Annotated[int, Meta(ge=400, le=599)]


class FaultError(Exception):
    """A rule has an unknown word or a value that makes no sense; the message says which."""


class Match(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a rule applies."""

    call: str | None = None
    device_id: str | None = None
    amount: Count | None = None
    nth: Count | None = None
    times: Count | None = None
    probability: Annotated[float, Meta(ge=0, le=1)] | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="do", kw_only=True):
    """A rule: the subclasses are what it does."""

    match: Match = Match()

    @property
    def reaches_host(self) -> bool:
        """Whether the host sees the request, and acts on it."""
        return True


class Delay(Rule, frozen=True, tag="delay"):
    """Wait, then go on."""

    seconds: Seconds


class ErrorStatus(Rule, frozen=True, tag="status"):
    """An error body with this status."""

    status: Status
    code: Annotated[str, Meta(max_length=32)] | None = None
    message: Annotated[str, Meta(max_length=256)] = "A fault that was asked for."
    retry_after: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    acted: bool = False

    @property
    def reaches_host(self) -> bool:
        """Only where that was asked for."""
        return self.acted


class Html(Rule, frozen=True, tag="html"):
    """A page of HTML."""

    status: Annotated[int, Meta(ge=200, le=599)] = 200
    acted: bool = False

    @property
    def reaches_host(self) -> bool:
        """Only where that was asked for."""
        return self.acted


class DropRequest(Rule, frozen=True, tag="drop_request"):
    """No answer, and nothing done."""

    @property
    def reaches_host(self) -> bool:
        """Never."""
        return False


class DropAnswer(Rule, frozen=True, tag="drop_answer"):
    """Done, and no answer."""


class Cut(Rule, frozen=True, tag="cut"):
    """Done, and half an answer."""


class Corrupt(Rule, frozen=True, tag="corrupt"):
    """Done, and one byte of the answer is another."""

    at: Annotated[int, Meta(ge=0)] | None = None


class WrongKcv(Rule, frozen=True, tag="wrong_kcv"):
    """KCVs that are not the keys'."""


class WrongKey(Rule, frozen=True, tag="wrong_key"):
    """An envelope under another key."""


class OtherAmount(Rule, frozen=True, tag="other_amount"):
    """An answer to another question."""


class Clock(Rule, frozen=True, tag="clock"):
    """The host's clock is off."""

    seconds: Annotated[float, Meta(ge=-(10**9), le=10**9)]


AnyRule = (
    Delay
    | ErrorStatus
    | Html
    | DropRequest
    | DropAnswer
    | Cut
    | Corrupt
    | WrongKcv
    | WrongKey
    | OtherAmount
    | Clock
)

TWISTS = {WrongKey: "wrong_key", OtherAmount: "other_amount"}
"""Rules that change what the host seals, and so are applied by it."""


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """A document of rules."""

    rules: Annotated[list[AnyRule], Meta(max_length=MAX_RULES)]


def parse(document: bytes | str, *, toml: bool = False) -> list[AnyRule]:
    """The rules in a JSON or TOML document; FaultError on an unknown word or a value that makes no sense."""
    try:
        decoder = msgspec.toml.decode if toml else msgspec.json.decode
        rules = decoder(document, type=Rules).rules
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FaultError(f"faults: {error}") from None
    for number, rule in enumerate(rules):
        call = rule.match.call
        if call is not None and call not in CALLS:
            raise FaultError(f"faults: rules[{number}].match.call: {call!r} is no call (one of {', '.join(CALLS)})")
        if rule.match.amount is not None and call is not None and call not in PAYMENT_CALLS:
            raise FaultError(f"faults: rules[{number}].match.amount: {call!r} has no amount")
    return rules


class Faults:
    """The rules in force. ``random`` decides what probability leaves open."""

    def __init__(self, random: Random, rules: list[AnyRule] | None = None) -> None:
        self.random = random
        self.replace(rules or [])

    def replace(self, rules: list[AnyRule]) -> None:
        """These rules in place of those before; all counts start again."""
        self.rules = list(rules)
        self.seen: list[int] = [0] * len(rules)
        self.fired: list[int] = [0] * len(rules)
        self.by_kind: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def choose(self, call: str | None, device_id: str | None, amount: Callable[[], int | None]) -> AnyRule | None:
        """The first rule that matches the call; ``amount`` is asked only where a rule wants to know it."""
        for number, rule in enumerate(self.rules):
            match = rule.match
            if (
                (match.call is not None and match.call != call)
                or (match.device_id is not None and match.device_id != device_id)
                or (match.amount is not None and match.amount != amount())
            ):
                continue
            self.seen[number] += 1
            seen = self.seen[number]
            if (match.nth is not None and seen != match.nth) or (match.times is not None and seen > match.times):
                continue
            if match.probability is not None and not chance(self.random, match.probability):
                continue
            self.fired[number] += 1
            self.by_kind[kind(rule)] += 1
            return rule
        return None

    def public(self) -> dict[str, object]:
        """As ``GET /sim/faults`` shows them; ``seen`` and ``fired`` count what each matched and did."""
        return {"rules": msgspec.to_builtins(self.rules), "seen": self.seen, "fired": self.fired}


def kind(rule: AnyRule) -> str:
    """The rule's word: ``"drop_answer"``."""
    tag = rule.__struct_config__.tag
    return str(tag)
