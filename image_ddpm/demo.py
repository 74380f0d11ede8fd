"""The commands of ``make demo-images``: digits, from the data to a page that judges three solvers.

Sizes only; every command is one that a user could type. No torch: the scripts import it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

Command = tuple[str, list[str]]

# solver → how it is asked for, given its number of steps
SOLVERS = MappingProxyType(
    {
        "ancestral": "--sampler ancestral --timestep_respacing {steps}",
        "ddim": "--use_ddim True --timestep_respacing ddim{steps}",
        "dpmpp_2m": "--sampler dpmpp_2m --timestep_respacing logsnr{steps}",
    }
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
