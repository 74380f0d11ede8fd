"""Who am I among the processes; one process without a launcher needs no process group."""

from __future__ import annotations

import pytest
import torch

from utils import dist_util
from utils.dist_util import Launch, read_launch

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "x"}


@pytest.mark.parametrize(
    ("environ", "flag", "expected"),
    [
        ({}, 0, Launch(0, 0, 1)),
        ({}, 2, Launch(0, 0, 1)),
        (TORCHRUN, 0, Launch(3, 1, 4)),
        (TORCHRUN, 2, Launch(3, 1, 4)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, 2, Launch(3, 2, 4)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, 0, Launch(0, 0, 1)),
        ({"LOCAL_RANK": "1"}, 0, Launch(0, 0, 1)),
        ({"RANK": "1"}, 0, Launch(0, 0, 1)),
    ],
)
def test_environment_is_preferred_to_the_flag(
    environ: dict[str, str], flag: int, expected: Launch
) -> None:
    assert read_launch(environ, flag) == expected


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_variable_that_is_no_number_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read_launch({**TORCHRUN, name: "one"})


@pytest.mark.parametrize("rank", ["4", "-1"])
def test_rank_outside_of_the_world_is_an_error(rank: str) -> None:
    with pytest.raises(ValueError, match=f"RANK={rank} does not fit WORLD_SIZE=4"):
        read_launch({**TORCHRUN, "RANK": rank})


def test_one_process_needs_no_group() -> None:
    with dist_util.process_group(read_launch({})) as device:
        assert device == dist_util.current_device() == dist_util.pick_device()
        assert not dist_util.is_distributed()
        assert (dist_util.get_rank(), dist_util.get_world_size()) == (0, 1)
        assert dist_util.is_main()
        dist_util.barrier()
        value = torch.tensor([1.0, 2.0])
        assert torch.equal(dist_util.mean_over_ranks(value), value)
        assert [dist_util.any_rank(condition) for condition in (True, False)] == [True, False]
        assert [tensor.tolist() for tensor in dist_util.gather_tensors(value)] == [[1.0, 2.0]]
        dist_util.broadcast_tensors([value])
        assert value.tolist() == [1.0, 2.0]
        dist_util.raise_together(None)
        with pytest.raises(KeyError, match="own"):
            dist_util.raise_together(KeyError("own"))


def test_process_that_works_alone_keeps_its_place_on_the_machine() -> None:
    assert dist_util.alone(Launch(3, 1, 4)) == Launch(0, 1, 1)


@pytest.mark.parametrize(("environ", "expected"), [({}, 1), ({"LOCAL_WORLD_SIZE": "4"}, 4)])
def test_processes_on_this_machine_are_counted(environ: dict[str, str], expected: int) -> None:
    assert dist_util.local_world_size(environ) == expected


def test_each_local_rank_gets_its_own_gpu_and_without_gpus_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dist_util.pick_device(3) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [dist_util.pick_device(rank).index for rank in range(5)] == [0, 1, 2, 3, 0]
