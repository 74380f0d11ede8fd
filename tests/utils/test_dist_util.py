"""Who am I among the processes; one process without a launcher needs no process group."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tests.utils.machine.test_launch import STEP
from utils import dist_util
from utils.machine.launch import Launch, read_launch


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
    assert dist_util.single_process(Launch(3, 1, 4)) == Launch(0, 1, 1)


def test_each_local_rank_gets_its_own_gpu_and_without_gpus_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dist_util.pick_device(3) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [dist_util.pick_device(rank).index for rank in range(5)] == [0, 1, 2, 3, 0]


def test_task_that_sees_only_its_own_gpu_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"is_available": True, "device_count": 1, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    for name, value in {**STEP, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "none"}.items():
        monkeypatch.setenv(name, value)
    launch = read_launch(STEP)
    with pytest.raises(ValueError, match=r"LOCAL_RANK=1.* 1 GPU"):
        dist_util.process_group(launch).__enter__()
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    with pytest.raises(ValueError, match="none"):  # it comes to the meeting, at no port
        dist_util.process_group(launch).__enter__()


def test_processes_that_are_started_again_do_not_meet_at_the_addresses_of_the_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torchrun keeps one store for all lives of a group."""
    shared = dist.HashStore()
    monkeypatch.setattr(dist_util, "rendezvous", lambda *_, **__: iter([(shared, 0, 2)]))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    first = dist_util._fresh_store(Launch(0, 0, 2))
    first.set("address", "of a dead rank")
    assert dist_util._fresh_store(Launch(1, 1, 2)).check(["address"])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not dist_util._fresh_store(Launch(0, 0, 2)).check(["address"])
