"""Training flags: values that no run could use are refused at the start."""

from __future__ import annotations

import math
from typing import Any

import pytest

from utils.flags.groups import Precision
from utils.flags.training import UNLIMITED_STEPS, TrainFlags


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("log_interval", 0),
        ("save_interval", -1),
        ("max_bad_steps", 0),
        ("microbatch", 0),
        ("microbatch", -2),
        ("keep_last_k", 0),
        ("lr", 0.0),
        ("lr", -1e-4),
        ("lr", math.nan),
        ("lr", math.inf),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("lr_anneal_steps", -1),
        ("fp16_scale_growth", -1.0),
        ("max_step", -1),
        ("seed", -1),
        ("run_time", 0.0),
        ("run_time", -2.0),
        ("ema_rate", "1.0"),
        ("ema_rate", "0.9,-0.1"),
        ("ema_rate", "0.9;0.99"),
        ("ema_rate", "nan"),
    ],
)
def test_value_that_no_run_could_use_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"--{name}"):
        TrainFlags(**{name: value})


def test_two_precisions_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="exclude"):
        TrainFlags(use_fp16=True, use_bf16=True)


def test_two_flags_say_one_precision() -> None:
    said = [TrainFlags(), TrainFlags(use_fp16=True), TrainFlags(use_bf16=True)]
    assert [flags.asked_precision for flags in said] == list(Precision)
    assert list(map(str, Precision)) == ["fp32", "fp16", "bf16"]  # as in the names of the flags


def test_ema_rates_are_separated_by_commas_and_spaces_are_allowed() -> None:
    assert TrainFlags(ema_rate="0.9999, 0.99,").ema_rates == [0.9999, 0.99]
    assert TrainFlags().ema_rates == []


def test_learning_rate_falls_linearly_and_stays_at_zero() -> None:
    flags = TrainFlags(lr=0.1, lr_anneal_steps=4)
    rates = [flags.lr_at(step) for step in range(6)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0, 0.0])
    assert TrainFlags(lr=0.1).lr_at(10**9) == 0.1


def test_run_without_a_limit_ends_where_the_learning_rate_is_zero() -> None:
    assert TrainFlags(lr_anneal_steps=4).last_step == 4
    assert not TrainFlags(lr_anneal_steps=4).is_endless
    assert TrainFlags(lr_anneal_steps=4, max_step=6).last_step == 6
    assert TrainFlags(lr_anneal_steps=4, max_step=3).last_step == 3
    assert TrainFlags().last_step == UNLIMITED_STEPS == 10**8 and TrainFlags().is_endless


def test_common_flags_are_those_of_every_training() -> None:
    assert TrainFlags(**TrainFlags(lr=0.5).common()) == TrainFlags(lr=0.5)
