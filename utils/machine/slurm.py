"""Processes that ``srun`` started: who they are, and where they meet. No torch, no ``scontrol``.

Only a step of several tasks counts. A batch script and a shell in an allocation know how many tasks
the job may start, but they are none of them: what they run is a single process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping

# a step's own count comes first: the job may have room for more tasks
_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
_NODE_LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
# numbers above stand for the batch script, an interactive shell, and Slurm's own
_LAST_STEP = 0xFFFFFFF0
# below the ports that systems hand out by themselves
_FIRST_PORT, _NUM_PORTS = 20000, 10000
_REMEDY = "start the script by srun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"


def slurm_variables(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """Name and text of this task's rank, of the number of tasks, and of its rank on the machine.

    None outside of a step, and in a step of one task.

    Raises:
        ValueError: if there are several tasks, and it is not said which one this is.
    """
    size = _first(environ, _SIZES)
    if not _is_step(environ) or size is None or environ[size] == "1":
        return None
    names = ("SLURM_PROCID", size, "SLURM_LOCALID")
    for name in names:
        if name not in environ:
            raise ValueError(f"{size}={environ[size]}, but {name} is not set; {_REMEDY}")
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

    ``SLURM_STEP_TASKS_PER_NODE`` lists the nodes in order, equal ones together: ``4(x2),1``.
    """
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?(?:,|$)", text)
    counts = [int(count) for count, times in groups for _ in range(int(times or 1))]
    node = environ.get("SLURM_NODEID", "0")
    if not node.isdecimal() or int(node) >= len(counts):
        return 1
    return max(1, counts[int(node)])


def meet(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets MASTER_ADDR and MASTER_PORT, where they are not set, to what all tasks find alike.

    Raises:
        ValueError: if the list of nodes, or the number of the job, is missing or no such thing.
    """
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
    """The first host of a list such as ``n[08-10,12],login``: here ``n08``.

    Raises:
        ValueError: if it is no such list.
    """
    first = re.match(r"(?:[^][,\s]|\[[^][\s]*\])+(?=,|$)", node_list.strip())
    if first is None:
        raise ValueError(f"{node_list!r} is no list of hosts")
    return re.sub(r"\[([^][]*)\]", lambda group: _lowest(node_list, group[1]), first[0])


def _lowest(node_list: str, numbers: str) -> str:
    low = re.match(r"(\d+)(?:-\d+)?(?=,|$)", numbers)
    if low is None:
        raise ValueError(f"{node_list!r} has no number at the start of [{numbers}]")
    return low[1]
