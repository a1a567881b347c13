"""What holds a secret shows its kind alone, and does not leave the process."""

from __future__ import annotations

from typing import Any, NoReturn


class Masked:
    """A base: the repr is the name of the class, and ``pickle`` does not take it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets: it is not for pickling")
