"""A counterexample in words, and as a test that lives through the same steps in the world.

The world has one way to say what goes wrong with a call: rules, counted by the call. So each question to the host
becomes a rule or none, and what happens while its answer is awaited happens a second after it was asked. What the
world cannot do stands in the test as a remark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sim.prove.search import Found
from sim.prove.states import UNKNOWN, Bounds, Move, Said, World
from terminal.payment import Kind

Path = Sequence[tuple[Move, World]]

CALLS = {Kind.CHARGE: "charge", Kind.REFUND: "refund", Kind.CANCEL: "cancel"}
ASKS = frozenset({"terminal sends", "terminal asks", "terminal reaches nobody"})
COMES = frozenset({"answer comes", "answer for another amount comes"})
LATE = 30.0
"""Seconds that a request which is delayed is under way."""

LATER: dict[str, str] = {
    "what was sent can no longer arrive": "await asyncio.sleep(500)",
    "hours pass": "await asyncio.sleep(20 * 3600)",
    "host may soon forget": "await asyncio.sleep(14_100)",
    "host forgets": "await asyncio.sleep(600)",
    "shopper is thought to have left": "await asyncio.sleep(130)",
    "time to confirm is over": "await asyncio.sleep(200)",
    "terminal begins a round": "await till.resolve()",
    "terminal learns that a refund failed": "await asyncio.sleep(120)\n    await till.resolve()",
    "till asks again": "await charged(till)",
    "till gives up": 'till.abandon("order-17")',
    "till confirms": 'await till.confirm("order-17")',
    "till voids": 'await till.void("order-17")',
    "host settles": 'await world.ask("POST", "/sim/settle", {})',
}
"""What a move is in the world, where it is not a question to the host."""

ANSWERS: dict[str, dict[str, Any]] = {
    "broken": {"do": "cached_5xx"},
    "superseded": {"do": "rotated_keys"},
    "blocked": {"do": "revoked_device", "seconds": 60},
}

AMOUNTS = {"declined": 1251, "pending": 1240}
"""By which amount the simulated host is made to end a charge so."""


class _Question(NamedTuple):
    """A question to the host, and what the world makes of it."""

    call: str
    rule: dict[str, Any] | None
    meanwhile: tuple[str, ...]
    cut: bool


def as_words(found: Found) -> list[str]:
    """A line a step, numbered; a fault has a mark."""
    return [f"{n:3} {'!' if move.fault else ' '} {move}" for n, (move, _) in enumerate(found.path, 1)]


def as_test(found: Found, bounds: Bounds) -> str:
    """The source of a test for pytest. It passes once the bug is gone."""
    lives = list(_lives(found.path))
    counts = Counter[str]()
    rules: list[dict[str, Any]] = []
    programs = []
    for number, life in enumerate(lives, 1):
        programs.append(_program(number, life, rules, counts))
    steps = "\n".join("    " + line for line in as_words(found))
    runs = "\n".join(_run(number, life is not lives[-1]) for number, life in enumerate(lives, 1))
    listed = "".join(f"    {rule!r},\n" for rule in rules)
    return TEST.format(
        broken=found.broken,
        steps=steps,
        minor=_minor(found.path),
        charging=_charging(bounds),
        lookup=bounds.lookup,
        programs="\n".join(programs),
        rules=f"(\n{listed})" if rules else "()",
        runs=runs,
    )


def _lives(path: Path) -> Iterator[list[tuple[Move, World]]]:
    """The path from power cut to power cut. The cut stands at the end of its life."""
    life: list[tuple[Move, World]] = []
    for move, world in path:
        life.append((move, world))
        if move.name == "power is cut":
            yield life
            life = []
    yield life


def _program(number: int, life: Path, rules: list[dict[str, Any]], counts: Counter[str]) -> str:
    lines = []
    index = 0
    while index < len(life):
        move, _ = life[index]
        if move.name in ASKS:
            question, index = _question(life, index)
            counts[question.call] += 1
            if question.rule is not None:
                rules.append({"match": {"call": question.call, "nth": counts[question.call]}, **question.rule})
            if question.meanwhile:
                lines.append("await asyncio.sleep(1)")
                lines.extend(question.meanwhile)
            continue
        lines.extend(_line(move))
        index += 1
    body = "\n".join(f"    {line}" for line in _waiting(lines))
    return f"\nasync def life_{number}(world, till, start, pending):\n{body}\n"


def _waiting(lines: list[str]) -> Iterator[str]:
    """The lines, with only those waits for what was started that have something to wait for."""
    started = False
    for line in (*lines, "await pending()"):
        if line != "await pending()" or started:
            yield line
        started = line != "await pending()" and (started or line.startswith("start("))
    if not lines:
        yield "await pending()"


def _line(move: Move) -> list[str]:
    if move.name == "till charges":
        return ["start(charged(till))"]
    if move.name.startswith("till asks for a "):
        return [f"start({move.name.removeprefix('till asks for a ')}(till))"]
    if move.name == "till gives up and hangs up":
        return ["start(None)"]
    if move.name in LATER:
        return ["await pending()", LATER[move.name]] if "till" not in move.name else [LATER[move.name]]
    if move.name in (
        "back office cancels",
        "somebody else refunds",
        "host revokes the device",
        "host supersedes the key set",
    ):
        return [f"# {move}: the world has no such hand at this moment"]
    return []


def _question(life: Path, index: int) -> tuple[_Question, int]:
    """The question at that index: all until its answer, and where to go on."""
    asked, world = life[index]
    record = world.journal[asked.slot] if asked.slot < len(world.journal) else None
    call = CALLS[record.kind if record is not None else Kind.CHARGE]
    if asked.name == "terminal asks":
        call = "charge_lookup" if record is not None and record.charge != UNKNOWN else "charge_search"
    if asked.name == "terminal reaches nobody":
        return _Question(call, {"do": "unreachable"}, (), cut=False), index + 1
    arrived, meanwhile, said, copied = asked.name == "terminal asks", list[str](), Said(asked.detail), False
    for at in range(index + 1, len(life)):
        move, after = life[at]
        if move.name.startswith("request arrives"):
            arrived, said, copied = True, after.answer or said, "copy" in move.name
        elif move.name in COMES or move.name in ("answer is lost", "terminal waits no longer", "power is cut"):
            cut = move.name == "power is cut"
            rule = _rule(move, said, arrived=arrived, copied=copied, slow=bool(meanwhile), path=life[at:])
            return _Question(call, rule, tuple(meanwhile), cut), at + (0 if cut else 1)
        elif move.name == "till gives up and hangs up":
            return _Question(call, _lost(arrived), (*meanwhile, *_line(move)), cut=False), at + 1
        else:
            meanwhile.extend(_line(move))
    return _Question(call, _lost(arrived), tuple(meanwhile), cut=False), len(life)


def _rule(move: Move, said: Said, *, arrived: bool, copied: bool, slow: bool, path: Path) -> dict[str, Any] | None:
    if move.name == "power is cut":
        return {"do": "power_cut", "when": "unread" if arrived else "under_way"}
    if move.name == "answer for another amount comes":
        return {"do": "other_amount"}
    if move.name == "terminal waits no longer" and not arrived:
        later = any(other.name.startswith("request arrives") for other, _ in path)
        return {"do": "reorder", "seconds": LATE} if later else _lost(arrived)
    if move.name not in COMES:
        return _lost(arrived)
    if said.word in ANSWERS:
        return ANSWERS[said.word]
    if copied:
        return {"do": "duplicate", "seconds": LATE}
    return {"do": "delay", "seconds": 5} if slow else None


def _lost(arrived: bool) -> dict[str, Any]:
    return {"do": "drop_answer" if arrived else "drop_request", "how": "silence"}


def _minor(path: Path) -> int:
    words = {charge.status for _, world in path for charge in world.booked}
    if any(charge.amount == 1 for _, world in path for charge in world.booked):
        return 1230
    return next((minor for word, minor in AMOUNTS.items() if word in words), 1250)


def _charging(bounds: Bounds) -> str:
    said = [f"{name}=True" for name in ("hold", "accept_partial") if getattr(bounds, name)]
    return "".join(f", {word}" for word in said)


def _run(number: int, cut: bool) -> str:
    return f"        live(world, life_{number}, cut={cut})"


TEST = '''"""{broken}

{steps}
"""

import asyncio

from hw.card import ManualCard
from sim.balance import differences, journal_rows, ledger_rows
from sim.host.config import HostConfig
from sim.power import PowerCut
from sim.world import World
from terminal.errors import TillError
from terminal.money import Amount
from terminal.payment import OPEN, Kind, Outcome

ASKED = Amount({minor}, "EUR")
CARD = ManualCard("4111111111111111", "2812")
RULES = {rules}
HOST = {{"offers_lookup": {lookup}, "attempts": 1}}


async def charged(till):
    payment = await till.charge(ASKED, reference="order-17", card=CARD{charging})
    return payment.outcome


async def refund(till):
    charge = till.journal.charge_by_reference("order-17")
    await till.refund(charge.charge_id, Amount(ASKED.minor // 2, "EUR"), reason="returned")


async def cancel(till):
    await till.cancel(till.journal.charge_by_reference("order-17").charge_id)

{programs}

def live(world, life, *, cut):
    """One life of the terminal; where it ends by a power cut, the power goes at its end at the latest."""

    async def program():
        running = []

        def start(asked):
            if asked is None:
                for task in running:
                    task.cancel()
            else:
                running.append(asyncio.create_task(asked))

        async def pending():
            for task in running:
                try:
                    shown.append(await task)
                except (TillError, asyncio.CancelledError):
                    pass
            running.clear()

        async with world.terminal(host=HOST) as till:
            await life(world, till, start, pending)
            if cut:
                world.power.cut("at the end of a life")

    try:
        world.run(world.powered(program()))
    except PowerCut:
        world.power_back()


shown = []


def test_counterexample(tmp_path):
    with World(tmp_path, config=HostConfig(offers_lookup={lookup}, key_set_life=30 * 86_400)) as world:

        async def prepare():
            async with world.activated(host=HOST):
                pass

        world.run(prepare())
        shown.clear()
        world.fault(*RULES)
{runs}
        world.fault()

        async def judge():
            async with world.terminal(host=HOST) as till:
                for _ in range(8):
                    await asyncio.sleep(600)
                    await till.resolve()
                return till.journal.payments(), await world.books()

        payments, books = world.run(world.powered(judge()))
        standing = [charge for charge in books if charge["status"] in ("approved", "pending")]
        assert len(standing) <= 1
        assert [payment for payment in payments if payment.state in OPEN] == []
        ledger = ledger_rows({{"charges": books}}, world.device["terminal_id"])
        assert differences(journal_rows(payments), ledger) == []
        (charge,) = [payment for payment in payments if payment.kind is Kind.CHARGE]
        if Outcome.APPROVED not in shown:
            assert not standing or charge.outcome is Outcome.APPROVED
'''
