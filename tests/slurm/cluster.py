"""Two Slurm nodes on one machine, in a folder and on ports of their own; no assertions.

The nodes are named after loopback addresses, so that processes meet by a node's name as they do on
a real cluster. Everything lives below one folder and ends with :meth:`Cluster.stop`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.processes import free_port
from tests.tiny import ROOT

NODES = ("127.0.0.1", "127.0.0.2")
LOW, HIGH = "low", "high"
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
_USER_SIGNAL = "preempt_send_user_signal"
PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "scontrol",
    "scancel",
    "sinfo",
    "script",
)

# short waits: a job that is queued again starts when its credential has expired (5 s: the least)
_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
{parameters}
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
KillWait=5
MinJobAge=3600
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName={low} Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName={high} Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 Boards=1 "
    "SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN"
)


class Cluster:
    """Starts the daemons; ``stop`` ends all that runs because of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = folder / "slurm.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environ = {
            **{name: value for name, value in os.environ.items() if name[:6] != "SLURM_"},
            "SLURM_CONF": str(self._config),
            "OMP_NUM_THREADS": "1",
        }
        host = socket.gethostname().partition(".")[0]
        nodes = [_NODE.format(name=name, host=host, port=free_port()) for name in NODES]
        self._values = {
            "host": host,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "folder": folder,
            "ctld_port": free_port(),
            "nodes": "\n".join(nodes),
            "low": LOW,
            "high": HIGH,
        }

    # ---- the daemons

    def start(self) -> None:
        """Returns when both nodes take jobs.

        Raises:
            RuntimeError: if they do not within a minute.
        """
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self._folder / name).mkdir()
        self._configure(_USER_SIGNAL)
        key = self._folder / "munge.key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(1024))
        files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        files |= {"seed-file": "munged.seed", "key-file": key.name}
        paths = [f"--{flag}={self._folder / name}" for flag, name in files.items()]
        self._daemon("munged", "--foreground", "--force", *paths)
        wait_for((self._folder / "munge.socket").exists, 30, "munged did not start")
        self._daemon("slurmctld", "-D", "-i")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        wait_for(self._is_idle, 60, "the nodes did not come up")

    def stop(self) -> None:
        """Cancels all jobs, ends the daemons and whatever they left."""
        if any(daemon.args[0] == "slurmctld" for daemon in self._daemons):  # type: ignore[index]
            subprocess.run(["scancel", "--full", *self._user()], env=self.environ, timeout=60)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self.leftovers():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.leftovers(), 30, "processes are left")

    def leftovers(self) -> list[int]:
        """Processes that know this cluster: its daemons, and the jobs that they started."""
        mark = str(self._folder).encode()
        return [pid for pid in _processes() if mark in _read(pid, "environ")]

    @contextlib.contextmanager
    def preempting_by_term(self) -> Iterator[None]:
        """As other sites have it: a preempted job's steps get SIGTERM, its script hears nothing."""
        self._configure("")
        self.run("scontrol", "reconfigure")
        try:
            yield
        finally:
            self._configure(_USER_SIGNAL)
            self.run("scontrol", "reconfigure")

    def _configure(self, parameters: str) -> None:
        line = f"SlurmctldParameters={parameters}" if parameters else ""
        text = _CONFIG.format(parameters=line, **self._values)
        self._config.write_text(text, encoding="utf-8")

    def _daemon(self, *words: str) -> None:
        log = open(self._folder / f"{words[0]}.out", "ab")  # noqa: SIM115 - the daemon's
        self._daemons.append(
            subprocess.Popen(words, env=self.environ, stdout=log, stderr=log, cwd=self._folder)
        )
        log.close()

    def _user(self) -> list[str]:
        return ["--user", str(self._values["user"])]

    def _is_idle(self) -> bool:
        said = subprocess.run(
            ["sinfo", "-h", "-p", LOW, "-o", "%D %t"], env=self.environ, capture_output=True
        )
        return said.stdout.split() == [b"2", b"idle"]

    # ---- the user's side

    def run(self, *words: str, **more: str) -> str:
        """What a command of Slurm, or of the project, prints; started at the project's root.

        Raises:
            RuntimeError: if it fails.
        """
        done = subprocess.run(
            words, cwd=ROOT, env={**self.environ, **more}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def submit(self, *words: str, **environ: str) -> str:
        """The number of a job that sbatch takes."""
        return self.run("sbatch", "--parsable", *words, **environ).strip()

    def jobs(self, job_id: str) -> list[dict[str, str]]:
        """What Slurm knows about a job, or about each task of an array."""
        lines = self.run("scontrol", "show", "job", "-o", job_id).splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line]

    def wait(self, job_ids: Iterable[str], seconds: float = 300) -> list[dict[str, str]]:
        """The jobs when all of them have ended.

        Raises:
            RuntimeError: if they have not in time.
        """
        found: list[dict[str, str]] = []

        def all_ended() -> bool:
            found[:] = [job for job_id in job_ids for job in self.jobs(job_id)]
            return all(job["JobState"] in ENDED for job in found)

        job_ids = list(job_ids)
        wait_for(all_ended, seconds, f"jobs {job_ids} did not end")
        return found


def wait_for(condition: Callable[[], bool], seconds: float, message: str) -> None:
    """Asks twice a second.

    Raises:
        RuntimeError: with the message, if it does not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{message} within {seconds:g} s")
        time.sleep(0.5)


def _processes() -> list[int]:
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
    ]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""
