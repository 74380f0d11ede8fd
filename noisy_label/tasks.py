"""The five things that `mnist_classification.py` does, their loops, and data that is in memory.

The loss is the cross entropy against the given labels: its minimiser is their law q(k | x).
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.cnn import SmallCNN
from noisy_label.files import TEST, TRAINING, describe_split, digest_of, load_split
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
    held_out_file,
    load_for,
    refuse_to_replace,
    require_one_draw,
    save_with_record,
)
from noisy_label.noise import (
    NUM_CLASSES,
    Array,
    Labels,
    NoisyLabels,
    accuracy,
    count_classes,
    make_noise,
    net_figures,
    noise_figures,
    rounded_to_one,
)
from utils import dist_util
from utils.files.atomic import write_bytes_atomic, write_json_atomic
from utils.files.records import Identity
from utils.loops.checkpoint import CheckpointSet, CheckpointStore
from utils.loops.data import EpochOrder, ItemKey, ShardSampler
from utils.loops.portable import weights_digest
from utils.metrics import WHITE
from utils.process.errors import CheckpointError
from utils.process.stop import ANEW, StopRequested, stop_line
from utils.seeds import stable_seed
from utils.test_util import TestLoop
from utils.train_util import TrainLoop
from utils.untrusted.state_dict import load_model

if TYPE_CHECKING:
    from utils.logger import RunLogger


class TensorBatches:
    """Endless shuffled batches of tensors (N, …), which lie where the network is; resumable.

    Images are moved by up to `max_shift` pixels each way, anew in each epoch; the seed is that of
    the order and of the shifts.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int,
        seed: int,
        max_shift: int = 0,
    ) -> None:
        self._inputs, self._labels, self._batch_size = inputs, labels, batch_size
        self._order, self._seed, self._max_shift = EpochOrder(len(inputs), seed), seed, max_shift
        # a batch larger than the data is an error now, not at the first step
        ShardSampler(self._order, batch_size, 0)

    def listing(self) -> dict[str, object]:
        """What tells these images and labels from others."""
        digest = digest_of(self._inputs.cpu().numpy(), self._labels.cpu().numpy())
        return {"digest": digest, "num_images": len(self._inputs)}

    def batches(self, position: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's batches from the `position`-th item on."""
        for keys in ShardSampler(self._order, self._batch_size, position):
            index = torch.tensor([index for _, _, index in keys], device=self._inputs.device)
            images = self._inputs[index]
            if self._max_shift:
                images = shifted(images, self._shifts(keys), self._max_shift)
            yield images, self._labels[index]

    def _shifts(self, keys: Sequence[ItemKey]) -> torch.Tensor:
        """(N, 2) in [0, 2·max_shift], a function of (seed, epoch, index)."""
        side = 2 * self._max_shift + 1
        drawn = [
            stable_seed(self._seed, "shift", epoch, index) % side**2 for _, epoch, index in keys
        ]
        return torch.tensor([divmod(place, side) for place in drawn], device=self._inputs.device)


def shifted(images: torch.Tensor, offsets: torch.Tensor, max_shift: int) -> torch.Tensor:
    """Images (N, 1, H, W), each cut from itself in a black frame of `max_shift` pixels.

    Offsets (N, 2) are the cut's row and column, 0 to 2·max_shift; max_shift leaves it in place.
    """
    framed = torch.nn.functional.pad(images[:, 0], (max_shift,) * 4)  # (N, H + 2m, W + 2m)
    rows, columns = (
        offsets[:, axis, None] + torch.arange(images.shape[2 + axis], device=images.device)
        for axis in (0, 1)
    )
    number = torch.arange(len(images), device=images.device)[:, None, None]
    return framed[number, rows[:, :, None], columns[:, None, :]][:, None]


def network_input(images_uint8: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(N, 28, 28) grey levels → (N, 1, 28, 28) in [0, 1], on the device."""
    return images_uint8.to(device)[:, None].float() / WHITE


class LabelTrainLoop(TrainLoop):
    """Cross entropy against the given labels."""

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        """Mean of −log softmax(f(x))_y over the slice."""
        logits = self.wrapped_model(micro_input)
        return torch.nn.functional.cross_entropy(logits.float(), micro_label), logits

    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        is_same = micro_output.argmax(dim=1) == micro_label
        self.logger.add("agreement_with_labels", is_same.float().mean())


class _PredictionLoop(TestLoop):
    """Collects the log-softmax of every image, in order."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self.parts: list[torch.Tensor] = []

    def _post_process(
        self, batch: torch.Tensor, output: torch.Tensor, batch_kwargs: object
    ) -> None:
        self.parts.append(torch.log_softmax(output.double(), dim=1).cpu())


def predict(model: torch.nn.Module, inputs: torch.Tensor, batch_size: int = 1000) -> Array:
    """The log-softmax of every input, (N, K), float64; `StopRequested` if a signal came."""
    batches = [(part, None) for part in torch.split(inputs, batch_size)]
    loop = _PredictionLoop(model=model, data=batches, is_shown=False)
    if not loop.run_loop():
        raise StopRequested(stop_line(remedy=ANEW))
    return np.asarray(torch.cat(loop.parts).numpy(), np.float64)


_COLUMNS = 5


@dataclass(frozen=True)
class Images:
    """One split on the device: network inputs (N, 1, 28, 28) and the right labels (N,).

    `data` tells it from other splits.
    """

    inputs: torch.Tensor
    labels: Labels
    data: Mapping[str, object]

    @property
    def num_classes(self) -> int:
        """K, of the training images."""
        return count_classes(self.labels)

    @classmethod
    def load(
        cls, data_dir: str, split: str, device: torch.device, num_classes: int | None = None
    ) -> Images:
        """Read `training` or `test`; see `load_split`."""
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


def run_task(noise: NoiseFlags, net: NetFlags, train: LabelTrainFlags, logger: RunLogger) -> bool:
    """Do what `--task` says; False if a training was stopped.

    Raises:
        StopRequested: if a signal came to another task.
        DataError, CheckpointError: about images or labels; about the net.
    """
    device = dist_util.current_device()
    images = Images.load(noise.data_dir, TRAINING, device)
    num_classes, labels = images.num_classes, images.labels
    if num_classes != NUM_CLASSES:
        logger.info(f"{num_classes} classes")
    if noise.task != TRAIN:
        held_out = Images.load(noise.data_dir, TEST, device, num_classes)
        if noise.task == GENERATE:
            _generate(noise, net, train, (images, held_out), logger)
            return True
        noisy = load_for(noise.label_file, labels, images.data, noise.law, logger.info, num_classes)
        if noise.task in (ANALYSE, DRAW):
            laws = (noisy, _held_out_labels(noise, held_out, num_classes, logger))
            model, found = load_net(net, train, logger, num_classes)
            _notice_other_data(found, images.inputs, noisy.labels, logger)
            _report(noise.task, model, (images, held_out), laws, logger)
            return True
        _log_noise(noisy, labels, logger)
        labels = noisy.labels
    return train_net(images.inputs, labels, net, train, logger, num_classes)


def train_net(
    inputs: torch.Tensor,
    labels: Labels,
    net: NetFlags,
    train: LabelTrainFlags,
    logger: RunLogger,
    num_classes: int,
) -> bool:
    """Train a classifier on labels; False if a signal stopped it (a checkpoint is saved)."""
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
    net: NetFlags, train: LabelTrainFlags, logger: RunLogger, num_classes: int
) -> tuple[SmallCNN, CheckpointSet]:
    """The net that `resume_checkpoint` names, or the newest of `model_save_dir`.

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
    return model, found


def _identity(net: NetFlags) -> Identity:
    widths = ",".join(map(str, net.widths))
    return Identity("SmallCNN", {"input_dim": net.input_dim, "hidden_dims": widths})


def _notice_other_data(
    found: CheckpointSet, inputs: torch.Tensor, labels: Labels, logger: RunLogger
) -> None:
    """Say so if a net was trained on other images or labels than these."""
    made_on = found.manifest.get("data")
    seen = torch.from_numpy(labels).to(inputs.device)
    if made_on and made_on != TensorBatches(inputs, seen, 1, 0).listing():
        logger.info(f"notice: {found.model_path} was trained on other images or labels than these")


def _log_noise(noisy: NoisyLabels, labels: Labels, logger: RunLogger) -> None:
    figures = noise_figures(noisy, labels)
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
        model, net_file = load_net(net, train, logger, num_classes)
        _notice_other_data(net_file, splits[0].inputs, splits[0].labels, logger)
        digest = weights_digest(net_file.model_path)
    path = noise.label_file
    drawn = {**noise.law, "seed": train.seed, "net": digest}
    targets = (path, held_out_file(path))
    for images, target in zip(splits, targets, strict=True):
        if not (noise.overwrite or train.dry_run):
            refuse_to_replace(target, images.data, drawn, logger.info)
    for images, name, target in zip(splits, (TRAINING, TEST), targets, strict=True):
        found = None if model is None else predict(model, images.inputs)
        if found is not None and name == TRAINING:
            share, mass = rounded_to_one(found, images.labels)
            logger.info(
                f"right class rounds to 1 in fp32 for {share:.4f} of the images; 1e-6 in a "
                f"denominator would lose {mass:.4f} of the rest's probability on average, here it "
                "is kept (docs/noisy_labels.md)"
            )
        noisy = make_noise(
            noise.noise_type, noise.alpha, images.labels, found, train.seed, name, num_classes
        )
        if name == TRAINING:
            _log_noise(noisy, images.labels, logger)
        if train.dry_run:
            logger.info(f"not written: {target}")
        elif dist_util.is_main():
            save_with_record(target, noisy, images.data, drawn)
            logger.info(f"written: {target}")


def _held_out_labels(
    noise: NoiseFlags, held_out: Images, num_classes: int, logger: RunLogger
) -> NoisyLabels | None:
    """The laws of the test images: from the file beside the labels, or by formula."""
    path = held_out_file(noise.label_file)
    if os.path.exists(path):
        require_one_draw(noise.label_file, path)
        right, data = held_out.labels, held_out.data
        return load_for(path, right, data, noise.law, logger.info, num_classes)
    if noise.noise_type != GENERATED:
        kind, alpha = noise.noise_type, noise.alpha
        return make_noise(kind, alpha, held_out.labels, None, 0, TEST, num_classes)
    logger.info(f"notice: {path} is missing, so nothing is said of the law of the test images")
    return None


def _report(
    task: str,
    model: torch.nn.Module,
    splits: tuple[Images, Images],
    laws: tuple[NoisyLabels, NoisyLabels | None],
    logger: RunLogger,
) -> None:
    """Write the figures, or the pictures, of both splits, as far as their laws are known."""
    found = [predict(model, images.inputs) for images in splits]
    if logger.log_dir is None:
        return
    figures: dict[str, Mapping[str, float]] = {}
    parts = zip((TRAINING, TEST), found, splits, laws, strict=True)
    for name, predicted, images, noisy in parts:
        if task == DRAW:
            if noisy is not None:
                path = os.path.join(logger.log_dir, f"class_probabilities_{name}.png")
                _draw_class_probabilities(path, predicted, images.labels, noisy.law)
                logger.info(f"picture: {path}")
            continue
        if noisy is None:
            figures[name] = {"accuracy": accuracy(predicted, images.labels)}
        else:
            figures[name] = net_figures(predicted, images.labels, noisy)
        shown = (f"{key.replace('_', ' ')} {value:.4f}" for key, value in figures[name].items())
        logger.info(f"{name} images: {'; '.join(shown)}")
    if task == ANALYSE:
        path = os.path.join(logger.log_dir, "analysis.json")
        write_json_atomic(path, figures)
        logger.info(f"written: {path}")


def _draw_class_probabilities(
    path: str, log_probabilities: Array, labels: Labels, law: Array
) -> None:
    """For the images of each right class: the mean softmax as bars, the mean law as marks."""
    # a figure of its own, not pyplot's: no global state, no display
    from matplotlib.figure import Figure

    kinds, places = np.unique(labels).tolist(), range(law.shape[1])
    num_rows = -(-len(kinds) // _COLUMNS)
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.3 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, _COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for ax in axes[len(kinds) :]:
        ax.axis("off")
    marks: dict[str, Any] = {"color": "black", "mfc": "none", "ms": 5}
    for kind, ax in zip(kinds, axes, strict=False):
        softmax = np.exp(log_probabilities[labels == kind]).mean(axis=0)
        ax.bar(places, softmax, color="tab:blue", label="mean softmax of the net")
        mean_law = law[labels == kind].mean(axis=0)
        ax.plot(places, mean_law, "o", label="mean law of the labels", **marks)
        ax.set_title(f"images of class {kind}", fontsize=9)
        ax.set_xticks(places[:: -(-len(places) // 10)])
        ax.tick_params(labelsize=7)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=9)
    figure.supxlabel("class", fontsize=9)
    figure.supylabel("probability", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes_atomic(path, buffer.getvalue())
