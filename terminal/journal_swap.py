"""A new journal put in the place of a damaged one: whenever the power goes, one of the two is there, whole.

The new one is made complete under another name, and synchronised. Then a plan is written, durably: from that moment
it is the new one that counts. What is left to do then (the old files renamed, their keys overwritten, the new ones
renamed into their place) may be done twice, and is finished by whoever opens the journal next. Without a plan a new
one is what a cut has left of the making of it, and is removed.

journal.next.db, journal.next.keys                    the new one, while it is made
journal.db.setting-aside                              the plan
journal.db.damaged-<UTC time>, -wal, -shm, -keys      the old one, afterwards
journal.db.damaged-<UTC time>-report                  the plan, once it is done: what could be proved of the old one
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from terminal.clock import Random
from terminal.disk import Disk
from terminal.errors import JournalDamaged, JournalUnwritable
from terminal.journal_file import keys_path, translated

KEYS: Final = "-keys"
_SIDES: Final = (KEYS, "-shm", "-wal", "")
"""The files of a journal, by what is added to the name of the one that was set aside; the database comes last."""
_ASIDE: Final = r"\.damaged-[0-9]{8}T[0-9]{6}Z"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with the old files, and, for the report, what was found in them (as in ``SetAside``).

    ``aside`` is the database's new name; ``sides`` are the files that there are, as what is added to that name.
    """

    aside: str
    sides: tuple[str, ...]
    records: int
    breaks_at: int
    why: str
    unproved: tuple[str, ...]

    def moved(self, folder: Path) -> tuple[Path, ...]:
        """The old files where they are in the end, the database first."""
        found = (folder / (self.aside + side) for side in reversed(self.sides))
        return tuple(file for file in found if file.exists())

    def report(self, folder: Path) -> Path:
        """The plan's own name in the end."""
        return folder / f"{self.aside}-report"


def next_path(path: Path) -> Path:
    """Where the new journal is made."""
    return path.with_name(f"{path.stem}.next{path.suffix}")


def aside_name(path: Path, when: str) -> str:
    """The old database's name in the end; raises JournalUnwritable where there is one of that name."""
    target = path.with_name(f"{path.name}.damaged-{when}")
    if target.exists():
        raise JournalUnwritable(f"{target} exists already", advice="Wait a second, then try again.")
    return target.name


def sides_of(path: Path) -> tuple[str, ...]:
    """Which files a journal has."""
    return tuple(side for side in _SIDES if _place(path, side).exists())


def is_under_way(path: Path) -> bool:
    """Whether the journal is being set aside, or that was cut short: it is not to be read before that is done."""
    return _plan_path(path).exists()


def complete(new: Path, disk: Disk) -> None:
    """Have the new journal, which is closed, on the disk; raises JournalUnwritable where its WAL is left."""
    with translated(new):
        if new.with_name(new.name + "-wal").exists():
            raise JournalUnwritable(f"{new} cannot be written", advice="Free or repair the disk, then try again.")
        disk.sync(new)
        disk.sync(keys_path(new))


def discard(path: Path) -> None:
    """Remove what there is of a new journal that is not to be. Raises JournalUnwritable."""
    new = next_path(path)
    files = [new.with_name(new.name + side) for side in ("", "-wal", "-shm")]
    half_written = [file.with_name(file.name + ".new") for file in (keys_path(new), _plan_path(path))]
    with translated(path):
        for file in (*files, keys_path(new), *half_written):
            if file.exists():
                file.unlink()


def swap(path: Path, plan: Plan, disk: Disk, random: Random) -> None:
    """Put the new journal, which is complete and closed, in the place of the old one. Raises JournalUnwritable."""
    with translated(path):
        disk.sync(path.parent)
        disk.replace(_plan_path(path), msgspec.json.encode(plan))
    _carry_out(path, plan, disk, random)


def settle(path: Path, disk: Disk, random: Random) -> Plan | None:
    """Finish what was cut short, or undo it where it had not come far enough; the plan that was finished.

    For the one writer, before it opens the journal. Raises JournalUnwritable, and JournalDamaged for a plan that
    cannot be ours.
    """
    if not is_under_way(path):
        discard(path)
        return None
    plan = _read_plan(path, disk)
    _carry_out(path, plan, disk, random)
    return plan


def _carry_out(path: Path, plan: Plan, disk: Disk, random: Random) -> None:
    """Every step of it may have been done before, and the one after it not."""
    folder, new = path.parent, next_path(path)
    with translated(path):
        for side in plan.sides:
            source, target = _place(path, side), folder / (plan.aside + side)
            if source.exists() and not target.exists():
                disk.rename(source, target)
        disk.sync(folder)
        old_keys = folder / (plan.aside + KEYS)
        if KEYS in plan.sides and old_keys.exists():  # what was sealed is kept once, under the new one's keys
            disk.write(old_keys, 0, random(old_keys.stat().st_size))
            disk.sync(old_keys)
        for source, target in ((keys_path(new), keys_path(path)), (new, path)):
            if source.exists():
                disk.rename(source, target)
        disk.sync(folder)
        disk.rename(_plan_path(path), plan.report(folder))
        disk.sync(folder)


def _read_plan(path: Path, disk: Disk) -> Plan:
    with translated(path):
        text = disk.read(_plan_path(path))
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError):
        plan = None
    if (
        plan is None
        or not re.fullmatch(re.escape(path.name) + _ASIDE, plan.aside)
        or not set(plan.sides) <= set(_SIDES)
        or not (next_path(path).exists() or (path.exists() and path.with_name(plan.aside).exists()))
    ):
        raise JournalDamaged(
            f"{path} was being set aside, and {_plan_path(path).name} cannot be followed",
            advice="Put the files back from a copy of this folder.",
        )
    return plan


def _plan_path(path: Path) -> Path:
    return path.with_name(path.name + ".setting-aside")


def _place(path: Path, side: str) -> Path:
    """Where a journal's file is, by what is added to the name of one that was set aside."""
    return keys_path(path) if side == KEYS else path.with_name(path.name + side)
