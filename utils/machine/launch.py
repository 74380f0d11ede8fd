"""Which process this is, by whichever launcher started it. No torch.

In this order: RANK and WORLD_SIZE (torchrun, `torch.distributed.launch`, a user's own); a step of
several tasks of Slurm; `mpiexec`; a single process.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

# a step's own count comes first: the job may have room for more tasks
_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
_NODE_LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
# numbers above stand for the batch script, an interactive shell, and Slurm's own
_LAST_STEP = 0xFFFFFFF0
# below the ports that systems hand out by themselves
_FIRST_PORT, _NUM_PORTS = 20000, 10000
_SLURM_REMEDY = "start the script by srun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"


def slurm_variables(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """Name and text of this task's rank, of the number of tasks, and of its rank on the machine.

    None outside of a step, and in a step of one task.
    """
    size = _first(environ, _SIZES)
    if not _is_step(environ) or size is None or environ[size] == "1":
        return None
    names = ("SLURM_PROCID", size, "SLURM_LOCALID")
    for name in names:
        if name not in environ:
            raise ValueError(f"{size}={environ[size]}, but {name} is not set; {_SLURM_REMEDY}")
    return tuple((name, environ[name]) for name in names)


def _is_step(environ: Mapping[str, str]) -> bool:
    step = environ.get("SLURM_STEP_ID", "")
    if not step.isdecimal() or int(step) > _LAST_STEP:
        return False
    # in the shell of `srun --pty` the task is the shell
    is_task = environ.get("SLURM_TASK_PID") == str(os.getpid())
    return is_task or "SLURM_PTY_PORT" not in environ


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in environ), None)


def has_own_gpu(environ: Mapping[str, str]) -> bool:
    """Whether each task sees no other GPU than its own, so that all of them call it number 0."""
    return slurm_variables(environ) is not None and "SLURM_GPUS_PER_TASK" in environ


def tasks_on_node(environ: Mapping[str, str]) -> int:
    """Tasks of this step on this machine; 1 where that is not said.

    `SLURM_STEP_TASKS_PER_NODE` lists the nodes in order, equal ones together: `4(x2),1`.
    """
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?(?:,|$)", text)
    counts = [int(count) for count, times in groups for _ in range(int(times or 1))]
    node = environ.get("SLURM_NODEID", "0")
    if not node.isdecimal() or int(node) >= len(counts):
        return 1
    return max(1, counts[int(node)])


def _slurm_rendezvous(environ: MutableMapping[str, str]) -> None:
    """Set MASTER_ADDR and MASTER_PORT, where they are not set, to what all tasks find alike."""
    if "MASTER_ADDR" not in environ:
        name = _first(environ, _NODE_LISTS)
        if name is None:
            raise ValueError(f"{_NODE_LISTS[0]} is not set; set MASTER_ADDR to the first host")
        try:
            environ["MASTER_ADDR"] = first_host(environ[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}; set MASTER_ADDR to the first host") from None
    if "MASTER_PORT" not in environ:
        environ["MASTER_PORT"] = str(_port(environ))


def _port(environ: Mapping[str, str]) -> int:
    """A port by job and step: jobs that follow each other, and steps side by side, differ."""
    numbers = []
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"):
        text = environ.get(name, "")
        if not text.isdecimal():
            raise ValueError(f"{name}={text!r} is not a number; set MASTER_PORT to a free port")
        numbers.append(int(text))
    return _FIRST_PORT + (numbers[0] + 101 * numbers[1]) % _NUM_PORTS


def first_host(node_list: str) -> str:
    """The first host of a list such as `n[08-10,12],login`: here `n08`."""
    first = re.match(r"(?:[^][,\s]|\[[^][\s]*\])+(?=,|$)", node_list.strip())
    if first is None:
        raise ValueError(f"{node_list!r} is no list of hosts")
    return re.sub(r"\[([^][]*)\]", lambda group: _lowest(node_list, group[1]), first[0])


def _lowest(node_list: str, numbers: str) -> str:
    low = re.match(r"(\d+)(?:-\d+)?(?=,|$)", numbers)
    if low is None:
        raise ValueError(f"{node_list!r} has no number at the start of [{numbers}]")
    return low[1]


# (rank, number of processes, rank on the machine) as Open MPI, and as MPICH and Intel MPI, say it
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)


def mpi_variables(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """Name and text of the rank, the number of processes and the rank on this machine, or None."""
    for rank, size, local_rank in _VARIABLES:
        if rank in environ and size in environ:
            names = (rank, size, local_rank if local_rank in environ else rank)
            return tuple((name, environ[name]) for name in names)
    return None


def _mpi_rendezvous(environ: MutableMapping[str, str]) -> None:
    """Set MASTER_ADDR and MASTER_PORT, unless both are set, to a place that rank 0 tells."""
    if "MASTER_ADDR" in environ and "MASTER_PORT" in environ:
        return
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"mpiexec started several processes, and mpi4py cannot be used ({error}); run "
            "./setup.sh mpi, or set MASTER_ADDR and MASTER_PORT to the first process's"
        ) from None
    _require_same_size(environ, MPI.COMM_WORLD.Get_size())
    address = _own_address() if MPI.COMM_WORLD.Get_rank() == 0 else None
    environ["MASTER_ADDR"], environ["MASTER_PORT"] = MPI.COMM_WORLD.bcast(address, root=0)


def _require_same_size(environ: Mapping[str, str], num_known: int) -> None:
    """Refuse an mpi4py of another MPI, for which each process is alone: all would wait."""
    _, (name, text), _ = mpi_variables(environ) or ((), ("", str(num_known)), ())
    if text != str(num_known):
        raise ValueError(
            f"{name}={text}, but mpi4py knows {num_known} process(es): it belongs to another MPI; "
            "install mpi4py for the mpiexec in use (pip install --force-reinstall --no-binary "
            "mpi4py mpi4py), or set MASTER_ADDR and MASTER_PORT to the first process's"
        )


def _own_address() -> tuple[str, str]:
    """This machine's address for the others, and a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        name = "127.0.0.1"  # a machine that does not know its own name
    return name, port


_REMEDY = (
    "start the script by torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in each"
)
_ELASTIC, _SLURM, _MPI, _SINGLE = "torchrun", "srun", "mpiexec", ""


@dataclass(frozen=True)
class Launch:
    """What the launcher said: global rank, rank on this machine, number of processes."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1


def read_launch(environ: Mapping[str, str], local_rank_flag: int = 0) -> Launch:
    """Read the launcher's variables.

    `LOCAL_RANK` of the environment is preferred to the flag of `torch.distributed.launch`. What is
    no number, or contradicts other variables, is a ValueError.
    """
    launcher, variables = _launcher(environ, local_rank_flag)
    if launcher == _SINGLE:
        return Launch()
    rank, world_size, local_rank = (_number(name, text) for name, text in variables)
    (rank_name, _), (size_name, _), (local_name, _) = variables
    if not 0 <= rank < world_size:
        raise ValueError(
            f"{rank_name}={rank} does not fit {size_name}={world_size}; check the launcher"
        )
    if local_rank < 0 or (launcher == _SLURM and local_rank > rank):
        raise ValueError(
            f"{local_name}={local_rank} does not fit {rank_name}={rank}; check the launcher"
        )
    return Launch(rank, local_rank, world_size)


def _launcher(
    environ: Mapping[str, str], local_rank_flag: int = 0
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The launcher, and its variables for rank, number of processes and rank on the machine."""
    if "RANK" in environ and "WORLD_SIZE" in environ:
        local_rank = environ.get("LOCAL_RANK", str(local_rank_flag))
        ranks = ("RANK", environ["RANK"]), ("WORLD_SIZE", environ["WORLD_SIZE"])
        return _ELASTIC, (*ranks, ("LOCAL_RANK", local_rank))
    slurm = slurm_variables(environ)
    mpi = mpi_variables(environ)
    # srun sets PMI_* as well; but another number is that of an mpiexec, whose helpers are the tasks
    if slurm is not None and (mpi is None or mpi[1][1] == slurm[1][1]):
        return _SLURM, slurm
    return (_SINGLE, ()) if mpi is None else (_MPI, mpi)


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number; check the launcher") from None


def num_local_processes(environ: Mapping[str, str] = os.environ) -> int:
    """Processes on this machine; 1 where nobody says."""
    text = environ.get("LOCAL_WORLD_SIZE", "")
    if text.isdecimal():
        return max(1, int(text))
    if _launcher(environ)[0] == _SLURM:
        return tasks_on_node(environ)
    name = _first(environ, ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"))
    text = environ[name] if name else ""
    return max(1, int(text)) if text.isdecimal() else 1


def set_rendezvous(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set MASTER_ADDR and MASTER_PORT where the launcher did not; ValueError without a place."""
    launcher = _launcher(environ)[0]
    if launcher == _SLURM:
        _slurm_rendezvous(environ)
    elif launcher == _MPI:
        _mpi_rendezvous(environ)
    elif launcher == _SINGLE:
        return
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise ValueError(
                f"several processes should set_rendezvous, but {name} is not set; {_REMEDY}"
            )
    port = environ["MASTER_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"MASTER_PORT={port!r} is not a port, a number from 1 to 65535; {_REMEDY}")
