"""What has to hold: in every state, and once nothing is left to happen."""

from __future__ import annotations

from sim.prove import records
from sim.prove.states import UNKNOWN, Bounds, Shown, World
from terminal.payment import OPEN, Kind, State

STANDING = frozenset({State.APPROVED, State.PARTIALLY_REFUNDED})
NOT_SENT = frozenset({State.OFFLINE, State.FORWARDING, State.LOST})


def always(world: World) -> str:
    """What the state breaks, whatever comes next; empty where it breaks nothing."""
    standing = [number for number, charge in enumerate(world.booked) if charge.stands]
    if len(standing) > 1:
        return "two charges stand under one reference"
    for slot, record in enumerate(world.journal):
        if record.kind is not Kind.CHARGE:
            continue
        if record.state in STANDING | {State.HELD} and record.charge == UNKNOWN:
            return f"payment {slot} is {record.state}, and nobody knows which charge of the host's it is"
        if record.state in STANDING and world.booked[record.charge].amount != record.approved:
            return f"payment {slot} is approved for another amount than the host has"
        others = {
            row.charge for other, row in enumerate(world.journal) if row.kind is Kind.CHARGE and other != slot
        }
        if record.charge != UNKNOWN and record.charge in others:
            return "one charge of the host's is taken for two payments"
    if world.shown is Shown.APPROVED and not world.wants and not _exists(world, standing):
        return "the shopper saw an approval, and there is no such charge"
    return ""


def at_rest(world: World, bounds: Bounds, persons: list[int]) -> str:
    """What is wrong if nothing is left to happen. ``persons``: payments that are left to one."""
    if persons and not bounds.person:
        return f"payment {persons[0]} is left to a person"
    theirs = {*persons, *(world.journal[slot].parent for slot in persons)}
    open_ones = [slot for slot, row in enumerate(world.journal) if row.state in OPEN and slot not in theirs]
    if open_ones:
        return f"payment {open_ones[0]} is {world.journal[open_ones[0]].state}, and nothing goes on with it"
    if persons:
        return ""
    charges = [row for row in world.journal if row.kind is Kind.CHARGE]
    for number, charge in enumerate(world.booked):
        mine = [row for row in charges if row.charge == number]
        known = any(row.state in STANDING for row in mine)
        if charge.stands and not known:
            states = ", ".join(row.state for row in mine or charges)
            return f"charge {number} stands at the host, and the journal says {states}"
        if known and not charge.stands and not (charge.by_others or charge.others):
            return f"charge {number} does not stand at the host, and the journal says approved"
        ours = range(charge.refunded - charge.others, charge.refunded + 1)  # theirs may be learned of, or not
        if any(row.refunded not in ours for row in mine) and not charge.by_others:
            return (
                f"of charge {number} the host has given back {charge.refunded}, and the journal has another figure"
            )
        if charge.stands and world.left and world.shown is not Shown.APPROVED:
            return "the shopper left without an approval, and pays"
        if charge.stands and world.shown is Shown.DECLINED:
            return "the shopper saw no approval, and pays"
    return ""


def _exists(world: World, standing: list[int]) -> bool:
    if standing or any(charge.by_others or charge.others for charge in world.booked):
        return True
    last = records.last_charge(world.journal)
    return last != UNKNOWN and world.journal[last].state in NOT_SENT
