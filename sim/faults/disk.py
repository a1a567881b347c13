"""The rules for a terminal's disk: what it refuses, and what it forgets."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sim.faults.grammar import Match, Rule

Operation = Literal["commit", "checkpoint", "write", "sync", "rename", "replace"]
"""What a disk is asked to do (``sim.disk``)."""


class DiskMatch(Match, frozen=True, kw_only=True):
    """When a rule for the disk applies: ``op``, and ``file``, the name of a file without its folders."""

    op: Operation | None = None
    file: Annotated[str, Meta(max_length=255)] | None = None


class DiskRule(Rule, frozen=True, kw_only=True):
    """A rule for one operation of the disk."""

    match: DiskMatch = DiskMatch()


class Full(DiskRule, frozen=True, tag="full"):
    """There is no room: for this operation, unless ``times`` says for how many."""


class ReadOnly(DiskRule, frozen=True, tag="read_only"):
    """Nothing may be written."""


class FsyncFails(DiskRule, frozen=True, tag="fsync_fails"):
    """It could not be synchronised; whether it is there, only whoever reads it again learns."""


class PowerCutAtDisk(DiskRule, frozen=True, tag="power_cut"):
    """The power goes; what was not synchronised is there, or not, or in part, by the seed."""

    when: Literal["before", "during", "after"] = "during"


class Lost(DiskRule, frozen=True, tag="lost"):
    """The power goes in the middle of it, and all that was not synchronised is lost."""


AnyDiskRule = Full | ReadOnly | FsyncFails | PowerCutAtDisk | Lost
