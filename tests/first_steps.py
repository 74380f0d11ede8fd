"""Twenty steps of every network, kept to the last bit: for before and after a change of structure.

    python -m tests.first_steps store FILE     trains, writes losses and weights to FILE (JSON)
    python -m tests.first_steps compare FILE   trains again; exit code 1 if one bit differs

It trains by the scripts' own `main` on the tests' tiny data, in one thread on the CPU. The bits
are those of one machine and one version of torch: store and compare on the same ones.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tests.environment  # noqa: F401 - before torch: one thread, no GPU

import torch  # isort: skip

from tests.image_ddpm import tiny as images
from tests.scripts import streams
from tests.tiny import DENOISER, REGRESSION_NET, TinyData, done, words
from tests.utils.events import read_scalars
from utils import fp16_util

Flags = dict[str, Any]
Figures = dict[str, Any]

NUM_STEPS = 20
TRAINING: Flags = {
    "batch_size": 2,
    "max_step": NUM_STEPS,
    "log_interval": 1,
    "save_interval": NUM_STEPS,
    "lr": 1e-3,
    "ema_rate": "0.9",
}
MICRO: Flags = {"microbatch": 1}
AUGMENTED: Flags = {"random_crop": True, "random_flip": True, "dropout": 0.1}
PRECISIONS: dict[str, Flags] = {
    "fp32": {},
    "fp16": {"use_fp16": True},
    "bf16": {"use_bf16": True},
}
LABEL_NET: Flags = {"input_dim": 64, "hidden_dims": "32", "batch_size": 16}


@dataclass(frozen=True)
class Training:
    """One network: the script that trains it, and its flags without folders."""

    name: str
    script: str
    flags: Flags


def in_all_precisions(name: str, script: str, *groups: Flags) -> Iterator[Training]:
    """The network in fp32, fp16 and bf16."""
    flags = {key: value for group in groups for key, value in group.items()}
    for precision, more in PRECISIONS.items():
        yield Training(f"{name} {precision}", script, {**flags, **more})


def mean_nets(data: TinyData) -> Iterator[Training]:
    """The conditional mean, also as a residual, and with a fold left out."""
    script, flags = "sr_mean_train", {**REGRESSION_NET, **data.train_flags}
    yield from in_all_precisions("mean", script, flags, MICRO)
    yield Training("mean residual", script, {**flags, **AUGMENTED, "predict_residual": True})
    for fold in range(2):
        folds = {"cross_fit": 2, "fold": fold}
        yield Training(f"mean fold {fold}", script, {**flags, **folds})


def variance_nets(data: TinyData, root: Path) -> Iterator[Training]:
    """The conditional variance given the mean net, by every loss and last layer."""
    script, flags = "sr_var_train", {**REGRESSION_NET, **data.train_flags}
    given = mean_net(root / "mean fp32")
    for layer in ("none", "exp", "sigmoid", "softplus"):
        more = {"last_layer_type": layer, **MICRO}
        yield from in_all_precisions(f"variance {layer}", script, flags, given, more)
    ratio = {"loss": "itakura_saito", "last_layer_type": "softplus"}
    yield from in_all_precisions("variance itakura_saito", script, flags, given, ratio)
    folds = {"cross_fit": 2, **mean_net(root / "mean fold {fold}")}
    yield Training("variance cross-fit", script, {**flags, **AUGMENTED, **ratio, **folds})


def mean_net(folder: Path) -> Flags:
    """The trained mean net of a folder, as flags."""
    return {
        "mean_model_path": folder / f"model{NUM_STEPS:06d}.pt",
        "mean_model_args_path": folder / "mean_model_args.pkl",
    }


def baselines(data: TinyData) -> Iterator[Training]:
    """Mean and variance, or quantiles, in one network."""
    script, flags = "sr_baseline_train", {**REGRESSION_NET, **data.train_flags, **MICRO}
    for objective in ("nll", "beta_nll", "quantile"):
        kind = {"objective": objective}
        yield from in_all_precisions(f"baseline {objective}", script, flags, kind)


def denoisers(data: TinyData, photos: Path) -> Iterator[Training]:
    """The denoisers of super-resolution and of images, and the classifier that guides these."""
    process = {"diffusion_steps": 100}
    upsampler = {**DENOISER, **process, **data.train_flags, **MICRO}
    yield from in_all_precisions("upsampler", "ddpm_sr_train", upsampler)
    bound = {**AUGMENTED, "use_kl": True, "schedule_sampler": "loss-second-moment"}
    yield Training("upsampler bound", "ddpm_sr_train", {**upsampler, **bound})

    image = {**images.NET, **images.PROCESS, "data_dir": photos}
    yield from in_all_precisions("image", "image_train", image, MICRO)
    classes = {**images.CLASSES, **AUGMENTED, "class_dropout": 0.3}
    yield Training("image classes", "image_train", {**image, **classes})
    yield Training("image bound", "image_train", {**image, **bound})
    fixed = {"learn_sigma": False, "predict_xstart": True, "in_channels": 1}
    yield Training("image x_0", "image_train", {**image, **fixed})

    guide = {**streams.CLASSIFIER, "diffusion_steps": 20, "data_dir": photos}
    yield from in_all_precisions("classifier", "classifier_train", guide, MICRO)
    for pool in ("adaptive", "spatial", "spatial_v2"):
        more = {"classifier_pool": pool}
        yield Training(f"classifier {pool}", "classifier_train", {**guide, **more})
    yield Training("classifier clean", "classifier_train", {**guide, "noised": False})


def label_nets(digits: Path, root: Path) -> Iterator[Training]:
    """The classifier of digits, on right labels and on every kind of wrong ones."""
    script, flags = "mnist_classification", {**LABEL_NET, "data_dir": digits}
    yield Training("labels right", script, {**flags, "max_shift": 2})
    for noise_type in ("uniform", "fix", "model"):
        noise = {"noise_type": noise_type, "alpha": 0.6}
        file = {"noise_label_file": root / f"{noise_type}.pkl"}
        # their noise is that of the first net, which --resume_checkpoint names by its folder
        folders = {"model_save_dir": root / "labels right", "log_dir": root / f"{noise_type} made"}
        done(script, words(flags, noise, file, folders, task="generate_noisy_label"))
        task = {"task": "train_on_noisy_label"}
        yield Training(f"labels {noise_type}", script, {**flags, **noise, **file, **task})


def trainings(root: Path) -> Iterator[Training]:
    """All networks, in an order in which they can be trained below `root`; writes their data."""
    data = TinyData.write(root / "sr images", root / "sr info")
    photos, digits = images.named_images(root / "named images"), root / "digits"
    done("mnist_data", words(output_dir=digits))
    yield from mean_nets(data)
    yield from variance_nets(data, root)
    yield from baselines(data)
    yield from denoisers(data, photos)
    yield from label_nets(digits, root)


def figures(training: Training, folder: Path) -> Figures:
    """Trains; the losses as exact numbers, and digests of the weights and of their averages."""
    flags = {**TRAINING, **training.flags, "log_dir": folder, "model_save_dir": folder}
    done(training.script, words(flags))
    losses = read_scalars(folder)["loss"]  # float32, as the loop has them
    if sorted(losses) != list(range(1, NUM_STEPS + 1)):
        raise RuntimeError(f"{training.name} logged the losses of steps {sorted(losses)}")
    return {
        "losses": [losses[step].hex() for step in sorted(losses)],
        "weights": digest(folder / f"model{NUM_STEPS:06d}.pt"),
        "averaged weights": digest(folder / f"ema_0.9_{NUM_STEPS:06d}.pt"),
    }


def digest(path: Path) -> str:
    """SHA-256 of names, types, shapes and values of a state_dict, whatever its file looks like."""
    found = hashlib.sha256()
    for name, value in sorted(torch.load(path, weights_only=True).items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def compute_as_asked() -> None:
    """Lets this CPU train in 16 bits whether it is fast in that or not."""
    original = fp16_util.computes_natively
    for module in list(sys.modules.values()):
        if getattr(module, "computes_natively", None) is original:
            vars(module)["computes_natively"] = lambda *_, **__: True  # also for later imports


def train_all() -> dict[str, Figures]:
    """Network → figures.

    Raises:
        RuntimeError: if a network of 16 bits was trained in others.
    """
    compute_as_asked()
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        for training in trainings(Path(folder)):
            started = time.monotonic()
            print(f"{training.name} ...", end="", flush=True)
            found[training.name] = figures(training, Path(folder) / training.name)
            print(f" {time.monotonic() - started:.1f} s", flush=True)
    for name in found:
        kind, _, precision = name.rpartition(" ")
        others = [f"{kind} {other}" for other in PRECISIONS if other != precision]
        if precision in PRECISIONS and any(found[name] == found[other] for other in others):
            raise RuntimeError(f"{name} has the figures of another precision")
    return found


def difference(stored: Figures | None, found: Figures | None) -> str:
    """Where the figures of a network differ first; empty if nowhere."""
    if stored is None or found is None:
        return "not stored" if stored is None else "not trained"
    pairs = zip(stored["losses"], found["losses"], strict=True)
    for step, (before, now) in enumerate(pairs, start=1):
        if before != now:
            values = f"{float.fromhex(before):.9g}, now {float.fromhex(now):.9g}"
            return f"from the loss of step {step} on: {values} ({before}, {now})"
    return ", ".join(key for key in stored if stored[key] != found[key])


def machine() -> dict[str, str]:
    """What the bits depend on beside the code."""
    return {
        "torch": torch.__version__,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
    }


def compare(stored: dict[str, Any], found: dict[str, Figures]) -> int:
    """Says of every network whether it is the same; returns the exit code."""
    if stored["machine"] != machine():
        print(f"note: stored on {stored['machine']}, this is {machine()}")
    nets = stored["nets"]
    differences = {name: difference(nets.get(name), found.get(name)) for name in {**nets, **found}}
    for name, where in differences.items():
        print(f"{name}: {f'DIFFERENT, {where}' if where else 'equal'}")
    num_different = sum(map(bool, differences.values()))
    print(f"{num_different} of {len(differences)} networks differ")
    return 1 if num_different else 0


def main(argv: list[str]) -> int:
    """Stores or compares; returns the exit code."""
    if len(argv) != 2 or argv[0] not in ("store", "compare"):
        print(__doc__)
        return 2
    task, path = argv[0], Path(argv[1])
    if task == "compare":
        return compare(json.loads(path.read_text(encoding="utf-8")), train_all())
    content = {"machine": machine(), "nets": train_all()}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
