"""The commands of ``make demo``: the whole experiment on small tiles of real photographs, then the
same two nets on the oracle.

Sizes only; every command is one that a user could type. No torch: the scripts import it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sr_var.oracle_experiment import ITAKURA_SAITO, Command, OracleExperiment


@dataclass(frozen=True)
class Preset:
    """How large a demo is; the steps are of training."""

    name: str
    large_size: int
    small_size: int
    width: int
    channel_mult: str
    batch_size: int
    lr: float
    mean_steps: int
    var_steps: int
    diffusion_steps: int
    num_samples: int
    respacing: str
    sample_batch_size: int
    oracle_crops: int
    oracle_mean_steps: int
    oracle_var_steps: int


CPU = Preset(
    name="demo",
    large_size=64,
    small_size=16,
    width=32,
    channel_mult="0.5,1,2",
    batch_size=4,
    lr=2e-3,
    mean_steps=800,
    var_steps=600,
    diffusion_steps=1300,
    num_samples=20,
    respacing="8,1,1,1,1",
    sample_batch_size=32,
    oracle_crops=1000,
    oracle_mean_steps=300,
    oracle_var_steps=300,
)
QUICK = replace(
    CPU,
    name="demo_quick",
    large_size=32,
    small_size=8,
    width=16,
    channel_mult="1,2",
    mean_steps=120,
    var_steps=120,
    diffusion_steps=120,
    num_samples=8,
    oracle_crops=100,
    oracle_mean_steps=40,
    oracle_var_steps=40,
)
GPU = replace(
    CPU,
    name="demo_gpu",
    width=64,
    channel_mult="1,1,2",
    batch_size=32,
    lr=1e-3,
    mean_steps=3000,
    var_steps=3000,
    diffusion_steps=6000,
    num_samples=50,
    respacing="30,5,3,2,2",
    sample_batch_size=400,
    oracle_crops=4000,
    oracle_mean_steps=4000,
    oracle_var_steps=4000,
)


def commands(preset: Preset) -> list[Command]:
    """(script, arguments) in order; run again, each goes on where it was."""
    name, info = preset.name, f"data/{preset.name}_info"
    sizes = f"--large_size {preset.large_size} --small_size {preset.small_size}"
    net = (
        f"{sizes} --model_channels {preset.width} --channel_mult {preset.channel_mult} "
        "--num_res_blocks 1 --attention_resolutions= --resblock_updown True"
    )
    denoiser = net.replace("--model_channels", "--num_channels") + (
        " --noise_schedule cosine --predict_xstart True --predict_residual True"
    )
    train = (
        f"--data_dir data/demo --data_info_dict_path {info}/train_data_info.pkl --random_flip True "
        f"--random_crop True --batch_size {preset.batch_size} --log_interval 50 "
        f"--save_interval 300 --keep_last_k 1 --resume_checkpoint auto --lr {preset.lr:g}"
    )
    test = f"--data_dir data/demo --data_info_dict_path {info}/to_sample_data_info.pkl"
    mean_model = f"checkpoints/sr_mean/{name}/model{preset.mean_steps:06d}.pt"
    mean_args = f"logs/sr_mean/{name}/mean_model_args.pkl"
    lines = [
        f"sr_data_info.py --data_dir data/demo --test_folder test --output_dir {info} "
        f"--large_size {preset.large_size} --log_dir logs/sr_data_info/{name}",
        f"sr_mean_train.py {net} --predict_residual True {train} "
        + _schedule("sr_mean", name, preset.mean_steps),
        f"sr_var_train.py {net} {train} --mean_model_path {mean_model} "
        f"--mean_model_args_path {mean_args} " + _schedule("sr_var", name, preset.var_steps),
        f"ddpm_sr_train.py {denoiser} {train} --ema_rate 0.99 "
        + _schedule("ddpm_sr", name, preset.diffusion_steps),
        f"ddpm_sr_sample.py {denoiser} --timestep_respacing {preset.respacing} "
        f"--data_dir data/demo --to_sample_images_dict_path {info}/to_sample_data_info.pkl "
        f"--model_path checkpoints/ddpm_sr/{name}/ema_0.99_{preset.diffusion_steps:06d}.pt "
        f"--log_dir logs/ddpm_sr/{name}_sample --output_dir outputs/ddpm_sr/{name} "
        f"--num_samples_per_image {preset.num_samples} --batch_size {preset.sample_batch_size}",
        f"sr_mean_test.py {test} --log_dir logs/sr_mean/{name} --output_dir outputs/sr_var/{name} "
        f"--model_path {mean_model} --batch_size 16",
        f"sr_var_test.py {test} --log_dir logs/sr_var/{name} --output_dir outputs/sr_var/{name} "
        f"--model_path checkpoints/sr_var/{name}/model{preset.var_steps:06d}.pt --batch_size 16 "
        f"--mean_model_path {mean_model} --mean_model_args_path {mean_args}",
        f"sr_var_verification.py {test} --large_size {preset.large_size} "
        f"--ddpm_sr_output_dir outputs/ddpm_sr/{name} --num_samples {preset.num_samples} "
        f"--sr_model_output_dir outputs/sr_var/{name} --mean_model_step {preset.mean_steps} "
        f"--var_model_step {preset.var_steps} --log_dir logs/sr_compare/{name}",
    ]
    return [(words[0], words[1:]) for words in (line.split() for line in lines)]


def oracle_commands(preset: Preset) -> list[Command]:
    """The small check against the truth: both nets on the oracle, judged by its exact law."""
    return oracle_experiment(preset).commands([ITAKURA_SAITO])


def oracle_experiment(preset: Preset) -> OracleExperiment:
    """The sizes of that check."""
    return OracleExperiment(
        name=f"{preset.name}_oracle",
        width=16,
        channel_mult="1,1,2",
        batch_size=16,
        lr=3e-3,
        num_crops=preset.oracle_crops,
        num_test_crops=16,
        mean_steps=preset.oracle_mean_steps,
        var_steps=preset.oracle_var_steps,
    )


def _schedule(task: str, name: str, steps: int) -> str:
    return (
        f"--max_step {steps} --lr_anneal_steps {steps} "
        f"--log_dir logs/{task}/{name} --model_save_dir checkpoints/{task}/{name}"
    )
