"""The tree of errors: what each tells whoever meets it."""

from __future__ import annotations

import re

import pytest

from hw import errors
from hw.errors import ReaderError

TREE = sorted(
    (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ReaderError)),
    key=lambda one: one.__name__,
)
LEAVES = [one for one in TREE if one is not ReaderError]


@pytest.mark.parametrize("error", LEAVES)
def test_every_error_has_an_example_and_a_place_in_the_tree(error: type[ReaderError]) -> None:
    assert re.search(r"^Example: ``[^`]{10,}``\.", error.__doc__ or "")
    assert re.search(rf"\+- {error.__name__} ", errors.__doc__ or "")


@pytest.mark.parametrize("error", LEAVES)
def test_an_error_says_what_happened_and_what_to_do(error: type[ReaderError]) -> None:
    assert str(error("what happened")) == "what happened"
    assert error("what happened").advice == error.advice
    assert error("what happened", advice="Do that.").advice == "Do that."
    assert error.advice == "" or error.advice.endswith(".")


def test_what_an_error_is_also_a_kind_of() -> None:
    kinds = {one.__name__: one.__mro__[1].__name__ for one in LEAVES}
    assert kinds == {
        "BadAddress": "ReaderError",
        "LineError": "ReaderError",
        "LineGone": "LineError",
        "NoAnswer": "LineError",
        "FramingError": "ReaderError",
        "ProtocolError": "ReaderError",
        "CardError": "ReaderError",
        "BadSwipe": "CardError",
        "CardGone": "CardError",
        "NotSupported": "ReaderError",
        "TimedOut": "ReaderError",
        "Cancelled": "ReaderError",
    }
