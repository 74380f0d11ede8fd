"""`make demo-images`: digits, from the data to a page that judges three solvers.

Every command is one that a user could type. The page shows what each solver drew, how good it is
and what it cost, by the figures of `image_eval.py` and `image_sample.py`. No torch: the scripts
import it themselves.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from utils.files.atomic import write_text_atomic
from utils.files.records import read_record, require_numbers
from utils.report.html import Html, Page, Rows, Section, bars, figure, join, number, table, tag
from utils.runs.scripts import Command, Step

# solver → how it is asked for, given its number of steps
SOLVERS = MappingProxyType(
    {
        "ancestral": "--sampler ancestral --timestep_respacing {steps}",
        "ddim": "--use_ddim True --timestep_respacing ddim{steps}",
        "dpmpp_2m": "--sampler dpmpp_2m --timestep_respacing logsnr{steps}",
    }
)
_HEAD = (
    "solver",
    "steps of two evaluations",
    "seconds an image",
    "Fréchet distance",
    "its floor",
)


@dataclass(frozen=True)
class Preset:
    """How large a demo is; the steps are of training."""

    name: str
    steps: int
    classifier_steps: int
    num_samples: int
    sample_batch_size: int
    solver_steps: tuple[int, int, int]
    image_size: int = 16
    width: int = 32
    batch_size: int = 64
    lr: float = 2e-3

    @property
    def data_dir(self) -> str:
        """The digits as pictures."""
        return f"data/{self.name}_digits"

    @property
    def report_dir(self) -> str:
        """Where the page lies."""
        return f"logs/image_ddpm/{self.name}_report"

    def samples_dir(self, solver: str) -> str:
        """Where the samples of a solver lie."""
        return f"outputs/image_ddpm/{self.name}/{solver}"

    def eval_dir(self, solver: str) -> str:
        """Where their figures lie."""
        return f"logs/image_ddpm/{self.name}_eval/{solver}"


FULL = Preset(
    name="demo_images",
    steps=350,
    classifier_steps=400,
    num_samples=300,
    sample_batch_size=50,
    solver_steps=(50, 25, 15),
)
QUICK = replace(
    FULL,
    name="demo_images_quick",
    steps=12,
    classifier_steps=20,
    num_samples=20,
    sample_batch_size=20,
    solver_steps=(4, 4, 4),
    width=16,
    batch_size=16,
)


def commands(preset: Preset) -> list[Command]:
    """(script, arguments) in order; run again, each goes on where it was."""
    name, steps = preset.name, preset.steps
    digits = f"data/{name}_mnist"
    classifier = f"checkpoints/mnist/{name}/model{preset.classifier_steps:06d}.pt"
    network = (
        f"--image_size {preset.image_size} --in_channels 1 --num_channels {preset.width} "
        "--num_res_blocks 1 --channel_mult 1,2,2 --attention_resolutions 8 --num_heads 2 "
        "--class_cond True --num_classes 10 --class_dropout 0.1 "
        "--noise_schedule cosine --predict_xstart True"
    )
    lines = [
        f"image_data.py --source digits --image_size {preset.image_size} "
        f"--output_dir {preset.data_dir} --log_dir logs/image_data/{name}",
        f"mnist_data.py --output_dir {digits}",
        f"mnist_classification.py --data_dir {digits} --max_step {preset.classifier_steps} "
        f"--lr 2e-3 --log_dir logs/mnist/{name} --model_save_dir checkpoints/mnist/{name} "
        "--save_interval 1000 --log_interval 100 --resume_checkpoint auto",
        f"image_train.py {network} --data_dir {preset.data_dir}/train "
        f"--batch_size {preset.batch_size} --lr {preset.lr:g} --max_step {steps} "
        f"--lr_anneal_steps {steps} --lr_warmup_steps 10 --ema_rate 0.98 --log_interval 25 "
        f"--save_interval 100 --keep_last_k 1 --sample_interval 100 --resume_checkpoint auto "
        f"--log_dir logs/image_ddpm/{name} --model_save_dir checkpoints/image_ddpm/{name}",
    ]
    for solver, solver_steps in zip(SOLVERS, preset.solver_steps, strict=True):
        samples_dir = preset.samples_dir(solver)
        size = preset.image_size
        lines += [
            f"image_sample.py {network} {SOLVERS[solver].format(steps=solver_steps)} "
            f"--model_path checkpoints/image_ddpm/{name}/ema_0.98_{steps:06d}.pt "
            f"--num_samples {preset.num_samples} --batch_size {preset.sample_batch_size} "
            "--labels 0,1,2,3,4,5,6,7,8,9 --guidance_scale 1.5 --png True "
            f"--log_dir {samples_dir} --output_dir {samples_dir}",
            f"image_eval.py --reference {preset.data_dir}/train "
            f"--samples {samples_dir}/samples_{preset.num_samples}x{size}x{size}x1.npz "
            f"--features {classifier} --features_network small_cnn --num_subsets 50 "
            f"--log_dir {preset.eval_dir(solver)}",
        ]
    return [(words[0], words[1:]) for words in (line.split() for line in lines)]


# what a script does, and the seconds of `make demo-images` and of its short form (`steps.json`)
_WORKS = MappingProxyType(
    {
        "image_data.py": ("writing scikit-learn's digits as pictures", 6, 6),
        "mnist_data.py": ("writing them for a classifier", 2, 2),
        "mnist_classification.py": ("training the classifier that judges", 15, 3),
        "image_train.py": ("training the denoiser", 90, 6),
        "image_sample.py": ("drawing digits", 30, 4),
        "image_eval.py": ("judging them by the classifier's features", 6, 4),
    }
)


def demo_steps(preset: Preset) -> list[Step]:
    """The commands with what they do in plain words, and how long they may take."""
    steps = []
    for script, words in commands(preset):
        what, seconds, quick = _WORKS[script]
        guess = quick if preset.name == QUICK.name else seconds
        steps.append(Step((script, words), what, guess))
    return steps


def record_path(preset: Preset) -> str:
    """Where the seconds of the steps are kept."""
    return f"logs/demo/{preset.name}/steps.json"


@dataclass(frozen=True)
class Drawn:
    """What a solver drew: its grid (a PNG), its price, and what `image_eval.py` found."""

    dimension: int
    num_reference: int
    distance: float
    floor: float | None
    seconds: float | None = None
    grid: bytes = b""


def write_report(preset: Preset) -> str:
    """Write `report.html`; return its path.

    Raises:
        OSError: if a command of the demo has not left its figures.
        DataError: if they are damaged.
    """
    from ddpm.sampling import SECONDS_FILE
    from utils.machine.cost import seconds_per_item

    found = {}
    for solver in SOLVERS:
        folder = preset.samples_dir(solver)
        found[solver] = replace(
            read_results(os.path.join(preset.eval_dir(solver), "results.json")),
            seconds=seconds_per_item(os.path.join(folder, SECONDS_FILE)),
            grid=Path(folder, "grid.png").read_bytes(),
        )
    path = os.path.join(preset.report_dir, "report.html")
    os.makedirs(preset.report_dir, exist_ok=True)
    write_text_atomic(path, report_page(preset, found).render())
    return path


def read_results(path: str) -> Drawn:
    """What `image_eval.py` found; DataError if the file is damaged."""
    return read_record(path, "delete it and run demo_images.py again", _drawn)


def _drawn(found: dict[str, Any]) -> Drawn:
    frechet = found["frechet"]
    needed = found["dimension"], found["reference"]["count"], frechet["distance"]
    floor = frechet["floor"]
    require_numbers(needed if floor is None else [*needed, floor])
    return Drawn(*needed, floor)


def report_page(preset: Preset, found: dict[str, Drawn]) -> Page:
    """The page, before it is text."""
    any_of = next(iter(found.values()))
    lead = tag(
        "p",
        f"A class-conditional denoiser of {preset.image_size}×{preset.image_size} pixels after "
        f"{preset.steps} steps of {preset.batch_size} digits, {any_of.num_reference} in "
        f"all; {preset.num_samples} samples by each solver, classifier-free guidance 1.5.",
        class_="subtitle",
    )
    values = [part.distance for part in found.values()]
    plot = figure(
        "Fréchet distance",
        bars("Fréchet distance of each solver", list(found), values, "series-a"),
        f"In the {any_of.dimension} features of a classifier of real digits; lower is nearer to "
        f"them. Real digits against as many others: {number(any_of.floor, 3)}.",
    )
    rows = []
    for (solver, part), steps in zip(found.items(), preset.solver_steps, strict=True):
        distance = number(part.distance, 4)
        rows.append(
            [solver, number(steps), number(part.seconds, 3), distance, number(part.floor, 3)]
        )
    grids = [_grid(solver, part.grid) for solver, part in found.items()]
    return Page(
        title="Digits from a diffusion model",
        lead=lead,
        sections=[
            Section("samples", "Samples", tag("div", *grids, class_="plots")),
            Section("figures", "Figures", join(plot, table("Solvers", _HEAD, [Rows("", rows)]))),
        ],
    )


def _grid(solver: str, png: bytes) -> Html:
    picture = tag(
        "img",
        src=f"data:image/png;base64,{base64.b64encode(png).decode()}",
        alt=f"a hundred samples of {solver}, a row a digit",
        class_="pixels",
    )
    return figure(solver, picture, "Each row is asked for one digit, 0 to 9.")
