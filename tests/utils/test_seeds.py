"""Random numbers are functions of names, on every machine and in any order."""

from __future__ import annotations

import itertools

from utils.seeds import item_rng, stable_seed


def test_seed_is_the_same_on_every_machine() -> None:
    # the first 63 bits of the SHA-256 of "int:0", 0x1f, "str:name"
    assert stable_seed(0, "name") == 0x627CCB830818658E
    assert stable_seed(0, "name") < 2**63


def test_seeds_of_different_names_differ() -> None:
    names = [(0,), (1,), ("0",), (0, 0), (0, ""), ("a", "b"), ("ab",), ("b", "a"), (-1,)]
    assert len({stable_seed(*name) for name in names}) == len(names)


def test_augmentation_is_a_function_of_seed_epoch_and_index() -> None:
    keys = list(itertools.product(range(2), repeat=3))
    draws = {key: item_rng(*key).random() for key in reversed(keys)}
    assert draws == {key: item_rng(*key).random() for key in keys}
    assert len(set(draws.values())) == len(keys)
