"""The rules for calls: what may go wrong at the host, and on the way to it and back.

``PLACE`` says of each kind who does it. What the host does, a real host (``till host``) does too; what the network
does needs ``sim.network`` in between, and so exists in ``sim.world`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from sim.faults.grammar import MAX_RULES, At, Chooser, Count, FaultError, Match, Rule, Seconds, decode, kind
from sim.host.call_names import CALLS, PAYMENT_CALLS
from sim.host.outcomes import NETWORKS

CARD_NETWORKS = frozenset(name for *_, name in NETWORKS) | {"unknown"}

Status = Annotated[int, Meta(ge=400, le=599)]
How = Literal["cut", "silence"]
"""How what does not come does not come: the connection is closed, or nothing is heard and the caller times out."""


class CallMatch(Match, frozen=True, kw_only=True):
    """When a rule for calls applies."""

    call: str | None = None
    device_id: str | None = None
    amount: Count | None = None
    card: Annotated[str, Meta(pattern=r"^([0-9]{1,6}|[a-z]{1,16})$")] | None = None


class CallRule(Rule, frozen=True, kw_only=True):
    """A rule for calls."""

    match: CallMatch = CallMatch()

    @property
    def reaches_host(self) -> bool:
        """Whether the host judges the request, and acts on it."""
        return True


class Delay(CallRule, frozen=True, tag="delay"):
    """Wait, then go on."""

    seconds: Seconds


class ErrorStatus(CallRule, frozen=True, tag="status"):
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


class Html(CallRule, frozen=True, tag="html"):
    """A page of HTML."""

    status: Annotated[int, Meta(ge=200, le=599)] = 200
    acted: bool = False

    @property
    def reaches_host(self) -> bool:
        """Only where that was asked for."""
        return self.acted


class Cached5xx(CallRule, frozen=True, tag="cached_5xx"):
    """A 500 that the idempotency key stands for from now on."""

    acted: bool = True


class DropRequest(CallRule, frozen=True, tag="drop_request"):
    """No answer, and nothing done."""

    how: How = "cut"

    @property
    def reaches_host(self) -> bool:
        """Never."""
        return False


class DropAnswer(CallRule, frozen=True, tag="drop_answer"):
    """Done, and no answer."""

    how: How = "cut"


class Cut(CallRule, frozen=True, tag="cut"):
    """Done, and half an answer."""


class Drip(CallRule, frozen=True, tag="drip"):
    """Done, and an answer that comes ``size`` bytes at a time."""

    seconds: Seconds
    size: Count = 1


class Corrupt(CallRule, frozen=True, tag="corrupt"):
    """Done, and one byte of the answer is another."""

    at: At | None = None


class CorruptRequest(CallRule, frozen=True, tag="corrupt_request"):
    """One byte of the request is another when it arrives."""

    at: At | None = None


class WrongMac(CallRule, frozen=True, tag="wrong_mac"):
    """MACs that do not fit, in either direction."""


class WrongKcv(CallRule, frozen=True, tag="wrong_kcv"):
    """KCVs that are not the keys'."""


class WrongKey(CallRule, frozen=True, tag="wrong_key"):
    """An envelope under another key."""


class OtherAmount(CallRule, frozen=True, tag="other_amount"):
    """An answer to another question."""


class OtherChargeId(CallRule, frozen=True, tag="other_charge_id"):
    """An answer with a charge id that is nobody's."""


class OldChargeId(CallRule, frozen=True, tag="old_charge_id"):
    """An answer with the id of an earlier charge."""


class Clock(CallRule, frozen=True, tag="clock"):
    """The host's clock is off."""

    seconds: Annotated[float, Meta(ge=-(10**9), le=10**9)]


class LateApproval(CallRule, frozen=True, tag="late_approval"):
    """An issuer that takes its time."""

    seconds: Seconds


class ExpiredToken(CallRule, frozen=True, tag="expired_token"):
    """Tokens whose time is over."""


class RotatedKeys(CallRule, frozen=True, tag="rotated_keys"):
    """Key sets that are superseded."""


class RevokedDevice(CallRule, frozen=True, tag="revoked_device"):
    """A device that may not call."""

    seconds: Seconds | None = None


class UnclaimedDevice(CallRule, frozen=True, tag="unclaimed_device"):
    """A device that its merchant gave up."""


class Unreachable(CallRule, frozen=True, tag="unreachable"):
    """No connection."""

    how: Literal["refused", "silence"] = "refused"


class Outage(CallRule, frozen=True, tag="outage"):
    """No connection for a while, to anybody on this network."""

    seconds: Seconds
    how: Literal["refused", "silence"] = "silence"


class Duplicate(CallRule, frozen=True, tag="duplicate"):
    """The request arrives twice."""

    seconds: Seconds = 0.0
    heard: Literal["first", "second"] = "first"


class Reorder(CallRule, frozen=True, tag="reorder"):
    """The request arrives when its caller has gone."""

    seconds: Seconds
    how: How = "cut"


class CutRequest(CallRule, frozen=True, tag="cut_request"):
    """Half of the request arrives."""


class PowerCutAtCall(CallRule, frozen=True, tag="power_cut"):
    """The terminal's power goes."""

    when: Literal["before", "under_way", "unread"]


AnyRule = (
    Delay | ErrorStatus | Html | Cached5xx | DropRequest | DropAnswer | Cut | Drip | Corrupt | CorruptRequest
    | WrongMac | WrongKcv | WrongKey | OtherAmount | OtherChargeId | OldChargeId | Clock | LateApproval
    | ExpiredToken | RotatedKeys | RevokedDevice | UnclaimedDevice
    | Unreachable | Outage | Duplicate | Reorder | CutRequest | PowerCutAtCall
)  # fmt: skip


class Place(Enum):
    """Who does what a rule says."""

    HOST = "host"
    NETWORK = "network"


PLACE: dict[str, Place] = {
    "delay": Place.HOST,
    "status": Place.HOST,
    "html": Place.HOST,
    "cached_5xx": Place.HOST,
    "drop_request": Place.HOST,  # these four by not answering, or by closing the connection
    "drop_answer": Place.HOST,
    "cut": Place.HOST,
    "drip": Place.HOST,
    "corrupt": Place.HOST,
    "corrupt_request": Place.HOST,
    "wrong_mac": Place.HOST,
    "wrong_kcv": Place.HOST,
    "wrong_key": Place.HOST,
    "other_amount": Place.HOST,
    "other_charge_id": Place.HOST,
    "old_charge_id": Place.HOST,
    "clock": Place.HOST,
    "late_approval": Place.HOST,
    "expired_token": Place.HOST,
    "rotated_keys": Place.HOST,
    "revoked_device": Place.HOST,
    "unclaimed_device": Place.HOST,
    "unreachable": Place.NETWORK,  # a server that runs is reachable
    "outage": Place.NETWORK,
    "duplicate": Place.NETWORK,
    "reorder": Place.NETWORK,
    "cut_request": Place.NETWORK,
    "power_cut": Place.NETWORK,  # of the terminal, at a moment that only the network sees
}
"""Every kind, and who does it."""


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """A document of rules for calls."""

    rules: Annotated[list[AnyRule], Meta(max_length=MAX_RULES)]


def parse(document: bytes | str, *, toml: bool = False, network: bool = False) -> list[AnyRule]:
    """The rules in a JSON or TOML document; FaultError on an unknown word or a value that makes no sense.

    Without ``network`` those that a network must do are refused as well.
    """
    return check(decode(document, Rules, toml=toml).rules, network=network)


def check(rules: list[AnyRule], *, network: bool) -> list[AnyRule]:
    """The rules, held to what their shapes cannot say; FaultError."""
    for number, rule in enumerate(rules):
        call, card, where = rule.match.call, rule.match.card, f"faults: rules[{number}]"
        if call is not None and call not in CALLS:
            raise FaultError(f"{where}.match.call: {call!r} is no call (one of {', '.join(CALLS)})")
        if card is not None and not card.isdigit() and card not in CARD_NETWORKS:
            names = ", ".join(sorted(CARD_NETWORKS))
            raise FaultError(f"{where}.match.card: {card!r} is neither the first digits nor one of {names}")
        if rule.match.amount is not None and call is not None and call not in PAYMENT_CALLS:
            raise FaultError(f"{where}.match.amount: {call!r} has no amount")
        if card is not None and call not in (None, "charge"):
            raise FaultError(f"{where}.match.card: {call!r} has no card")
        if PLACE[kind(rule)] is Place.NETWORK and not network:
            raise FaultError(
                f"{where}: {kind(rule)!r} is done by the network of a simulated world; a host that is a process of"
                " its own cannot do it"
            )
    return rules


class Seen(Struct, frozen=True):
    """What is inside a payment request's envelope; None where that cannot be known."""

    amount: int | None = None
    masked_pan: str = ""
    network: str | None = None


NOTHING_SEEN = Seen()


class Faults(Chooser[AnyRule]):
    """The rules for calls. ``network``: whether there is a simulated one, which does what a host cannot."""

    def __init__(self, random: Any, rules: list[AnyRule] | None = None, *, network: bool = False) -> None:
        super().__init__(random, rules)
        self.network = network
        self.revoked_until: dict[str, float] = {}
        """Devices that a rule has revoked for a while: by id, until when (seconds since 1970)."""

    def choose(
        self,
        call: str | None,
        device_id: Callable[[], str | None],
        peek: Callable[[], Seen] = lambda: NOTHING_SEEN,
        *,
        network: bool = False,
    ) -> AnyRule | None:
        """The first rule that matches the call; ``device_id`` and ``peek`` are asked only where a rule wants them.

        ``network``: whether whoever asks can do what a network does; else such rules match nothing.
        """
        looked: list[Seen] = []

        def inside() -> Seen:
            if not looked:
                looked.append(peek())
            return looked[0]

        def fits(rule: AnyRule) -> bool:
            match = rule.match
            return (
                (network or PLACE[kind(rule)] is Place.HOST)
                and (match.call is None or match.call == call)
                and (match.device_id is None or match.device_id == device_id())
                and (match.amount is None or match.amount == inside().amount)
                and (match.card is None or _is_card(match.card, inside()))
            )

        return self.first(fits)


def _is_card(wanted: str, seen: Seen) -> bool:
    return seen.masked_pan.startswith(wanted) if wanted.isdigit() else seen.network == wanted
