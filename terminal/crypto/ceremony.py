"""The key ceremony: a zone master key (ZMK) entered in parts, none of which tells anything of the whole.

Two or three persons each bring one component as long as the key, with its check value; the key is their sum
(exclusive or), and its own check value comes from the other side. ISO 11568 and PCI PIN call this split knowledge.
"""

from __future__ import annotations

import hmac
from binascii import a2b_hex
from collections.abc import Sequence
from typing import Final, NamedTuple

from terminal.crypto.kcv import aes_kcv, kcv_matches
from terminal.errors import KeystoreError

ZMK_LENGTH: Final = 32
"""Bytes of a ZMK and of each of its components: AES-256."""

_COUNTS: Final = (2, 3)
_KCV_LENGTH: Final = 5
_ASK_AGAIN: Final = "Enter it again, from its own sheet."


class Component(NamedTuple):
    """One person's part: the 32 bytes, and the check value (3 to 5 bytes of hex) that is written beside them."""

    value: bytes
    kcv: str

    def __repr__(self) -> str:
        return f"Component(kcv={self.kcv!r})"


def parse_component(number: int, text: str, earlier: Sequence[Component] = ()) -> Component:
    """The component that a person typed, 64 hex digits with spaces allowed; its KCV is yet to be confirmed.

    ``number`` (1, 2, 3) is for the message, ``earlier`` are those typed before. Raises KeystoreError for what
    cannot be one, is all zeros, or was entered before: two that are equal cancel each other out.
    """
    try:
        component = Component(a2b_hex("".join(text.split())), "")
    except ValueError:
        del text
        raise KeystoreError(f"component {number}: it must be 64 hex digits", advice=_ASK_AGAIN) from None
    del text  # a traceback that shows locals is no place for it
    _check_value(number, component, earlier)
    return component


def confirm_component(number: int, component: Component, kcv: str) -> Component:
    """The component with the KCV that was typed for it. Raises KeystoreError where it is another's."""
    confirmed = Component(component.value, "".join(kcv.split()))
    _check_kcv(number, confirmed)
    return confirmed


def _check_value(number: int, component: Component, earlier: Sequence[Component]) -> None:
    name = f"component {number}"
    if len(component.value) != ZMK_LENGTH:
        raise KeystoreError(f"{name}: it must have {ZMK_LENGTH} bytes", advice=_ASK_AGAIN)
    if not any(component.value):
        raise KeystoreError(f"{name}: it is all zeros", advice="Have a new set of components made.")
    for place, other in enumerate(earlier, 1):
        if hmac.compare_digest(component.value, other.value):
            raise KeystoreError(
                f"{name}: it equals component {place}", advice="Each person enters their own sheet."
            )


def _check_kcv(number: int, component: Component) -> None:
    if not kcv_matches(component.kcv, aes_kcv(component.value, _KCV_LENGTH)):
        raise KeystoreError(f"component {number}: its check value does not match", advice=_ASK_AGAIN)


def combine_components(components: Sequence[tuple[bytes, str]], kcv_of_whole: str) -> bytes:
    """The 32 bytes of the ZMK, from two or three components of (value, KCV).

    Raises KeystoreError, which names the component: a wrong length or check value, two components that are equal,
    one of zeros, a whole of zeros or with another check value than ``kcv_of_whole``.
    """
    parts = [Component(*part) for part in components]
    del components
    if len(parts) not in _COUNTS:
        raise KeystoreError("a ZMK is entered as two or three components")
    for number, part in enumerate(parts, 1):
        _check_value(number, part, parts[: number - 1])
        _check_kcv(number, part)
    whole = Component(_sum(parts), kcv_of_whole)
    if not any(whole.value):
        raise KeystoreError("the components add up to zero", advice="Have a new set of components made.")
    if not kcv_matches(whole.kcv, aes_kcv(whole.value, _KCV_LENGTH)):
        raise KeystoreError(
            "the ZMK: the check value of the whole does not match, though each component has its own",
            advice="See that all the components belong to one key, and that none is missing.",
        )
    return whole.value


def _sum(parts: Sequence[Component]) -> bytes:
    total = 0
    for part in parts:
        total ^= int.from_bytes(part.value)
    return total.to_bytes(ZMK_LENGTH)
