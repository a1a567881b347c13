"""Randomness from a seed, so that one number replays a whole day.

Not fit for real keys: whoever knows the seed knows them all. Without a seed, use ``terminal.clock.system_random``.
"""

from __future__ import annotations

from hashlib import shake_256

from terminal.clock import Random


def seeded(seed: int | bytes, stream: str = "") -> Random:
    """A source of bytes that is the same for the same ``seed`` and ``stream``.

    Two streams of one seed are independent: what one part of a world draws does not shift what another gets.
    """
    text = seed if isinstance(seed, bytes) else str(seed).encode()
    prefix = shake_256(text + b"\0" + stream.encode()).digest(32)
    drawn = 0

    def random(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return shake_256(prefix + drawn.to_bytes(8, "big")).digest(size)

    return random


def pick(random: Random, alphabet: str, length: int) -> str:
    """``length`` characters of ``alphabet`` (at most 256 of them), each as likely as any other."""
    bound = 256 - 256 % len(alphabet)
    text = ""
    while len(text) < length:
        text += "".join(alphabet[byte % len(alphabet)] for byte in random(2 * length) if byte < bound)
    return text[:length]


def chance(random: Random, probability: float) -> bool:
    """True with the given probability."""
    return int.from_bytes(random(6), "big") < probability * 2**48


def corrupted(data: bytes, at: int | None, random: Random) -> bytes:
    """The bytes with one of them changed: the one ``at`` (counted round and round), or one that chance picks."""
    if not data:
        return data
    place = (int.from_bytes(random(4)) if at is None else at) % len(data)
    other = data[place] ^ (1 + random(1)[0] % 255)
    return data[:place] + bytes([other]) + data[place + 1 :]
