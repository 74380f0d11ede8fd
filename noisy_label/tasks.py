"""The five things that ``mnist_classification.py`` does; what a script and the sweep both build on.

Mathematics is in ``noise``, figures are in ``analysis``; here they meet files and networks.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from models.cnn import SmallCNN
from noisy_label.analysis import (
    accuracy,
    class_means,
    make_noise,
    net_figures,
    noise_figures,
    rounded_to_one,
)
from noisy_label.files import TEST, TRAINING, describe_split, load_split
from noisy_label.flags import (
    ANALYSE,
    DRAW,
    GENERATE,
    GENERATED,
    TRAIN,
    LabelTrainFlags,
    NetFlags,
    NoiseFlags,
)
from noisy_label.labels import (
    NoisyLabels,
    held_out_file,
    load_for,
    refuse_to_replace,
    require_one_draw,
    save_with_record,
)
from noisy_label.loops import LabelTrainLoop, Stopped, TensorBatches, network_input, predict
from noisy_label.noise import NUM_CLASSES, Labels, count_classes
from utils import dist_util
from utils.files.atomic import sha256_of, write_json_atomic
from utils.files.identity import Identity
from utils.loops.checkpoint import CheckpointStore
from utils.process.errors import EXIT_DONE, EXIT_STOPPED, CheckpointError
from utils.untrusted.state_dict import load_model

if TYPE_CHECKING:
    from utils.logger import RunLogger


@dataclass(frozen=True)
class Images:
    """One split on the device: network inputs (N, 1, 28, 28) and the right labels (N,).

    ``data`` tells it from other splits (``mnist_files.describe_split``).
    """

    inputs: torch.Tensor
    labels: Labels
    data: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """K, of the training images."""
        return count_classes(self.labels)

    @classmethod
    def load(
        cls, data_dir: str, split: str, device: torch.device, num_classes: int | None = None
    ) -> Images:
        """Reads ``training`` or ``test``.

        Args:
            data_dir: the folder.
            split: of the two.
            device: of the inputs.
            num_classes: of the training images, which those of the test must not exceed.

        Raises:
            DataError: names the file and the remedy.
        """
        images, labels = load_split(data_dir, split, num_classes)
        data = describe_split(images, labels)
        return cls(network_input(images, device), labels.numpy(), data)


def with_folders(noise: NoiseFlags, train: LabelTrainFlags) -> LabelTrainFlags:
    """The flags with the folders of the run where none are given."""
    return dataclasses.replace(
        train,
        log_dir=train.log_dir or f"logs/mnist/{noise.run_name}",
        model_save_dir=train.model_save_dir or f"checkpoints/mnist/{noise.run_name}",
    )


def run_task(noise: NoiseFlags, net: NetFlags, train: LabelTrainFlags, logger: RunLogger) -> int:
    """Does what ``--task`` says; returns the exit code.

    Raises:
        DataError: about images or labels.
        CheckpointError: about the net.
    """
    device = dist_util.current_device()
    images = Images.load(noise.data_dir, TRAINING, device)
    num_classes = images.num_classes
    if num_classes != NUM_CLASSES:
        logger.info(f"{num_classes} classes")
    if noise.task == TRAIN:
        is_done = train_net(images.inputs, images.labels, net, train, logger, num_classes)
        return EXIT_DONE if is_done else EXIT_STOPPED
    held_out = Images.load(noise.data_dir, TEST, device, num_classes)
    try:
        if noise.task == GENERATE:
            _generate(noise, net, train, (images, held_out), logger)
            return EXIT_DONE
        noisy = _load_noisy(noise.label_file, noise, images, num_classes, logger)
        if noise.task in (ANALYSE, DRAW):
            laws = (noisy, _held_out_labels(noise, held_out, num_classes, logger))
            model = load_net(net, train, logger, num_classes)
            _origin_of_net(train, images.inputs, noisy.labels, logger)
            _report(noise.task, model, (images, held_out), laws, logger)
            return EXIT_DONE
    except Stopped:
        logger.info("stopped; run again")
        return EXIT_STOPPED
    log_noise(noise_figures(noisy, images.labels), logger)
    is_done = train_net(images.inputs, noisy.labels, net, train, logger, num_classes)
    return EXIT_DONE if is_done else EXIT_STOPPED


def train_net(
    inputs: torch.Tensor,
    labels: Labels,
    net: NetFlags,
    train: LabelTrainFlags,
    logger: RunLogger,
    num_classes: int = NUM_CLASSES,
) -> bool:
    """Trains a classifier on labels; False if a signal stopped it (a checkpoint is saved)."""
    torch.manual_seed(train.seed)
    model = SmallCNN(net.input_dim, net.widths, num_classes)
    # 1.35 times as fast on a CPU; torch's overloads for type checkers leave it out
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    on_device = torch.from_numpy(labels).to(inputs.device)
    data = TensorBatches(inputs, on_device, train.batch_size, train.seed, train.max_shift)
    return LabelTrainLoop(
        model=model, data=data, identity=_identity(net), logger=logger, **train.common()
    ).run_loop()


def load_net(
    net: NetFlags, train: LabelTrainFlags, logger: RunLogger, num_classes: int = NUM_CLASSES
) -> SmallCNN:
    """The net that ``resume_checkpoint`` names, or the newest of ``model_save_dir``.

    Raises:
        CheckpointError: if there is none, or it is damaged or of another shape.
    """
    store = CheckpointStore(train.model_save_dir, warn=logger.info)
    found = store.resolve(train.resume_checkpoint or "auto")
    if found is None:
        raise CheckpointError(
            f"{train.model_save_dir} holds no checkpoint; train the net first (--task train, or "
            "train_on_noisy_label), or name one with --resume_checkpoint"
        )
    remedy = "give the same, or name a net that was trained with these"
    _identity(net).refuse_other_flags(found.model_path, found.manifest, remedy)
    model = SmallCNN(net.input_dim, net.widths, num_classes).to(dist_util.current_device())
    load_model(model, found.model_path, logger.info)
    logger.info(f"net: {found.model_path}")
    return model


def _identity(net: NetFlags) -> Identity:
    """What the checkpoints of the net are."""
    widths = ",".join(map(str, net.widths))
    return Identity("SmallCNN", {"input_dim": net.input_dim, "hidden_dims": widths})


def _origin_of_net(
    train: LabelTrainFlags, inputs: torch.Tensor, labels: Labels, logger: RunLogger
) -> str:
    """The sha256 of the net that was loaded; says so if it was trained on other images or labels.

    Args:
        train: names the net.
        inputs: (N, 1, 28, 28) training images.
        labels: (N,) those that it should have seen.
        logger: receives the notice.
    """
    store = CheckpointStore(train.model_save_dir, warn=lambda line: None)
    found = store.resolve(train.resume_checkpoint or "auto")
    assert found is not None
    made_on = found.manifest.get("data")
    seen = torch.from_numpy(labels).to(inputs.device)
    if made_on and made_on != TensorBatches(inputs, seen, 1, 0).listing():
        logger.info(f"notice: {found.model_path} was trained on other images or labels than these")
    return sha256_of(found.model_path)


def log_noise(figures: dict[str, float], logger: RunLogger) -> None:
    """One line on what the labels are like."""
    logger.info(
        f"labels: {figures['ratio_of_correct_labels']:.4f} are right (expected "
        f"{figures['expected_ratio']:.4f}); {figures['largest_is_wrong']:.4f} of the images have a "
        f"larger probability for a wrong class; entropy {figures['entropy']:.4f} nats"
    )


def _generate(
    noise: NoiseFlags,
    net: NetFlags,
    train: LabelTrainFlags,
    splits: tuple[Images, Images],
    logger: RunLogger,
) -> None:
    num_classes = splits[0].num_classes
    model, digest = None, ""
    if noise.noise_type == GENERATED:
        model = load_net(net, train, logger, num_classes)
        digest = _origin_of_net(train, splits[0].inputs, splits[0].labels, logger)
    path = noise.label_file
    drawn = {"noise_type": noise.noise_type, "alpha": noise.alpha}
    drawn |= {"seed": train.seed, "net": digest}
    targets = (path, held_out_file(path))
    for images, target in zip(splits, targets, strict=True):
        if not (noise.overwrite or train.dry_run):
            refuse_to_replace(target, images.data, drawn, logger.info)
    for images, name, target in zip(splits, (TRAINING, TEST), targets, strict=True):
        found = None if model is None else predict(model, images.inputs)
        if found is not None and name == TRAINING:
            lost = rounded_to_one(found, images.labels)
            logger.info(
                f"right class rounds to 1 in fp32 for {lost['share_rounding_to_one']:.4f} of the "
                f"images; 1e-6 in a denominator would lose {lost['mean_mass_lost_by_1e-6']:.4f} of "
                "the rest's probability on average, here it is kept (docs/noisy_labels.md)"
            )
        noisy = make_noise(
            noise.noise_type, noise.alpha, images.labels, found, train.seed, name, num_classes
        )
        if name == TRAINING:
            log_noise(noise_figures(noisy, images.labels), logger)
        if train.dry_run:
            logger.info(f"dry run: {target} was not written")
        elif dist_util.is_main():
            save_with_record(target, noisy, images.data, drawn)
            logger.info(f"written: {target}")


def _load_noisy(
    path: str, noise: NoiseFlags, images: Images, num_classes: int, logger: RunLogger
) -> NoisyLabels:
    flags = {"noise_type": noise.noise_type, "alpha": noise.alpha}
    return load_for(path, images.labels, images.data, flags, logger.info, num_classes)


def _held_out_labels(
    noise: NoiseFlags, held_out: Images, num_classes: int, logger: RunLogger
) -> NoisyLabels | None:
    """The laws of the test images: from the file beside the labels, or by formula."""
    path = held_out_file(noise.label_file)
    if os.path.exists(path):
        require_one_draw(noise.label_file, path)
        return _load_noisy(path, noise, held_out, num_classes, logger)
    if noise.noise_type != GENERATED:
        return make_noise(
            noise.noise_type, noise.alpha, held_out.labels, None, 0, TEST, num_classes
        )
    logger.info(f"notice: {path} is missing, so nothing is said of the law of the test images")
    return None


def _report(
    task: str,
    model: torch.nn.Module,
    splits: tuple[Images, Images],
    laws: tuple[NoisyLabels, NoisyLabels | None],
    logger: RunLogger,
) -> None:
    figures: dict[str, Any] = {}
    means: dict[str, Any] = {}
    for name, images, noisy in zip((TRAINING, TEST), splits, laws, strict=True):
        found = predict(model, images.inputs)
        if noisy is None:
            figures[name] = {"accuracy": accuracy(found, images.labels)}
        else:
            figures[name] = net_figures(found, images.labels, noisy)
            means[name] = class_means(found, images.labels, noisy.law)
    if logger.log_dir is None:
        logger.info("dry run: nothing was written")
        return
    if task == DRAW:
        from noisy_label.pictures import draw_class_probabilities

        for name, content in means.items():
            path = os.path.join(logger.log_dir, f"class_probabilities_{name}.png")
            draw_class_probabilities(path, content)
            logger.info(f"picture: {path}")
        return
    for name, part in figures.items():
        shown = "; ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in part.items())
        logger.info(f"{name} images: {shown}")
    path = os.path.join(logger.log_dir, "analysis.json")
    write_json_atomic(path, figures)
    logger.info(f"written: {path}")
