"""The commands of `make demo-restore`: two small nets for each degradation, and calibrations.

Every command is one that a user could type; sizes and words only. No torch: the scripts import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sr_var.demo.restoration.photographs import DATA_DIR, NUM_ROUNDS, Split, draw_split
from utils.runs.scripts import Command, Step, Times


@dataclass(frozen=True)
class Task:
    """A degradation that is to be undone: `name` is that of folders, `title` of its section.

    `what` says what was done to the photographs, `work` what the nets do.
    """

    name: str
    degradation: str
    title: str
    what: str
    work: str


TASKS = (
    Task(
        "noise",
        "noise:25",
        "Denoising",
        "Noise with a standard deviation of 25 grey levels was added to every value.",
        "denoising",
    ),
    Task(
        "jpeg",
        "jpeg:20",
        "JPEG",
        "The photographs were saved as JPEG of quality 20, which leaves blocks and rings.",
        "undoing JPEG",
    ),
    Task(
        "mask",
        "mask:0.5",
        "Inpainting",
        "Half of the pixels, drawn at random, were hidden; the nets are told which.",
        "inpainting",
    ),
)


@dataclass(frozen=True)
class Preset:
    """How large the demo is; the steps are of each training, with `batch_size` images each."""

    name: str
    size: int
    width: int
    num_res_blocks: int
    batch_size: int
    mean_steps: int
    var_steps: int
    mean_lr: float = 2e-3
    var_lr: float = 4e-3
    seed: int = 0
    in_bf16: bool = False

    def with_seed(self, seed: int) -> Preset:
        """The same with another split, other weights and noise, and its own folders."""
        return replace(self, name=f"{self.name}_seed{seed}", seed=seed) if seed else self

    def with_bf16(self, in_bf16: bool) -> Preset:
        """The same, trained in bf16 where `in_bf16` says so."""
        return replace(self, in_bf16=in_bf16)

    @property
    def split(self) -> Split:
        """Which photographs are for what."""
        return draw_split(self.seed)

    @property
    def seed_flag(self) -> str:
        """The flag, left out where it has its default."""
        return f" --seed {self.seed}" if self.seed else ""

    @property
    def lists_dir(self) -> str:
        """Where `photographs.write_lists` writes."""
        return f"data/{self.name}_lists"

    @property
    def report_dir(self) -> str:
        """Where the page lies."""
        return f"logs/sr_compare/{self.name}"

    def info(self, images: str) -> str:
        """The info dict of a list of images."""
        return f"data/{self.name}_info/{images}/to_sample_data_info.pkl"

    def results_dir(self, task: Task) -> str:
        """Where the means and variances of the held-out photographs lie."""
        return f"outputs/sr_var/{self.name}_{task.name}"

    def calibration(self, task: Task, place: int) -> str:
        """The calibration of a round."""
        return f"outputs/sr_calibrate/{self.name}_{task.name}/round_{place}/calibration.json"


FULL = Preset(
    name="demo_restore",
    size=96,
    width=32,
    num_res_blocks=4,
    batch_size=2,
    mean_steps=300,
    var_steps=300,
)
QUICK = Preset(
    name="demo_restore_quick",
    size=32,
    width=16,
    num_res_blocks=2,
    batch_size=4,
    mean_steps=20,
    var_steps=20,
)


def list_commands(preset: Preset) -> list[Command]:
    """What makes info dicts of the lists of photographs."""
    name = preset.name
    lists = ["held_out", *(f"calibrating_{k}" for k in range(NUM_ROUNDS))]
    return [
        _command(
            f"sr_data_info.py --data_dir {DATA_DIR} --label_from none --split_by list "
            f"--test_list {preset.lists_dir}/{one}.txt --output_dir data/{name}_info/{one} "
            f"--large_size {preset.size} --log_dir logs/sr_data_info/{name}_{one}"
        )
        for one in lists
    ]


def task_commands(preset: Preset, task: Task) -> list[Command]:
    """Both trainings of a task, both tests, and a calibration for each round."""
    name = f"{preset.name}_{task.name}"
    mean, var = (
        f"checkpoints/{kind}/{name}/model{step:06d}.pt"
        for kind, step in (("sr_mean", preset.mean_steps), ("sr_var", preset.var_steps))
    )
    args = f"logs/sr_mean/{name}/mean_model_args.pkl"
    of_mean = f"--mean_model_path {mean} --mean_model_args_path {args}"
    test = (
        f"--data_dir {DATA_DIR} --data_info_dict_path {preset.info('held_out')} "
        f"--output_dir {preset.results_dir(task)} --batch_size 8{preset.seed_flag}"
    )
    lines = [
        _train(preset, task, "sr_mean", preset.mean_steps, preset.mean_lr),
        f"{_train(preset, task, 'sr_var', preset.var_steps, preset.var_lr)} "
        f"--last_layer_type softplus --loss itakura_saito {of_mean}",
        f"sr_mean_test.py {test} --model_path {mean} --log_dir logs/sr_mean/{name}",
        f"sr_var_test.py {test} --model_path {var} {of_mean} --log_dir logs/sr_var/{name}",
        *(_calibrate(preset, task, place) for place in range(NUM_ROUNDS)),
    ]
    return [_command(line) for line in lines]


def _train(preset: Preset, task: Task, kind: str, steps: int, lr: float) -> str:
    name = f"{preset.name}_{task.name}"
    return (
        f"{kind}_train.py --network subpixel --large_size {preset.size} "
        f"--small_size {preset.size} --model_channels {preset.width} "
        f"--num_res_blocks {preset.num_res_blocks} --degradation {task.degradation} "
        f"--data_dir {DATA_DIR} "
        f"--data_info_dict_path data/{preset.name}_info/held_out/train_data_info.pkl "
        f"--random_crop True --random_flip True --random_turn True "
        f"--batch_size {preset.batch_size} --optimizer muon --lr {lr:g} --lr_schedule cosine "
        f"--lr_warmup_steps 10 --max_step {steps} --lr_anneal_steps {steps} --log_interval 50 "
        f"--save_interval 100 --keep_last_k 1 --resume_checkpoint auto{preset.seed_flag} "
        f"{'--use_bf16 True ' if preset.in_bf16 else ''}"
        f"--log_dir logs/{kind}/{name} --model_save_dir checkpoints/{kind}/{name}"
    )


def _calibrate(preset: Preset, task: Task, place: int) -> str:
    """Photographs are images of their own here, so the unit is the image."""
    return (
        f"sr_calibrate.py --data_dir {DATA_DIR} "
        f"--data_info_dict_path {preset.info(f'calibrating_{place}')} "
        f"--large_size {preset.size} --sr_model_output_dir {preset.results_dir(task)} "
        f"--mean_model_step {preset.mean_steps} --var_model_step {preset.var_steps} "
        f"--cluster image --output_dir {preset.calibration(task, place).rpartition('/')[0]} "
        f"--log_dir logs/sr_calibrate/{preset.name}_{task.name}_{place}"
    )


def commands(preset: Preset) -> list[Command]:
    """(script, arguments) in order; run again, each goes on where it was."""
    tasks = [line for task in TASKS for line in task_commands(preset, task)]
    return [*list_commands(preset), *tasks]


# seconds of `make demo-restore` and of its short form, on two cores (`steps.json`)
_SECONDS = {
    "sr_data_info.py": (1, 1),
    "sr_mean_train.py": (30, 3),
    "sr_var_train.py": (40, 3),
    "sr_mean_test.py": (3, 2),
    "sr_var_test.py": (3, 2),
    "sr_calibrate.py": (2, 1),
}
_WORDS = {
    "sr_mean_train.py": "{work}: training the net for the mean",
    "sr_var_train.py": "{work}: training the net for the variance",
    "sr_mean_test.py": "{work}: the means of photographs that did not train",
    "sr_var_test.py": "{work}: their variances",
    "sr_calibrate.py": "{work}: setting the intervals of round {round} of {rounds}",
}


def demo_steps(preset: Preset) -> list[Step]:
    """The commands with what they do in plain words, and how long they may take."""
    steps = []
    for number, line in enumerate(list_commands(preset)):
        what = "listing which photographs train" + (
            f"; which set the intervals of round {number} of {NUM_ROUNDS}" if number else ""
        )
        steps.append(_step(preset, line, what))
    for task in TASKS:
        done: dict[str, int] = {}
        for line in task_commands(preset, task):
            done[line[0]] = done.get(line[0], 0) + 1
            words = {"work": task.work, "round": done[line[0]], "rounds": NUM_ROUNDS}
            steps.append(_step(preset, line, _WORDS[line[0]].format(**words)))
    return steps


def record_path(preset: Preset) -> str:
    """Where the seconds of the steps are kept."""
    return f"logs/demo/{preset.name}/steps.json"


def seconds_of(steps: Sequence[Command], times: Times) -> float | None:
    """What some commands took together; None where one is not known."""
    lines = [Step(command, "", 0).line for command in steps]
    if any(line not in times for line in lines):
        return None
    return sum(times[line].seconds for line in lines)


def _step(preset: Preset, line: Command, what: str) -> Step:
    full, quick = _SECONDS[line[0]]
    return Step(line, what, quick if preset.name.startswith(QUICK.name) else full)


def _command(line: str) -> Command:
    script, *words = line.split()
    return script, words
