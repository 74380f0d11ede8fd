"""Who a process is, for every launcher and every mixture of their variables; where they meet."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.machine.launch import (
    Launch,
    first_host,
    num_local_processes,
    read_launch,
    set_rendezvous,
    tasks_on_node,
)

RANKS = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
TORCHRUN = {**RANKS, "MASTER_ADDR": "x", "MASTER_PORT": "29500"}
# what srun sets for the third of three tasks on two nodes
STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "n[08-10]",
    "SLURM_NTASKS": "3",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "n[09-10]",
    "SLURM_STEP_TASKS_PER_NODE": "1,2",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
SRUN_PMI = {"PMI_RANK": "2", "PMI_SIZE": "3"}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
# what a batch script and the shell of salloc know: how many tasks there could be
ALLOCATION = {name: STEP[name] for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NTASKS")}


def without(environ: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in names}


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
        (STEP, 0, Launch(2, 1, 3)),
        (MPICH, 0, Launch(5, 1, 8)),
        (without(MPICH, "MPI_LOCALRANKID"), 0, Launch(5, 5, 8)),
        (OPEN_MPI, 0, Launch(5, 1, 8)),
    ],
)
def test_each_launcher_is_understood(environ: dict[str, str], flag: int, expected: Launch) -> None:
    assert read_launch(environ, flag) == expected


@pytest.mark.parametrize("mask", list(itertools.product([False, True], repeat=4)))
def test_the_first_launcher_of_the_order_decides(mask: tuple[bool, ...]) -> None:
    """RANK, then a step of Slurm, then MPI, then a single process; an allocation is no launcher."""
    parts = [TORCHRUN, STEP, SRUN_PMI, ALLOCATION]
    environ = {
        k: v for part, is_in in zip(parts, mask, strict=True) if is_in for k, v in part.items()
    }
    answers = [Launch(3, 1, 4), Launch(2, 1, 3), Launch(2, 2, 3), Launch()]
    expected = next((a for a, is_in in zip(answers, mask, strict=True) if is_in), Launch())
    assert read_launch(environ) == expected


@pytest.mark.parametrize("mpi", [MPICH, OPEN_MPI])
def test_mpiexec_that_starts_its_helpers_by_srun_is_the_launcher(mpi: dict[str, str]) -> None:
    """Each helper is a task; the number of processes is MPI's."""
    assert read_launch({**STEP, **mpi}) == Launch(5, 1, 8)


@pytest.mark.parametrize("number", [0xFFFFFFFA, 0xFFFFFFFB, 0xFFFFFFFC, 0xFFFFFFFD])
def test_reserved_step_numbers_are_a_single_process(number: int) -> None:
    assert read_launch({**STEP, "SLURM_STEP_ID": str(number)}) == Launch()


@pytest.mark.parametrize("name", ["batch", "interactive", "extern", ""])
def test_named_steps_are_a_single_process(name: str) -> None:
    assert read_launch({**STEP, "SLURM_STEP_ID": name}) == Launch()


def test_allocation_is_a_single_process_whatever_it_holds() -> None:
    assert read_launch(ALLOCATION) == Launch()
    assert read_launch({**ALLOCATION, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) == Launch()
    assert read_launch({**ALLOCATION, **MPICH}) == Launch(5, 1, 8)


def test_shell_in_a_terminal_is_a_single_process_and_a_script_there_is_a_task() -> None:
    shell = {**STEP, "SLURM_PTY_PORT": "41000", "SLURM_TASK_PID": str(os.getppid())}
    assert read_launch(shell) == Launch()
    assert read_launch({**shell, "SLURM_TASK_PID": str(os.getpid())}) == Launch(2, 1, 3)


def test_a_step_of_one_task_in_a_larger_job_is_a_single_process() -> None:
    one = {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert read_launch(one) == Launch()
    assert read_launch({**one, **MPICH}) == Launch(5, 1, 8)


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_NPROCS"])
def test_the_jobs_count_stands_in_for_the_steps(name: str) -> None:
    environ = {**without(STEP, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), name: "3"}
    assert read_launch(environ) == Launch(2, 1, 3)


@pytest.mark.parametrize(
    ("environ", "name"),
    [(TORCHRUN, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    + [(STEP, name) for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")]
    + [(MPICH, name) for name in MPICH]
    + [(OPEN_MPI, name) for name in OPEN_MPI],
)
def test_variable_that_is_no_number_is_an_error(environ: dict[str, str], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='one'"):
        read_launch({**environ, name: "one"})


@pytest.mark.parametrize(
    ("environ", "name", "value", "message"),
    [
        (TORCHRUN, "RANK", "4", "RANK=4 .*WORLD_SIZE=4"),
        (TORCHRUN, "RANK", "-1", "RANK=-1 .*WORLD_SIZE=4"),
        (TORCHRUN, "LOCAL_RANK", "-1", "LOCAL_RANK=-1 .*RANK=3"),
        (STEP, "SLURM_PROCID", "3", "SLURM_PROCID=3 .*SLURM_STEP_NUM_TASKS=3"),
        (STEP, "SLURM_STEP_NUM_TASKS", "2", "SLURM_PROCID=2 .*SLURM_STEP_NUM_TASKS=2"),
        (STEP, "SLURM_STEP_NUM_TASKS", "0", "SLURM_PROCID=2 .*SLURM_STEP_NUM_TASKS=0"),
        (STEP, "SLURM_LOCALID", "3", "SLURM_LOCALID=3 .*SLURM_PROCID=2"),
        (MPICH, "PMI_RANK", "8", "PMI_RANK=8 .*PMI_SIZE=8"),
    ],
)
def test_contradiction_is_an_error(
    environ: dict[str, str], name: str, value: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_launch({**environ, name: value})


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_LOCALID"])
def test_step_that_does_not_say_which_task_this_is_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=rf"SLURM_STEP_NUM_TASKS=3.*{name}"):
        read_launch(without(STEP, name))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 1),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({**STEP, "LOCAL_WORLD_SIZE": "4"}, 4),
        (STEP, 2),
        ({**STEP, "SLURM_NODEID": "0"}, 1),
        (without(STEP, "SLURM_STEP_TASKS_PER_NODE"), 1),
        (ALLOCATION, 1),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2),
        ({**MPICH, "MPI_LOCALNRANKS": "2"}, 2),
    ],
)
def test_processes_on_this_machine_are_counted(environ: dict[str, str], expected: int) -> None:
    assert num_local_processes(environ) == expected


def test_tasks_of_equal_nodes_stand_together() -> None:
    environ = {"SLURM_STEP_TASKS_PER_NODE": "4(x2),1,2(x3)"}
    counts = [tasks_on_node({**environ, "SLURM_NODEID": str(node)}) for node in range(7)]
    assert counts == [4, 4, 1, 2, 2, 2, 1], "the seventh node is not of this step"


# ---- where they meet


def _meeting(environ: dict[str, str]) -> tuple[str, str]:
    changed = dict(environ)
    set_rendezvous(changed)
    assert {name: changed[name] for name in environ} == environ
    return changed["MASTER_ADDR"], changed["MASTER_PORT"]


def test_all_tasks_of_a_step_meet_at_its_first_host() -> None:
    tasks = [
        {**STEP, "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_NODEID": str(rank)}
        for rank in range(3)
    ]
    assert {_meeting(task) for task in tasks} == {("n09", "24913")}


def test_the_jobs_hosts_stand_in_for_the_steps() -> None:
    assert _meeting(without(STEP, "SLURM_STEP_NODELIST"))[0] == "n08"


@given(job=st.integers(1, 0x3FFFFFF), step=st.integers(0, 0xFFFFFFF0))
@settings(deadline=None)
def test_every_job_and_step_gets_a_port_that_no_system_hands_out(job: int, step: int) -> None:
    environ = {**STEP, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}
    port = int(_meeting(environ)[1])
    assert 20000 <= port < 30000
    assert int(_meeting({**environ, "SLURM_JOB_ID": str(job + 1)})[1]) != port
    if step < 0xFFFFFFF0:
        assert int(_meeting({**environ, "SLURM_STEP_ID": str(step + 1)})[1]) != port


def test_address_and_port_of_the_user_win_one_by_one() -> None:
    assert _meeting({**STEP, "MASTER_ADDR": "head"}) == ("head", "24913")
    assert _meeting({**STEP, "MASTER_PORT": "1234"}) == ("n09", "1234")
    chosen = {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}
    needs_nothing = without(STEP, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_JOB_ID")
    assert _meeting({**needs_nothing, **chosen}) == ("head", "1234")


def test_torchrun_and_a_single_process_are_left_as_they_are() -> None:
    for environ in ({}, ALLOCATION, TORCHRUN, {**STEP, **TORCHRUN}):
        changed = dict(environ)
        set_rendezvous(changed)
        assert changed == environ


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SLURM_STEP_NODELIST": "n["}, r"SLURM_STEP_NODELIST.*'n\['.*MASTER_ADDR"),
        ({"SLURM_JOB_ID": "none"}, "SLURM_JOB_ID='none'.*MASTER_PORT"),
    ],
)
def test_place_that_cannot_be_found_is_an_error(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _meeting({**STEP, **changes})


def test_missing_list_of_hosts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"SLURM_STEP_NODELIST .*MASTER_ADDR"):
        _meeting(without(STEP, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))


# ---- lists of hosts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1", "n1"),
        ("login", "login"),
        ("n[0-1,3]", "n0"),
        ("n[3,0-1]", "n3"),
        ("n[08-10,12],login", "n08"),
        ("a,b[1-2]", "a"),
        ("gpu-a[007-010].site.org,x", "gpu-a007.site.org"),
        ("rack[0-3]node[00-11]", "rack0node00"),
        ("10.0.0.[5-6]", "10.0.0.5"),
        (" n2\n", "n2"),
    ],
)
def test_first_host_of_a_list(text: str, expected: str) -> None:
    assert first_host(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", ",n1", "n[", "n]1", "n[]", "n[a-b]", "n[1-]", "n[[1]]", "n[1", "n 1,n2"]
)
def test_what_is_no_list_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"list of hosts|no number"):
        first_host(text)


_NAMES = st.from_regex(r"\A[a-z][a-z0-9.-]{0,6}\Z")
_RANGES = st.tuples(st.integers(0, 99), st.integers(0, 40), st.integers(1, 4))


@st.composite
def _host_groups(draw: st.DrawFn) -> tuple[str, str]:
    """A group of hosts as Slurm writes it, and its first host."""
    text = first = draw(_NAMES)
    for _ in range(draw(st.integers(0, 2))):
        ranges = draw(st.lists(_RANGES, min_size=1, max_size=3))
        words = [
            f"{low:0{width}d}" + (f"-{low + more:0{width}d}" if more else "")
            for low, more, width in ranges
        ]
        tail = draw(st.sampled_from(["", "-x", ".net"]))
        text += f"[{','.join(words)}]{tail}"
        first += words[0].partition("-")[0] + tail
    return text, first


@given(groups=st.lists(_host_groups(), min_size=1, max_size=3))
@settings(deadline=None)
def test_first_host_is_that_of_the_first_group(groups: list[tuple[str, str]]) -> None:
    assert first_host(",".join(text for text, _ in groups)) == groups[0][1]
