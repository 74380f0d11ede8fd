#!/bin/sh
# Prints what this machine offers: python, torch, GPUs, MPI, Slurm, disk. Changes nothing.
cd "$(dirname "$0")" || exit 1
PYTHON=.venv/bin/python
[ -x "$PYTHON" ] || { PYTHON=${PYTHON_FALLBACK:-python3}; echo "environment  none yet (make demo or make test makes it)"; }
echo "python       $("$PYTHON" --version 2>&1) ($PYTHON)"
"$PYTHON" - <<'PY'
try:
    import torch
except ImportError:
    print("torch        not installed")
else:
    print(f"torch        {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        print("GPUs         none that torch can use")
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory / 2**30
        print(f"GPU {i}        {torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
OPTIONAL = {"mpi4py": "mpi", "tifffile": "tiff"}
for package in ("numpy", "PIL", "blobfile", "tensorboardX", "pynvml", "tqdm", "matplotlib", "mpi4py",
                "tifffile"):
    import importlib.util
    if importlib.util.find_spec(package) is None:
        print(f"missing      {package}" + (f" (optional: ./setup.sh {group})" if (group := OPTIONAL.get(package)) else ""))
PY
MPIEXEC=$(command -v mpiexec) && echo "MPI          $MPIEXEC" || echo "MPI          no mpiexec (only needed to start under MPI)"
command -v sbatch >/dev/null && echo "Slurm        $(sbatch --version)" || echo "Slurm        no sbatch (only needed for slurms/)"
df -h . | awk 'NR==2 {print "disk         " $4 " free of " $2}'
