"""Several nets tested as one: their average, and what they do not agree on.

K nets that were trained alike (on other folds of the images, or from other seeds) have means
m_1 … m_K. Their average is the ensemble's mean, and their unbiased variance, the *between-net* or
*epistemic* one, is what training left open (docs/theory.md, eq. 64 to 66; Lakshminarayanan et al.
2017, arXiv 1612.01474). It is an estimate of the variance part of a net's squared error; of an
error that all nets share it knows nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sr_var.components import tested_loop_of
from sr_var.data.folds import CrossFit, FoldedMean
from sr_var.data.label_noise import say_label_noise
from sr_var.data.pairs import Photographs
from sr_var.degradation import NetInput, mean_of, variance_of
from sr_var.flags.nets import RUN_FIELD, EnsembleFlags
from sr_var.flags.scripts import MeanModelFlags, MeanNetFlags, TestFlags, VarModelFlags
from sr_var.functionals import Functional, num_components
from sr_var.mean_module import MeanModule
from sr_var.mean_utils import SRMeanTestLoop
from sr_var.results.folder import epistemic_files
from sr_var.results.spread import save_spread
from sr_var.script_util import Log, frozen_means, mean_net_paths, tested_model
from sr_var.var_utils import SRVarTestLoop, require_same_mean, with_mean
from utils.flags.groups import Reading
from utils.loops.checkpoint import manifest_beside
from utils.loops.portable import weights_digest


def mean_and_between(
    nets: Sequence[nn.Module] | nn.ModuleList, net_input: NetInput, size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """m̄ = Σ m_k / K and Σ (m_k − m̄)² / (K − 1), (N, C, *size) each, for x (N, C, h, w).

    The second is in units of [-1, 1] squared.

    Raises:
        ValueError: there is a single net.
    """
    if len(nets) < 2:
        raise ValueError(f"a variance between nets needs at least two nets, got {len(nets)}")
    means = torch.stack([mean_of(net, net_input, size).float() for net in nets])
    return means.mean(dim=0), means.var(dim=0)


def tested_models(
    flags: MeanModelFlags, test: TestFlags, paths: Sequence[str], reading: Reading, log: Log
) -> list[nn.Module]:
    """The networks to test, all with the `flags` of the first one's checkpoint.

    Raises:
        CheckpointError: a checkpoint is missing, damaged or of a network with other flags.
    """
    return [tested_model(flags, replace(test, model_path=path), reading, log) for path in paths]


def tested_module(
    flags: MeanModelFlags, test: TestFlags, name: str, several: EnsembleFlags, log: Log
) -> tuple[list[nn.Module], list[str]]:
    """The function of `--mean_module` in the place of the networks to test, and its file.

    Raises:
        ValueError: networks are named beside it; or as `MeanModule.network`.
        DataError: likewise.
    """
    for given in (test.model_path, several.ensemble, several.cross_fit):
        if given:
            raise ValueError(
                f"--mean_module {name} is tested in place of a network; leave out --model_path, "
                "--ensemble and --cross_fit"
            )
    module = MeanModule(name)
    return [module.network(flags, log)], [module.source]


def require_folds(cross_fit: CrossFit | None, paths: Sequence[str]) -> None:
    """Refuse (CheckpointError) the nets of a cross-fit that have not left out their fold each."""
    if cross_fit is not None:
        for fold, path in enumerate(paths):
            cross_fit.require_unseen(fold, path, manifest_beside(path).get("state", {}))


@dataclass(frozen=True)
class TestedVariance:
    """What a variance test runs: each net with the frozen mean net that it stands on.

    `paths` are the checkpoints, the variance nets' first; several mean nets of a cross-fit count as
    one net, their average.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    nets: Sequence[nn.Module]
    means: Sequence[nn.Module]
    paths: Sequence[str]

    def make_loop(self, flags: VarModelFlags, **rest: Any) -> SRVarTestLoop:
        """The loop that writes the variances, of nets with these flags."""
        if len(self.nets) == 1:
            loop_class, _ = tested_loop_of(flags)
            return loop_class(model=self.nets[0], mean_model=self.means[0], **rest)
        nets, means = (nn.ModuleList(part) for part in (self.nets, self.means))
        own = {"functional": Functional.parse(flags.functional), **rest}
        return SRVarEnsembleTestLoop(model=nets, mean_model=means, **own)


def tested_variance(
    flags: VarModelFlags,
    mean_flags: MeanNetFlags,
    several: EnsembleFlags,
    test: TestFlags,
    args: argparse.Namespace,
    log: Log,
) -> TestedVariance:
    """Load the variance nets of `--model_path` and the mean nets of `--mean_model_path`.

    `args` are all flags of the script, of which the frozen mean nets' reading and values count.

    Raises:
        CheckpointError: a net is missing, has other flags, or a mean net is not the one that its
            variance net was trained on.
        ValueError: flags say nothing of a field of a pattern, or too much; or the components of
            several nets are asked for, whose mean says nothing.
    """
    if several.runs and num_components(flags.functional):
        raise ValueError(
            f"--ensemble {several.ensemble} is for variances, these nets know components "
            f"(--functional {flags.functional}), whose signs mean nothing: test one at a time"
        )
    cross_fit = CrossFit.from_flags(several)
    paths = several.runs_of(test.model_path, "model_path")
    nets = tested_models(flags, test, paths, Reading.of(args), log)
    of_means = [mean_flags]
    if RUN_FIELD in mean_flags.mean_model_path:
        names = ("mean_model_path", "mean_model_args_path")
        pairs = (several.runs_of(getattr(mean_flags, name), name) for name in names)
        of_means = [MeanNetFlags("", *pair) for pair in zip(*pairs, strict=True)]
    means, mean_paths = [], []
    for own in of_means:
        means.append(frozen_means(own, cross_fit, flags, test, log, args))
        mean_paths.append(mean_net_paths(own, cross_fit))
    if len(means) == 1:  # one for all variance nets
        means, mean_paths = means * len(nets), mean_paths * len(nets)
    for path, own_paths in zip(paths, mean_paths, strict=True):
        state = manifest_beside(path).get("state", {})
        digests = list(map(weights_digest, own_paths))
        require_same_mean(state, digests, path, mean_flags.mean_module)
        say_label_noise(state, path, log)
    every_mean = dict.fromkeys(path for own_paths in mean_paths for path in own_paths)
    return TestedVariance(nets, means, [*paths, *every_mean])


class SRMeanEnsembleTestLoop(SRMeanTestLoop):
    """Writes the average of several mean nets, and their between-net variance beside it."""

    model: FoldedMean

    def forward(self, batch: NetInput, batch_kwargs: Photographs) -> Tensor:
        """Average and between-net variance, (N, 2, C, H, W), of [-1, 1] and of its square."""
        size = batch_kwargs.high_res.shape[2:]
        return torch.stack(mean_and_between(self.model.nets, batch, size), dim=1)

    def _post_process(self, batch: NetInput, output: Tensor, batch_kwargs: Photographs) -> None:
        for i, name in enumerate(batch_kwargs.name):
            files = epistemic_files(self._results.step)
            save_spread(self._results, name, files, output[i, 1])
        super()._post_process(batch, output[:, 0], batch_kwargs)


class SRVarEnsembleTestLoop(SRVarTestLoop):
    """Writes the mean of the variances of several variance nets, each on its own mean net.

    Both nets of a pair have the same place in `model` and `mean_model`.
    """

    model: nn.ModuleList
    mean_model: nn.ModuleList

    def forward(self, batch: NetInput, batch_kwargs: Photographs) -> Tensor:
        """The variance in units of [-1, 1] squared, (N, C, H, W), or one a functional's value."""
        size = batch_kwargs.high_res.shape[2:]
        found = [
            variance_of(net, *with_mean(mean, batch, size)).float()
            for net, mean in zip(self.model, self.mean_model, strict=True)
        ]
        return self.functional.at_places(torch.stack(found).mean(dim=0))
