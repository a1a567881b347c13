"""What every rule has in common: when it applies, how it is counted, and what is refused.

A rule has ``match`` (all that is given must hold; left out, it always does) and ``do``. Three words of ``match``
belong to every kind of rule:

- ``nth``: only the n-th time that the rest of the match fits, from 1; ``times``: only the first that many times;
- ``probability``: 0 to 1, drawn from the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from sim.seed import chance
from terminal.clock import Random

MAX_RULES = 1000

Count = Annotated[int, Meta(ge=1, le=10**9)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
At = Annotated[int, Meta(ge=0, le=2**31)]


class FaultError(Exception):
    """A rule has an unknown word or a value that makes no sense; the message says which."""


class Match(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """When a rule applies."""

    nth: Count | None = None
    times: Count | None = None
    probability: Annotated[float, Meta(ge=0, le=1)] | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="do", kw_only=True):
    """A rule: the subclasses are what it does."""

    match: Match = Match()


R = TypeVar("R", bound=Rule)
S = TypeVar("S", bound=Struct)


class Chooser(Generic[R]):
    """Rules in force; the first that fits is done. ``random`` decides what probability leaves open.

    ``seen`` and ``fired`` count, by rule, what it fitted and what it did, since the rules were last replaced.
    ``by_kind`` counts what was done by the rule's word, from the beginning.
    """

    def __init__(self, random: Random, rules: Iterable[R] | None = None) -> None:
        self.random = random
        self.by_kind: Counter[str] = Counter()
        self.replace(rules or [])

    def replace(self, rules: Iterable[R]) -> None:
        """These rules in place of those before; the counts by rule start again."""
        self.rules = list(rules)
        self.seen: list[int] = [0] * len(self.rules)
        self.fired: list[int] = [0] * len(self.rules)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def first(self, fits: Callable[[R], bool]) -> R | None:
        """The first rule that ``fits`` says yes to, and whose turn it is by nth, times and probability."""
        for number, rule in enumerate(self.rules):
            if not fits(rule):
                continue
            self.seen[number] += 1
            seen, match = self.seen[number], rule.match
            if (match.nth is not None and seen != match.nth) or (match.times is not None and seen > match.times):
                continue
            if match.probability is not None and not chance(self.random, match.probability):
                continue
            self.fired[number] += 1
            self.by_kind[kind(rule)] += 1
            return rule
        return None

    def public(self) -> dict[str, Any]:
        """The rules with their counts, as JSON may show them."""
        return {
            "rules": msgspec.to_builtins(self.rules),
            "seen": self.seen,
            "fired": self.fired,
            "by_kind": dict(self.by_kind),
        }


def kind(rule: Rule) -> str:
    """The rule's word: ``"drop_answer"``."""
    return str(rule.__struct_config__.tag)


def decode(document: bytes | str, shape: type[S], *, toml: bool = False) -> S:
    """A document of rules in JSON or TOML; FaultError on an unknown word, with those that are known, or on a value
    that makes no sense."""
    decoder = msgspec.toml.decode if toml else msgspec.json.decode
    try:
        try:
            return decoder(document, type=shape)
        except msgspec.ValidationError:
            for where, word, words in _strange(inspect.type_info(shape), decoder(document), ""):
                raise FaultError(f"faults: {where}{word!r} is unknown (one of {', '.join(words)})") from None
            raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FaultError(f"faults: {error}") from None


def _strange(kind: inspect.Type, value: Any, where: str) -> Iterator[tuple[str, str, list[str]]]:
    """The words of a document that no rule knows: where each stands, the word, and those that may stand there."""
    match kind, value:
        case inspect.ListType(), list():
            for number, each in enumerate(value):
                yield from _strange(kind.item_type, each, f"{where.removesuffix(': ')}[{number}]: ")
        case inspect.UnionType(), dict():
            rules = {str(rule.tag): rule for rule in kind.types if isinstance(rule, inspect.StructType)}
            if (word := value.get("do")) in rules:
                yield from _strange(rules[word], value, where)
            elif isinstance(word, str):
                yield _below(where, "do"), word, sorted(rules)
        case inspect.UnionType(), str():
            for each in kind.types:
                yield from _strange(each, value, where)
        case inspect.StructType(), dict():
            fields = {field.encode_name: field.type for field in kind.fields}
            for name, inner in value.items():
                if name in fields:
                    yield from _strange(fields[name], inner, _below(where, name))
                elif name != kind.tag_field:
                    yield where, name, [*filter(None, [kind.tag_field]), *fields]
        case inspect.LiteralType(), str() if value not in kind.values:
            yield where, value, [str(each) for each in kind.values]


def _below(where: str, name: str) -> str:
    return f"{where.removesuffix(': ')}.{name}: ".removeprefix(".")
