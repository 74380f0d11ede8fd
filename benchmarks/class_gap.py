"""What the class explains: four nets on the class law, two that know the label and two that do not.

    python -m benchmarks.class_gap                (ten minutes on a core, less if it is free)

Runs the scripts of the toolkit on sub-pixel networks as in `make demo`, prints each command, and
goes on where it was when it was stopped. Each pair is held against the exact values of its own law:
E and Var of Y given X, and given X and the label. Their difference is the gap of docs/theory.md,
eq. 69.
Writes `<name>_<date>.json` and `.md` to `--output_dir`.
"""

from __future__ import annotations

import datetime
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sr_var.demo.commands import CPU, ITAKURA_SAITO, Command, Nets
from sr_var.results.moments import load_truth
from utils.files.atomic import write_json_atomic, write_text_atomic
from utils.files.storage import make_folder
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import FlagParser, flag, from_args, make_parser, require_at_least
from utils.untrusted.pickles import load_array

ROOT = Path(__file__).resolve().parent.parent
Array = npt.NDArray[np.float64]
# without and with the label: what the folders' names end with, and the table's rows
KINDS = {"": "given X", "_given_class": "given X and the class"}


@dataclass(frozen=True)
class GapFlags:
    """Sizes of data and trainings, and where to write."""

    name: str = flag("class_gap", "of the folders in data, checkpoints, logs and outputs")
    num_classes: int = flag(2, "labels of the class law")
    num_crops: int = flag(2000, "pieces of photographs for training, four draws of each")
    num_test_crops: int = flag(64, "pieces of the test photographs")
    num_samples: int = flag(100, "exact samples of each, given X and given X and the label")
    steps: int = flag(1200, "training steps of each of the four nets")
    width: int = flag(32, "channels of the networks")
    num_res_blocks: int = flag(3, "their residual blocks")
    large_size: int = flag(32, "side of the high-res images, pixels")
    small_size: int = flag(8, "side of the low-res images, pixels")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the two files")

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=2, num_crops=1, num_test_crops=1, num_samples=2, steps=1)


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=GapFlags)


def commands(flags: GapFlags) -> list[Command]:
    """All commands in order: the data; then of each kind both trainings, tests, the verdict."""
    lines = [
        f"oracle_data.py --data_dir data/demo --test_folder test --output_dir data/{flags.name} "
        f"--sample_dir outputs/oracle/{flags.name} --log_dir logs/oracle_data/{flags.name} "
        f"--large_size {flags.large_size} --small_size {flags.small_size} "
        f"--num_classes {flags.num_classes} --num_train_crops {flags.num_crops} --num_draws 4 "
        f"--num_test_crops {flags.num_test_crops} --num_samples {flags.num_samples} "
        "--sample_pictures False"
    ]
    for kind in KINDS:
        lines += _of_kind(flags, kind)
    return [(script, words) for script, *words in map(str.split, lines)]


def _of_kind(flags: GapFlags, kind: str) -> Iterator[str]:
    name, data, step = flags.name + kind, f"data/{flags.name}", f"{flags.steps:06d}"
    labels = f" --class_cond True --num_classes {flags.num_classes}" if kind else ""
    mean = f" --mean_model_path checkpoints/sr_mean/{name}/model{step}.pt"
    tasks = {"sr_mean": ("", ""), "sr_var": (f" {ITAKURA_SAITO.flags}", mean)}
    for task, (loss, given) in tasks.items():
        yield (
            f"{task}_train.py {_net(flags, task)}{labels}{loss}{given} --data_dir {data}/images "
            f"--data_info_dict_path {data}/train_data_info.pkl --batch_size {CPU.batch_size} "
            f"--log_interval 50 --save_interval 300 --keep_last_k 1 --resume_checkpoint auto "
            f"--lr {CPU.nets.lr(task, CPU.lr):g} --lr_warmup_steps {min(20, flags.steps)} "
            f"--max_step {flags.steps} --lr_anneal_steps {flags.steps} "
            f"--log_dir logs/{task}/{name} --model_save_dir checkpoints/{task}/{name}"
        )
    tested = f"--data_dir {data}/images --data_info_dict_path {data}/to_sample_data_info.pkl"
    for task, (_, given) in tasks.items():
        yield (
            f"{task}_test.py {tested} --batch_size 16 --output_dir outputs/sr_var/{name} "
            f"--log_dir logs/{task}/{name} --model_path checkpoints/{task}/{name}/model{step}.pt"
            f"{given}"
        )
    yield (
        f"sr_var_verification.py {tested} --large_size {flags.large_size} "
        f"--ddpm_sr_output_dir outputs/oracle/{name} --num_samples {flags.num_samples} "
        f"--sr_model_output_dir outputs/sr_var/{name} --mean_model_step {flags.steps} "
        f"--var_model_step {flags.steps} --log_dir logs/sr_compare/{name} --num_panels 4"
    )


def _net(flags: GapFlags, task: str) -> str:
    sizes = {"large_size": flags.large_size, "small_size": flags.small_size}
    return Nets(flags.width, flags.num_res_blocks, **sizes).flags(task)


def measure(flags: GapFlags) -> dict[str, dict[str, float]]:
    """What the nets and the exact law say of the test images, by kind; of `gap` the difference.

    In grey levels²: `variance`, `exact`; of the two kinds also the verification's shares
    `relative_mse`, `relative_var_error` and `var_bias`. Of the gap `error` is the mean distance of
    the pixels' own gap from the exact one, over the exact one, and `between_means` the mean of
    (m̂(x, c) − m̂(x))², `exact_between` that of the exact means.
    """
    found: dict[str, dict[str, float]] = {}
    variances, means = {}, {}
    for kind in KINDS:
        name = flags.name + kind
        variances[kind], means[kind] = _results(flags, name)
        truth = json.loads(Path("logs/sr_compare", name, "results.json").read_text("utf-8"))
        shares = {key: truth["truth"]["nets"][key] for key in _SHARES}
        net, exact = (float(part.mean()) for part in variances[kind])
        found[kind] = {"variance": net, "exact": exact, **shares}
    gap, exact_gap = (a - b for a, b in zip(*variances.values(), strict=True))
    between, exact_between = (
        float(((a - b) ** 2).mean()) for a, b in zip(*means.values(), strict=True)
    )
    found["gap"] = {
        "variance": float(gap.mean()),
        "exact": float(exact_gap.mean()),
        "error": float(np.abs(gap - exact_gap).mean() / np.abs(exact_gap).mean()),
        "between_means": between,
        "exact_between": exact_between,
    }
    return found


_SHARES = ("relative_mse", "relative_var_error", "var_bias")


def _results(flags: GapFlags, name: str) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Variances and means of all test images, of the nets and exact each, (N, H, W, 3)."""
    side, step = flags.large_size, flags.steps
    nets = Path("outputs/sr_var", name)
    folders = sorted(path.parent for path in nets.rglob(f"high_res_var_{step}.pkl"))
    truths = [
        load_truth(str(Path("outputs/oracle", name, folder.relative_to(nets))), side)
        for folder in folders
    ]
    variances = np.stack([load_array(folder / f"high_res_var_{step}.pkl") for folder in folders])
    means = np.stack(
        [np.load(folder / f"high_res_mean_{step}.npy", allow_pickle=False) for folder in folders]
    )
    exact = [(truth.variance, truth.mean) for truth in truths if truth is not None]
    exact_variances, exact_means = (np.stack(part) for part in zip(*exact, strict=True))
    return (variances.astype(np.float64), exact_variances), (means.astype(np.float64), exact_means)


def format_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row for each pair of nets, then the gap; variances in grey levels²."""
    lines = [
        "| | mean variance of the nets | exact | difference | mean: squared error / variance | "
        "variance: mean relative error |",
        "|---|---|---|---|---|---|",
    ]
    for kind, title in KINDS.items():
        row = found[kind]
        shares = f"{100 * row['relative_mse']:.2f} % | {100 * row['relative_var_error']:.1f} %"
        lines.append(f"| nets {title} | {_compared(row['variance'], row['exact'])} | {shares} |")
    gap = found["gap"]
    lines.append(
        f"| gap: difference of the two variances | {_compared(gap['variance'], gap['exact'])} | – "
        f"| {100 * gap['error']:.0f} % |"
    )
    between = _compared(gap["between_means"], gap["exact_between"])
    lines.append(f"| gap: mean square of the difference of the two means | {between} | – | – |")
    return "\n".join(lines) + "\n"


def _compared(value: float, exact: float) -> str:
    return f"{value:.2f} | {exact:.2f} | {100 * (value / exact - 1):+.1f} %"


def main(argv: list[str] | None = None) -> int:
    """Trains, tests, judges, writes; returns the exit code of a command that did not finish."""
    flags = from_args(GapFlags, create_parser().parse_args(argv))
    steps = commands(flags)
    for number, (script, words) in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] python {script} {' '.join(words)}", flush=True)
        code: int = importlib.import_module(script.removesuffix(".py")).main(words)
        if code != EXIT_DONE:
            return code
    found, today = measure(flags), datetime.date.today().isoformat()
    path = str(Path(flags.output_dir, f"{flags.name}_{today}"))
    make_folder(flags.output_dir, "--output_dir")
    own = {name: value for name, value in vars(flags).items() if name != "output_dir"}
    write_json_atomic(f"{path}.json", {"date": today, "flags": own, "results": found})
    write_text_atomic(f"{path}.md", format_table(found))
    print(f"\n{format_table(found)}written: {path}.json and .md")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
