"""Ways to a mean and a variance, trained on fresh draws of the oracle's law and held against it.

Networks and loops are the toolkit's own, as its scripts call them; only the data differ: batches
are drawn in memory, so that no image is seen twice and nothing is rounded.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.truth_data import (
    FACTOR,
    FreshDraws,
    errors_of,
    judged_images,
    judged_law,
    observation_of,
)
from oracle.law import OracleLaw
from sr_var.baseline import BaselineTrainLoop, predict
from sr_var.components import SRComponentsTrainLoop
from sr_var.degradation import mean_of, variance_of
from sr_var.flags.degradation import AREA
from sr_var.flags.nets import ITAKURA_SAITO, NLL, SQUARED_ERROR, BaselineModelFlags
from sr_var.flags.network import SUBPIXEL, UNET
from sr_var.flags.scripts import (
    MeanModelFlags,
    VarModelFlags,
)
from sr_var.losses import start_at_usual_spread
from sr_var.mean_utils import SRMeanTrainLoop
from sr_var.script_util import create_baseline_model, create_mean_model, create_var_model
from sr_var.var_utils import SRVarTrainLoop
from utils.flags.training import ADAMW, MUON, TrainFlags
from utils.loops.networks import new_network
from utils.metrics import HALF_RANGE_255
from utils.process.stop import StopRequested, stop_line
from utils.seeds import stable_seed
from utils.train_util import TrainLoop

# the steps of a training follow from the median time of a few
_WARM_UP_STEPS, _TIMED_STEPS, _TIMED_SHARE = 2, 8, 0.05
# at most this part of a training is the warm-up of its learning rate
_WARM_UP_PART = 5
_TEST_BATCH = 16
MEAN, VARIANCE, BOTH, COMPONENTS = "mean", "variance", "both", "components"
_LOOPS: Mapping[str, type[TrainLoop]] = {
    MEAN: SRMeanTrainLoop,
    VARIANCE: SRVarTrainLoop,
    BOTH: BaselineTrainLoop,
    COMPONENTS: SRComponentsTrainLoop,
}
Row = dict[str, Any]
# makes a loop for so many steps
MakeLoop = Callable[[int], TrainLoop]


@dataclass(frozen=True)
class Route:
    """A way to a mean and a variance.

    Attributes:
        name: in the rows.
        title: in the tables.
        network: kind of the networks.
        loss: of the variance net; `nll` where one network does both.
        last_layer_type: what keeps the variance positive.
        is_consistent: whether the mean is projected.
        optimizer: of all its networks.
    """

    name: str
    title: str
    network: str
    loss: str
    last_layer_type: str = "softplus"
    is_consistent: bool = False
    optimizer: str = ADAMW


ROUTES = (
    Route("unet", "U-Net, squared error", UNET, SQUARED_ERROR, "none"),
    Route("unet_is", "U-Net, Itakura–Saito", UNET, ITAKURA_SAITO),
    Route("subpixel", "sub-pixel, squared error", SUBPIXEL, SQUARED_ERROR),
    Route("subpixel_is", "sub-pixel, Itakura–Saito", SUBPIXEL, ITAKURA_SAITO),
    Route(
        "subpixel_consistent",
        "sub-pixel, Itakura–Saito, consistent mean",
        SUBPIXEL,
        ITAKURA_SAITO,
        is_consistent=True,
    ),
    Route(
        "subpixel_muon",
        "sub-pixel, Itakura–Saito, consistent mean, Muon",
        SUBPIXEL,
        ITAKURA_SAITO,
        is_consistent=True,
        optimizer=MUON,
    ),
    Route("unet_nll", "one U-Net, normal likelihood", UNET, NLL),
    Route("subpixel_nll", "one sub-pixel net, normal likelihood", SUBPIXEL, NLL),
)


@dataclass(frozen=True)
class Recipe:
    """How the networks of one kind are made and trained.

    Attributes:
        model_flags: of `MeanModelFlags`, without the sizes.
        train: flags of every training; steps, seed and optimizer are set for each.
        muon_lrs: learning rates of its nets with Muon, by `MEAN`, `VARIANCE`, `COMPONENTS`.
    """

    model_flags: Mapping[str, Any]
    train: TrainFlags
    muon_lrs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One route, trained once: `budget` is the seconds of training of all its networks."""

    route: Route
    budget: float
    seed: int
    base: str

    @property
    def key(self) -> tuple[str, float, int, str]:
        """What tells its row from others."""
        return (self.route.name, self.budget, self.seed, self.base)


@dataclass(frozen=True)
class Trained:
    """A network, and what its training took."""

    model: nn.Module
    seconds: float
    steps: int


@dataclass
class Bench:
    """Trains trials and judges them on the same test images.

    Attributes:
        recipes: by kind of network.
        train_photos, test_photos: see `truth_data.load_photos`.
        num_test: test images.
        size: side of the low-res images, pixels.
        steps_per_second: of training, in place of what is measured; 0: measured.
        mean_share: of a budget, for the mean net where there are two.
        label_noise: std of normal noise that is added to the labels, grey levels; the variance is
            then that of such labels.
        degradation: what networks see; block means, or these and an observation (`judged_law`).
    """

    recipes: Mapping[str, Recipe]
    train_photos: Sequence[Tensor]
    test_photos: Sequence[Tensor]
    num_test: int
    size: int
    steps_per_second: float = 0.0
    mean_share: float = 0.5
    label_noise: float = 0.0
    degradation: str = AREA

    def __post_init__(self) -> None:
        """No mean net is there yet."""
        self._means: dict[tuple[Any, ...], Trained] = {}

    def law(self, base: str) -> OracleLaw:
        """The exact law of the test images given what networks see of them, float64."""
        return self._judged(base)[1]

    def _judged(self, base: str) -> tuple[Tensor, OracleLaw]:
        images = judged_images(self.test_photos, self.num_test, self.size)
        return judged_law(images, base, self.degradation)

    def run(self, trial: Trial) -> Row:
        """Train a trial's networks; what it took, and how far they are from the law.

        Raises:
            StopRequested: a signal came.
        """
        if trial.route.loss == NLL:
            flags = self._baseline_flags(trial)
            make = self._loops(trial, BOTH, create_baseline_model, flags, model_flags=flags)
            parts = [self._train(trial, make, trial.budget)]
        else:
            mean = self._mean(trial)
            own = {"predict_residual": False, "last_layer_type": trial.route.last_layer_type}
            flags = self._model_flags(trial, VarModelFlags, **own)
            own = {"mean_model": mean.model, "loss": trial.route.loss}
            make = self._loops(trial, VARIANCE, create_var_model, flags, **own)
            parts = [mean, self._train(trial, make, (1 - self.mean_share) * trial.budget)]
        name, budget, seed, base = trial.key
        return {
            "route": name,
            "budget": budget,
            "seed": seed,
            "base": base,
            "seconds": sum(part.seconds for part in parts),
            "steps": [part.steps for part in parts],
            **self._errors(trial, [part.model for part in parts]),
        }

    def _mean(self, trial: Trial) -> Trained:
        """The mean net, which routes of the same budget, seed and base may share."""
        run = trial.key[1:]
        key = (trial.route.network, trial.route.is_consistent, trial.route.optimizer, *run)
        self._means = {k: trained for k, trained in self._means.items() if k[3:] == run}
        if key not in self._means:
            own = {"consistent": trial.route.is_consistent}
            flags = self._model_flags(trial, MeanModelFlags, **own)
            make = self._loops(trial, MEAN, create_mean_model, flags)
            self._means[key] = self._train(trial, make, self.mean_share * trial.budget)
        return self._means[key]

    def _train(self, trial: Trial, make_loop: MakeLoop, seconds: float) -> Trained:
        """Train for as many steps as the seconds allow; the data are made in that time, too."""
        rate = self.steps_per_second or 1 / _seconds_per_step(make_loop(1), seconds)
        steps = max(1, round(seconds * rate))
        torch.manual_seed(trial.seed)
        loop = make_loop(steps)
        started = time.perf_counter()
        is_done = loop.run_loop()
        _wait(loop.device)
        if not is_done:
            raise StopRequested(stop_line("received a signal"))
        return Trained(loop.model.eval(), time.perf_counter() - started, steps)

    def _loops(
        self, trial: Trial, net: str, create: Callable[..., nn.Module], flags: Any, **own: Any
    ) -> MakeLoop:
        """What makes the loop of a net; seeds of data differ from net to net, not from run to run.

        Args:
            trial: whose it is.
            net: `MEAN`, `VARIANCE`, `BOTH` or `COMPONENTS`.
            create: makes the network of `flags`.
            flags: of the network.
            own: keywords of the loop beside those that all have.
        """
        recipe = self.recipes[trial.route.network]
        train = recipe.train
        if trial.route.optimizer == MUON:
            train = replace(train, optimizer=MUON, lr=recipe.muon_lrs[net])
        seed = stable_seed(trial.seed, net) % 2**31
        draws = (self.size, train.batch_size, trial.base, seed)
        seen = observation_of(self.degradation)
        data = FreshDraws(
            self.train_photos,
            *draws,
            label_noise=self.label_noise,
            degradation=None if seen is None else seen[1],
        )

        def make(steps: int) -> TrainLoop:
            model = new_network(partial(create, **vars(flags)), train.asked_precision, _say)
            if net != MEAN:
                start_at_usual_spread(model.out, flags)  # type: ignore[arg-type]
            # a slow network with a small budget shall not spend it on the warm-up
            warmup = min(train.lr_warmup_steps, steps // _WARM_UP_PART)
            run = replace(train, max_step=steps, lr_anneal_steps=steps, lr_warmup_steps=warmup)
            common = replace(run, seed=trial.seed).common()
            return _LOOPS[net](model=model, data=data, **own, **common)

        return make

    def _errors(self, trial: Trial, models: Sequence[nn.Module]) -> dict[str, float]:
        images, law = self._judged(trial.base)
        device = next(models[0].parameters()).device
        size = [FACTOR * self.size] * 2
        means, variances = [], []
        with torch.inference_mode():
            for x in torch.split(images.to(device), _TEST_BATCH):
                mean = mean_of(models[0], x, size).float()
                if trial.route.loss == NLL:
                    mean, own, _ = predict(self._baseline_flags(trial), mean, x)
                    assert own is not None
                    variance = own
                else:
                    variance = variance_of(models[1], x, mean)
                means.append(mean.cpu())
                variances.append(variance.float().cpu())
        added = (self.label_noise / HALF_RANGE_255) ** 2
        return errors_of(law, torch.cat(means), torch.cat(variances), added)

    def _model_flags(self, trial: Trial, flags_class: type[Any], **own: Any) -> Any:
        sizes = {"small_size": self.size, "large_size": FACTOR * self.size}
        is_unet = trial.route.network == UNET
        shared = {
            "network": trial.route.network,
            "predict_residual": is_unet,
            "degradation": self.degradation,
        }
        return flags_class(
            **{**self.recipes[trial.route.network].model_flags, **sizes, **shared, **own}
        )

    def _baseline_flags(self, trial: Trial) -> BaselineModelFlags:
        route = trial.route
        flags: BaselineModelFlags = self._model_flags(
            trial,
            BaselineModelFlags,
            objective=route.loss,
            last_layer_type=route.last_layer_type,
            consistent=route.is_consistent,
        )
        return flags


def _seconds_per_step(loop: TrainLoop, budget: float) -> float:
    """The median over steps behind a warm-up, data included; they take a share of the budget."""
    seconds: list[float] = []
    batches = iter(loop.data)  # type: ignore[arg-type]
    least = _WARM_UP_STEPS + _TIMED_STEPS
    while len(seconds) < least or sum(seconds) < _TIMED_SHARE * budget:
        started = time.perf_counter()
        loop.run_step(*next(batches))
        _wait(loop.device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[_WARM_UP_STEPS:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@functools.cache
def _say(line: str) -> None:
    """Tell once what every network would say again."""
    print(line, file=sys.stderr, flush=True)
