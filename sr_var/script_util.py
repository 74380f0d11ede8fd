"""From flags to networks and processes: new ones, frozen mean nets, those to be tested.

An unknown flag is a TypeError, a value that makes no network or no process a ValueError. What the
files of a run remember of its flags is read in `stored_flags`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ddpm.flags import DiffusionFlags, UNetFlags
from ddpm.process import create_diffusion
from ddpm.stored_flags import check_labels, start_of_file
from models.config import (
    SubpixelConfig,
    UNetConfig,
    default_diffusion_channel_mult,
    default_regression_channel_mult,
    parse_attention_resolutions,
    parse_channel_mult,
)
from models.subpixel import SubpixelDenoiser, SubpixelModel, SubpixelVarianceModel, noise_of
from models.unet import SuperResModel, UNetModel, VarianceModel
from sr_var.degrade.view import View, degradation_of, factor_of, require_same_view
from sr_var.flags.nets import FOLD_FIELD, BaselineModelFlags
from sr_var.flags.network import SUBPIXEL
from sr_var.flags.scripts import (
    DataFlags,
    MeanModelFlags,
    MeanNetFlags,
    SRDiffusionModelFlags,
    TestFlags,
    VarModelFlags,
)
from sr_var.functionals import Functional, num_components
from sr_var.losses import start_at_usual_spread
from sr_var.mean_module import MeanModule
from sr_var.mean_utils import batches_to_do, regression_test_data
from sr_var.stored_flags import (
    flags_of_checkpoint,
    identity_of,
    require_known_classes,
    require_same_classes,
)
from sr_var.values import require_same_values
from utils import dist_util
from utils.debug_util import report_cost
from utils.flags.groups import Compute, PrecisionFlags, Reading
from utils.flags.training import TrainFlags
from utils.loops.checkpoint import manifest_beside
from utils.loops.data import TrainData
from utils.loops.networks import load_checked, new_network, ready_for
from utils.loops.portable import weights_digest
from utils.process.errors import CheckpointError
from utils.script_util import FlagValues, defaults
from utils.test_util import TestLoop

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from sr_var.data.folds import CrossFit
    from sr_var.results.folder import ResultFolder
    from utils.images.listing import Entry
    from utils.logger import RunLogger

Log = Callable[[str], None]
_OF_UNETS = sorted(
    {"conv_resample", "use_scale_shift_norm", *defaults(UNetFlags)}
    - {"num_res_blocks", *defaults(PrecisionFlags)}
)


def mean_model_defaults() -> FlagValues:
    """Flag → default of the mean net."""
    return defaults(MeanModelFlags)


def var_model_defaults() -> FlagValues:
    """Flag → default of the variance net."""
    return defaults(VarModelFlags)


def sr_model_and_diffusion_defaults() -> FlagValues:
    """Flag → default of the diffusion model: its network and its process."""
    return {**defaults(SRDiffusionModelFlags), **defaults(DiffusionFlags)}


def create_mean_model(**flags: Any) -> UNetModel | SubpixelModel:
    """The mean net of the flags (`MeanModelFlags`; what is left out keeps its default)."""
    parsed = MeanModelFlags(**flags)
    if parsed.network == SUBPIXEL:
        return SubpixelModel(_subpixel_config(parsed))
    return UNetModel(_config(parsed, default_regression_channel_mult))


def create_var_model(**flags: Any) -> VarianceModel | SubpixelVarianceModel:
    """The variance net of the flags (`VarModelFlags`)."""
    parsed = VarModelFlags(**flags)
    for name in ("predict_residual", "consistent"):
        if getattr(parsed, name):
            raise ValueError(f"--{name} is for the mean net; leave it out for the variance")
    number = num_components(parsed.functional)
    if number and degradation_of(parsed):
        raise ValueError(
            f"--functional {parsed.functional} is of the blocks that --degradation area averages, "
            f"not of --degradation {parsed.degradation}: leave it out"
        )
    if number:
        return _components_model(parsed, number)
    Functional.parse(parsed.functional).require_fit(parsed.large_size)
    if parsed.network == SUBPIXEL:
        config = _subpixel_config(parsed)
        return SubpixelVarianceModel(config, is_of_pixels=not parsed.functional)
    return VarianceModel(_config(parsed, default_regression_channel_mult))


def _components_model(flags: VarModelFlags, number: int) -> SubpixelVarianceModel:
    """The network of `sr_var.components`; its last layer is not 0, which has no direction."""
    values = flags.in_channels * factor_of(flags) ** 2
    needed = {"network": SUBPIXEL, "last_layer_type": "none"}
    for name, value in needed.items():
        if getattr(flags, name) != value:
            raise ValueError(
                f"--functional {flags.functional} needs --{name} {value}, not "
                f"{getattr(flags, name)}"
            )
    if number > values:
        raise ValueError(
            f"--functional {flags.functional}: a block of {values} values has no more components"
        )
    config = _subpixel_config(flags, out_channels=number * (flags.out_channels + 1))
    model = SubpixelVarianceModel(config)
    for convolution in model.out.children():
        convolution.reset_parameters()  # type: ignore[operator]
    return model


def create_baseline_model(**flags: Any) -> UNetModel | SubpixelModel:
    """The one network of a baseline (`BaselineModelFlags`), its outputs side by side.

    What is added to them and projected is left to `sr_var.baseline`: there are more outputs than
    inputs.
    """
    parsed = BaselineModelFlags(**flags)
    own = {
        "last_layer_type": "none",
        "consistent": False,
        "out_channels": parsed.out_channels * parsed.num_outputs,
    }
    if parsed.network == SUBPIXEL:
        return SubpixelModel(_subpixel_config(parsed, **own))
    own["predict_residual"] = False
    return UNetModel(_config(parsed, default_regression_channel_mult, **own))


def sr_create_model_and_diffusion(
    **flags: Any,
) -> tuple[SuperResModel | SubpixelDenoiser, GaussianDiffusion]:
    """The denoiser and the process of the flags."""
    names = [field.name for field in dataclasses.fields(DiffusionFlags) if field.name in flags]
    process = DiffusionFlags(**{name: flags.pop(name) for name in names})
    keywords = denoiser_flags(SRDiffusionModelFlags(**flags), process)
    return create_sr_model(**keywords), create_diffusion(process)


def denoiser_flags(flags: SRDiffusionModelFlags, process: DiffusionFlags) -> FlagValues:
    """The keywords of `create_sr_model`.

    Raises:
        ValueError: what the network predicts does not fit the process.
    """
    if flags.predict_residual and not process.predict_xstart:
        raise ValueError(
            "--predict_residual True adds the low-res image to a predicted image; give "
            "--predict_xstart True with it"
        )
    keywords = {**vars(flags), "learn_sigma": process.learn_sigma}
    if flags.network == SUBPIXEL:
        keywords["sigmas"] = _noise_of_chain(process)
    return keywords


def _noise_of_chain(process: DiffusionFlags) -> list[float]:
    """The noise at each timestep that a sub-pixel denoiser of the process is told."""
    for name, needed in (
        ("predict_xstart", True),
        ("learn_sigma", False),
        ("rescale_timesteps", False),
    ):
        if getattr(process, name) is not needed:
            raise ValueError(
                f"--{name} {not needed} does not fit --network {SUBPIXEL}, which predicts the "
                f"image at whole timesteps: give --{name} {needed}"
            )
    chain = create_diffusion(dataclasses.replace(process, timestep_respacing=""))
    shares = chain.coefficients.alphas_cumprod.tolist()
    if not all(shares):
        raise ValueError(
            f"--diffusion_steps {process.diffusion_steps} with --noise_schedule "
            f"{process.noise_schedule} leaves nothing of the image in the last one, which "
            f"--network {SUBPIXEL} divides by: give more steps"
        )
    return noise_of(shares)


def create_sr_model(
    *, learn_sigma: bool, sigmas: Sequence[float] = (), **flags: Any
) -> SuperResModel | SubpixelDenoiser:
    """The denoiser of `SRDiffusionModelFlags`; twice the channels with `learn_sigma`.

    A sub-pixel one needs the noise of each timestep, `sigmas` (`denoiser_flags` has both).
    """
    parsed = SRDiffusionModelFlags(**flags)
    if parsed.network == SUBPIXEL:
        degradation = degradation_of(parsed)
        config = _subpixel_config(
            parsed,
            model_channels=parsed.num_channels,
            out_channels=parsed.in_channels,
            has_block_means=degradation is None or degradation.shows_block_means,
        )
        if parsed.class_cond:
            raise ValueError(
                f"--class_cond True: a denoiser of --network {SUBPIXEL} knows no classes: leave it "
                "out"
            )
        return SubpixelDenoiser(config, sigmas)
    own = {
        "model_channels": parsed.num_channels,
        "out_channels": parsed.in_channels * (2 if learn_sigma else 1),
    }
    return SuperResModel(_config(parsed, default_diffusion_channel_mult, **own))


def _config(
    flags: MeanModelFlags | SRDiffusionModelFlags,
    default_mult: Callable[[int], tuple[float, ...]],
    **more: Any,
) -> UNetConfig:
    large = flags.sizes[0]
    factor_of(flags)
    own = {field.name for field in dataclasses.fields(UNetConfig)}
    shared = {name: value for name, value in vars(flags).items() if name in own}
    shared |= {
        "image_size": large.plain,
        "num_classes": flags.num_labels,
        **_of_view(flags),
        "attention_resolutions": parse_attention_resolutions(flags.attention_resolutions),
        "channel_mult": parse_channel_mult(flags.channel_mult)
        if flags.channel_mult
        else default_mult(large.short_side),
    }
    return UNetConfig(**{**shared, **more})


def _of_view(flags: MeanModelFlags | SRDiffusionModelFlags) -> FlagValues:
    """What a network needs to know of the degradation."""
    made = degradation_of(flags)
    own_channels = made.image_channels if made and made.measured else 0
    return {"extra_channels": made.num_extra if made else 0, "image_channels": own_channels}


def _subpixel_config(flags: MeanModelFlags | SRDiffusionModelFlags, **more: Any) -> SubpixelConfig:
    """The sizes of a sub-pixel net; flags that only a U-Net has must keep their defaults."""
    known = defaults(type(flags))
    for name in known.keys() & set(_OF_UNETS):
        if getattr(flags, name) != known[name]:
            raise ValueError(
                f"--{name} {getattr(flags, name)} means nothing to --network {SUBPIXEL}: leave it "
                "out"
            )
    own = {field.name for field in dataclasses.fields(SubpixelConfig)}
    shared = {name: value for name, value in vars(flags).items() if name in own}
    shared |= {"factor": factor_of(flags), "num_classes": flags.num_labels, **_of_view(flags)}
    made = degradation_of(flags)
    shared |= {name: bool(made and getattr(made, name)) for name in ("shows_whole", "masks_whole")}
    return SubpixelConfig(**{**shared, **more})


_CREATE: dict[type[MeanModelFlags], Callable[..., torch.nn.Module]] = {
    MeanModelFlags: create_mean_model,
    VarModelFlags: create_var_model,
    BaselineModelFlags: create_baseline_model,
}


def new_net(flags: MeanModelFlags, train: TrainFlags, log: Log) -> torch.nn.Module:
    """A fresh network for a training; a variance begins at a usual spread, if it is positive."""
    model = new_network(partial(_CREATE[type(flags)], **vars(flags)), train.asked_precision, log)
    if isinstance(flags, (VarModelFlags, BaselineModelFlags)):
        assert isinstance(model.out, torch.nn.Module)
        start_at_usual_spread(model.out, flags)
    return model


def _say_other_reading(path: str, asked: Reading, log: Log) -> None:
    """Say so where a network was trained on images that were read another way."""
    made = manifest_beside(path).get("data")
    if not isinstance(made, dict) or "apply_orientation" not in made:
        return  # of a list that is not known, or a version that did not say
    stored = Reading.parse(made)
    news = []
    if stored.apply_orientation != asked.apply_orientation:
        news.append("photographs that lie on their side there and not here")
    if stored.crop != asked.crop:
        news.append("images at this scale")
    if news:
        log(
            f"notice: {path} was trained with {stored}, here it is {asked}; "
            f"{' and '.join(news)} are new to it"
        )


def frozen_mean_net(
    path: str,
    args_file: str,
    task: MeanModelFlags,
    compute: Compute,
    log: Log,
    *,
    args_flag: str = "--mean_model_args_path",
) -> torch.nn.Module:
    """The mean net that the variance task stands on, built from its own stored flags.

    `args_file` has them for a checkpoint whose manifest does not tell them; `args_flag` named it,
    and is empty if nobody did. `task` are the flags of the variance net.

    Raises:
        CheckpointError: if a file is missing or does not fit, or the net is for other sizes, values
            or classes.
    """
    if not path:
        raise CheckpointError("--mean_model_path is empty; give the checkpoint of the mean net")
    start = start_of_file(path)
    flags = flags_of_checkpoint(
        start, args_file, MeanModelFlags, log, path_flag=args_flag, must_exist=bool(args_flag)
    )
    net = MeanModelFlags(**flags)
    if net.sizes != task.sizes:
        raise CheckpointError(
            f"the mean net {path} is for {net.small_size} → {net.large_size}, this run "
            f"for {task.small_size} → {task.large_size}; name a mean net of these sizes"
        )
    require_same_values(path, net, task)
    require_same_view(path, net, task)
    require_same_classes(path, net, task)
    create = partial(create_mean_model, **flags)
    model = load_checked(create, path, net.asked_precision, log, identity_of(net))
    return ready_for(model, compute, dist_util.current_device(), log)


def mean_net_paths(flags: MeanNetFlags, cross_fit: CrossFit | None) -> list[str]:
    """The checkpoints of the mean net, or of the nets of each fold; a ValueError if flags clash.

    In the place of a net, the file of the function is its checkpoint.
    """
    if flags.mean_module:
        return [MeanModule(flags.mean_module).source_of_all(has_folds=cross_fit is not None)]
    is_pattern = FOLD_FIELD in flags.mean_model_path
    if cross_fit is None and is_pattern:
        raise ValueError(f"--mean_model_path {flags.mean_model_path}: give --cross_fit K with it")
    if cross_fit is None:
        return [flags.mean_model_path]
    if not is_pattern:
        raise ValueError(
            f"--mean_model_path {flags.mean_model_path!r} must contain {FOLD_FIELD} with "
            "--cross_fit: it stands for 0 to K - 1"
        )
    folds = map(str, range(cross_fit.num_folds))
    return [flags.mean_model_path.replace(FOLD_FIELD, fold) for fold in folds]


def mean_net_digests(flags: MeanNetFlags, cross_fit: CrossFit | None) -> list[str]:
    """The sha256 of these checkpoints."""
    return [weights_digest(path) for path in mean_net_paths(flags, cross_fit)]


def frozen_means(
    flags: MeanNetFlags,
    cross_fit: CrossFit | None,
    task: VarModelFlags,
    compute: Compute,
    log: Log,
    args: argparse.Namespace,
) -> torch.nn.Module:
    """The frozen mean net; with a cross-fit, the nets of all folds as one (`FoldedMean`).

    `task` are the flags of the variance net, `args` all those of the script.

    Raises:
        CheckpointError: if a net is missing, does not fit, or has seen the fold it is for.
    """
    paths = mean_net_paths(flags, cross_fit)
    if flags.mean_module:
        return MeanModule(flags.mean_module).network(task, log)
    args_flag = "--mean_model_args_path" if "mean_model_args_path" in args.given_flags else ""
    for path in paths:
        _say_other_reading(path, Reading.of(args), log)
        if cross_fit is None:  # else the net of an image's fold has not seen it
            _say_other_validation(path, getattr(args, "val_share", 0.0), log)
    load = partial(frozen_mean_net, task=task, compute=compute, log=log)
    if cross_fit is None:
        return load(paths[0], flags.mean_model_args_path, args_flag=args_flag)
    from sr_var.data.folds import FoldedMean

    nets = []
    for fold, path in enumerate(paths):
        args_file = flags.mean_model_args_path.replace(FOLD_FIELD, str(fold))
        cross_fit.require_unseen(fold, path, manifest_beside(path).get("state", {}))
        nets.append(load(path, args_file, args_flag=args_flag))
    return FoldedMean(nets)


def _say_other_validation(path: str, share: float, log: Log) -> None:
    """Say where a mean net was trained on images that the variance net is validated on."""
    state = manifest_beside(path).get("state", {})
    validation = state.get("validation") if isinstance(state, dict) else None
    made = validation.get("val_share", 0.0) if isinstance(validation, dict) else 0.0
    if share and made != share:
        log(
            f"notice: {path} was trained with --val_share {made}, so it has seen images that this "
            f"training is validated on (--val_share {share}): their residuals are too small, and "
            "z2 looks better than it is"
        )


def report_leakage(
    model: torch.nn.Module, data: TrainData, num_images: int, logger: RunLogger, step: int
) -> None:
    """Measure and log what the variance net is spared by cross-fitting; all processes join.

    Nothing to measure without a cross-fit, or on no images.
    """
    from sr_var.data.folds import FoldedMean, measure_leakage

    if not isinstance(model, FoldedMean) or not num_images:
        return
    device = dist_util.current_device()
    found = measure_leakage(model.to(device), data.batches(0), num_images, device)
    names = ("in_fold", "out_of_fold", "ratio")
    logger.scalars({f"cross_fit/{name}": getattr(found, name) for name in names}, step)
    logger.info(
        f"squared residuals of {found.num_images} images, grey levels²: {found.in_fold:.4g} by the "
        f"nets that saw them, {found.out_of_fold:.4g} by the one that did not; ratio "
        f"{found.ratio:.3f}"
    )


def tested_model(
    flags: MeanModelFlags, test: TestFlags, reading: Reading, log: Log
) -> torch.nn.Module:
    """The network to test; `flags` are those of its checkpoint (`stored_flags.follow_net`)."""
    _say_other_reading(test.model_path, reading, log)
    create, identity = partial(_CREATE[type(flags)], **vars(flags)), identity_of(flags)
    network = load_checked(create, test.model_path, flags.asked_precision, log, identity)
    return ready_for(network, test, dist_util.current_device(), log)


def run_test(
    make_loop: Callable[..., TestLoop],
    results: ResultFolder,
    entries: Sequence[Entry],
    model_flags: MeanModelFlags,
    data_flags: DataFlags,
    test: TestFlags,
    logger: RunLogger,
) -> bool:
    """Test a network, or try it only, as the flags say; False if a signal stopped it.

    Those of `entries` that have `results` are left out; `model_flags` are the network's.

    Raises:
        DataError: if the results that are there are of other images, or images have labels that
            the networks do not know.
    """
    sizes = View.of_test(model_flags, test.seed, test.test_degradation, logger.info)
    check_labels(entries, model_flags.num_labels)
    results.class_cond, results.seen = model_flags.class_cond, sizes.record()
    results.image_channels, results.hidden = sizes.image_channels, sizes.hidden
    require_known_classes(results.model_paths, entries, data_flags)
    batches = batches_to_do(results, entries, test.batch_size, data_flags, sizes, logger.info)
    loop = make_loop(
        data=regression_test_data(batches, data_flags, sizes, has_labels=results.class_cond),
        results=results,
        logger=logger,
        num_items=sum(map(len, batches)),
    )
    if test.dry_run:
        loop.dry_run()
        return True
    if test.debug_mode:
        report_cost(loop.model, loop.device, logger.info)
    is_done = loop.run_loop()
    loop.stopwatch.save(results.seconds_path)
    return is_done
