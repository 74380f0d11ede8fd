"""Damage for files of any kind: flipped, lost, doubled and foreign bytes, and telling words."""

from __future__ import annotations

import random
from collections.abc import Sequence

# sizes, numbers, marks and brackets that formats stumble over
_WORDS = (
    b"\xff" * 4,
    b"\0" * 4,
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"\0" * 7 + b"\x80",
    b"-1",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"null",
    b"[]",
    b"{}",
    b"9" * 20,
    b'"',
    b"\x80",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"(",
    b"[",
    b"-",
)
_OPCODES = b"().]}latbRbcioQP0125egjhpqru\x81\x85\x93\x94"


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """``data`` with one to five faults, among them pieces of the ``others``."""
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        _damage(mutated, rng, others)
    return bytes(mutated)


def _damage(mutated: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    mutated += b"" if mutated else b"."
    place, kind = rng.randrange(len(mutated)), rng.randrange(9)
    if kind == 0:
        mutated[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        mutated[place] = rng.randrange(256)
    elif kind == 2:
        mutated.insert(place, rng.choice(_OPCODES))
    elif kind == 3:
        del mutated[place : place + rng.randrange(1, 9)]
    elif kind == 4:
        end = min(len(mutated), place + rng.randrange(1, 60))
        mutated[place:place] = mutated[rng.randrange(place + 1) : end]
    elif kind == 5:
        other = rng.choice(others)
        mutated[place:] = other[rng.randrange(len(other)) :]
    elif kind == 6:
        word = rng.choice(_WORDS)
        mutated[place : place + rng.choice([0, len(word)])] = word
    elif kind == 7:
        mutated[place:place] = rng.choice(_WORDS) * 2000
    else:
        del mutated[place:]


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> list[bytes]:
    """Damaged files, the same ones for the same seed."""
    rng = random.Random(seed)
    return [mutate(rng.choice(seeds), rng, seeds) for _ in range(count)]
