"""The environment of the tests: what a shell, a job or a launcher has set decides nothing here.

Forked and started processes inherit it. To be imported before torch, which reads some of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

# of launchers (docs: utils.machine.launch), of the toolkit's own switches, of slurms/job.sh, of
# threads
_UNWANTED = re.compile(
    r"(SLURM|OMPI|PMI|PMIX|MPI|MV2|TORCHELASTIC)_\w+"
    r"|(LOCAL_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)"
    r"|OPENAI_LOGDIR|OPENAI_LOG_FORMAT|RUN_TRACKER|FILE_LOCKS|FILE_LOCK_LEASE|WINOGRAD|TUNED_MALLOC|TRACEBACK|TOOLKIT_REVISION|TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    r"|CONFIG|PYTHON|PROCESSES|LAUNCHER|PORT"
    r"|(MKL|OPENBLAS)_NUM_THREADS"
)


def settle(environ: MutableMapping[str, str]) -> None:
    """One thread, no GPU unless ``CUDA_VISIBLE_DEVICES`` names one, and no variable of others."""
    for name in [name for name in environ if _UNWANTED.fullmatch(name)]:
        del environ[name]
    # torch's threads do not survive a fork, and tests run side by side
    environ["OMP_NUM_THREADS"] = "1"
    # tolerances are those of CPUs, and a fork cannot use a GPU that its parent has used
    environ.setdefault("CUDA_VISIBLE_DEVICES", "")


settle(os.environ)
