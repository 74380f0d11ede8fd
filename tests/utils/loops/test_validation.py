"""Validation while a network trains: it changes nothing, its values are right, the best stays."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.ranks import run_ranks
from tests.utils.events import read_scalars
from tests.utils.training_loops import (
    EVERYTHING,
    QuietLoop,
    differences,
    image_pair,
    saved_run,
    training_loop,
)
from utils import dist_util
from utils.logger import RunLogger
from utils.loops.data import Pair
from utils.loops.validation import BEST_FILE, Best, Validation, drawn, share_of_rank

NUM_ITEMS = 5


def validation(num_items: int = NUM_ITEMS, interval: int = 0, **record: Any) -> Validation:
    """Images that no training of these tests sees, each rank's share."""

    def pairs() -> Iterator[tuple[int, Pair]]:
        for place in share_of_rank(num_items):
            x, y = image_pair(1000 + place)
            yield place, (x[None], y[None])

    names = [f"image {place}" for place in range(num_items)]
    return Validation(names, pairs, interval, record)


class DrawingLoop(QuietLoop):
    """Draws random numbers while it judges, as dropout would."""

    def judge(self, batch: Any, label: Any) -> dict[str, torch.Tensor]:
        torch.rand(7)
        return {**super().judge(batch, label), "training": torch.tensor(float(self.model.training))}


class ScriptedLoop(QuietLoop):
    """The loss of a validation at a step is the one that ``values`` has for it."""

    values: dict[int, float]

    def judge(self, batch: Any, label: Any) -> dict[str, torch.Tensor]:
        return {"loss": torch.tensor(self.values[self.step], dtype=torch.float64)}


def scripted(folder: Path, values: list[float], **flags: Any) -> ScriptedLoop:
    """A loop that saves each step, run to its end; the first step has the first value."""
    ScriptedLoop.values = dict(enumerate(values, start=1))
    logger = flags.pop("logger", None)
    steps = {"save_interval": 1, "max_step": len(values), **flags}
    check = steps.pop("validation", validation())
    loop = training_loop(folder, loop_class=ScriptedLoop, validation=check, logger=logger, **steps)
    assert loop.run_loop()
    return loop


def best(folder: Path) -> dict[str, Any]:
    """What ``best.json`` says."""
    content: dict[str, Any] = json.loads((folder / BEST_FILE).read_text())
    return content


class Lines(RunLogger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(is_quiet=True)
        self.text = ""

    def note(self, line: str) -> None:
        self.text += line + "\n"


# ---- it changes nothing


def test_weights_are_the_same_bit_for_bit_with_and_without(tmp_path: Path) -> None:
    """With dropout, averages and slices, and a judge that draws random numbers itself."""
    flags = {**EVERYTHING, "max_step": 6, "save_interval": 2, "loop_class": DrawingLoop}
    for name, check in (("without", None), ("with", validation(interval=1))):
        assert training_loop(tmp_path / name, validation=check, **flags).run_loop()
    for step in (2, 4, 6):
        one, two = (saved_run(tmp_path / name, step) for name in ("without", "with"))
        assert two["state"].pop("best")["step"] and two["state"].pop("validation")
        assert differences(one, two) == []


def test_the_network_trains_on_after_a_validation_that_failed() -> None:
    class Failing(QuietLoop):
        def judge(self, batch: Any, label: Any) -> dict[str, torch.Tensor]:
            raise ValueError("no such thing")

    loop = training_loop(loop_class=Failing, validation=validation(interval=1))
    wrapped = loop.wrapped_model
    with pytest.raises(ValueError, match="no such thing"):
        loop.run_loop()
    assert loop.model.training and loop.wrapped_model is wrapped


# ---- what it says


def test_values_are_means_over_the_items_in_evaluation_mode(tmp_path: Path) -> None:
    logger = RunLogger(str(tmp_path / "log"), is_quiet=True)
    loop = training_loop(
        **{**EVERYTHING, "max_step": 3},
        loop_class=DrawingLoop,
        validation=validation(interval=1),
        logger=logger,
    )
    assert loop.run_loop()
    logger.close()
    loop.model.eval()
    errors = []
    for place in range(NUM_ITEMS):
        x, y = (part[None] for part in image_pair(1000 + place))
        errors.append((loop.model(x).double() - y.double()).square().mean().item())
    found = read_scalars(tmp_path / "log")
    assert found["val/loss"].keys() == {1, 2, 3}
    assert found["val/loss"][3] == pytest.approx(sum(errors) / NUM_ITEMS, rel=1e-5)
    assert set(found["val/training"].values()) == {0.0}
    assert "validation at step 3 | loss" in (tmp_path / "log" / "logs.txt").read_text()


def test_it_is_due_at_its_interval_at_saves_and_at_the_end(tmp_path: Path) -> None:
    lines = Lines()
    steps = {"max_step": 7, "save_interval": 3, "validation": validation(interval=2)}
    scripted(tmp_path, [1.0] * 7, logger=lines, **steps)
    told = [line for line in lines.text.splitlines() if line.startswith("validation at step")]
    assert [int(line.split()[3]) for line in told] == [2, 3, 4, 6, 7]


def test_a_dry_run_tries_it_and_says_what_it_costs(tmp_path: Path) -> None:
    lines = Lines()
    loop = training_loop(
        tmp_path / "none", dry_run=True, validation=validation(interval=250), logger=lines
    )
    assert loop.run_loop()
    assert "one validation, every 250 steps" in lines.text
    assert not (tmp_path / "none").exists()


def _judge_together(say: Any, num_items: int) -> None:
    loop = training_loop(validation=validation(num_items), batch_size=2)
    say(loop._judged(validation(num_items))[0]["loss"])


@pytest.mark.dist
@pytest.mark.parametrize(("num_items", "world_size"), [(5, 2), (5, 3), (1, 2)])
def test_any_number_of_processes_finds_the_same_bit_for_bit(
    num_items: int, world_size: int
) -> None:
    alone: list[float] = []
    _judge_together(alone.append, num_items)
    found = run_ranks(_judge_together, num_items, world_size=world_size)
    assert found == [alone] * world_size


def _train_together(say: Any, folder: Path, has_validation: bool) -> None:
    check = validation(interval=1) if has_validation else None
    flags = {**EVERYTHING, "max_step": 3, "save_interval": 2, "loop_class": DrawingLoop}
    assert training_loop(folder, validation=check, **flags).run_loop()
    say(dist_util.get_rank())


@pytest.mark.dist
def test_weights_of_two_processes_are_the_same_with_and_without(tmp_path: Path) -> None:
    for name in ("without", "with"):
        run_ranks(_train_together, tmp_path / name, name == "with")
    one, two = (saved_run(tmp_path / name, 3) for name in ("without", "with"))
    del two["state"]["best"], two["state"]["validation"]
    assert differences(one, two) == []
    assert best(tmp_path / "with")["step"] in (2, 3)


# ---- the best checkpoint


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0], 2),
        ([2.0, 2.0, 2.0], 1),
        ([math.nan, 5.0, math.nan], 2),
        ([math.inf, -1.0, -2.0], 3),
    ],
)
def test_the_smallest_finite_value_wins_and_the_first_of_equals(
    tmp_path: Path, values: list[float], expected: int
) -> None:
    scripted(tmp_path, values)
    content = best(tmp_path)
    assert content["step"] == expected and content["value"] == values[expected - 1]
    assert content["model"] == f"model{expected:06d}.pt" and content["metric"] == "loss"
    assert content["metrics"] == {"loss": content["value"]}
    assert (tmp_path / content["model"]).is_file()


def test_where_no_value_is_finite_there_is_no_best(tmp_path: Path) -> None:
    scripted(tmp_path, [math.nan, math.inf])
    assert not (tmp_path / BEST_FILE).exists()


def test_only_what_is_saved_can_be_the_best(tmp_path: Path) -> None:
    check = validation(interval=1)
    scripted(tmp_path, [5.0, 1.0, 4.0], save_interval=3, validation=check)
    assert best(tmp_path)["step"] == 3


def test_pruning_keeps_the_best_beside_the_last(tmp_path: Path) -> None:
    scripted(tmp_path, [3.0, 1.0, 2.0, 2.5, 4.0], keep_last_k=1)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        *(f"model{step:06d}.pt" for step in (2, 5)),
        *(f"opt{step:06d}.pt" for step in (2, 5)),
    ]
    assert best(tmp_path)["step"] == 2
    scripted(tmp_path, [0, 0, 0, 0, 0, 0.5], keep_last_k=1, resume_checkpoint="auto")
    assert sorted(path.name for path in tmp_path.glob("model*.pt")) == ["model000006.pt"]


def test_a_resumed_run_goes_on_with_the_best_so_far(tmp_path: Path) -> None:
    values = [3.0, 1.0, 2.0, 1.5]
    scripted(tmp_path / "whole", values)
    scripted(tmp_path / "parts", values[:3])
    (tmp_path / "parts" / BEST_FILE).unlink()  # as if the run had been killed before it was written
    scripted(tmp_path / "parts", values, resume_checkpoint="auto")
    assert best(tmp_path / "parts") == best(tmp_path / "whole")
    one, two = (saved_run(tmp_path / name, 4) for name in ("whole", "parts"))
    assert differences(one, two) == []


def test_a_run_without_validation_keeps_the_best_of_the_one_before(tmp_path: Path) -> None:
    scripted(tmp_path, [1.0, 2.0], keep_last_k=1)
    scripted(tmp_path, [0.0] * 4, keep_last_k=1, resume_checkpoint="auto", validation=None)
    assert best(tmp_path)["step"] == 1 and (tmp_path / "model000001.pt").is_file()


def test_other_images_begin_anew_and_it_is_said(tmp_path: Path) -> None:
    scripted(tmp_path, [1.0, 2.0])
    lines, again = Lines(), {"resume_checkpoint": "auto"}
    scripted(tmp_path, [0, 0, 3.0], **again, validation=validation(4), logger=lines)
    assert "other validation images" in lines.text and best(tmp_path)["step"] == 3


def test_a_best_checkpoint_that_is_gone_is_said_and_forgotten(tmp_path: Path) -> None:
    scripted(tmp_path, [1.0, 2.0])
    (tmp_path / "model000001.pt").unlink()
    lines = Lines()
    scripted(tmp_path, [0, 0, 3.0], resume_checkpoint="auto", logger=lines)
    assert "model000001.pt" in lines.text and best(tmp_path)["step"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"step": "2"},
        {"step": True},
        {"value": math.nan},
        {"value": "small"},
        {"metric": 3},
        {"metrics": [1]},
        {"metrics": {"loss": None}},
        {"validation": None},
        {"more": 1},
    ],
)
def test_a_damaged_record_says_nothing(change: dict[str, Any]) -> None:
    good = Best(2, "loss", 0.5, {"loss": 0.5}, {"digest": "1"})
    assert Best.parse(good.record()) == good
    assert Best.parse({**good.record(), **change}) is None
    assert Best.parse([]) is None and Best.parse(None) is None


# ---- draws


def test_draws_are_functions_of_the_name_alone() -> None:
    names = [f"n{i}" for i in range(200)]
    share = drawn(names, share=0.25)
    assert 30 < len(share) < 70
    assert drawn(reversed(names), share=0.25) == share
    assert set(drawn(names[:100], share=0.25)) == set(share) & set(names[:100])
    assert drawn(names, 10) == share[:10] and drawn(names, 10, share=0.25) == share[:10]
