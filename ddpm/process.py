"""From flags to noising processes, what samples of one depend on, and what a sampler loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ddpm.flags import DiffusionFlags, SamplerFlags
from utils.files.atomic import JsonObject
from utils.files.records import Identity
from utils.loops.portable import weights_digest
from utils.metrics import HALF_RANGE_255
from utils.script_util import defaults, free_flags, require_at_least

if TYPE_CHECKING:
    from diffusion.process import GaussianDiffusion
    from diffusion.timesteps import ScheduleSampler

Flags = TypeVar("Flags", bound=DiffusionFlags)
# A std that many pixels of a super-resolved image have, and the share of it that should be left.
WATCHED_STD_255, MIN_STD_SHARE = 5.0, 0.95


def create_diffusion(flags: DiffusionFlags) -> GaussianDiffusion:
    """The (respaced) noising process of the flags."""
    from diffusion.process import GaussianDiffusion
    from diffusion.schedules import get_named_beta_schedule
    from diffusion.spacing import space_timesteps
    from diffusion.types import LossType, ModelMeanType, ModelVarType, PredictionLoss

    if flags.use_kl and flags.loss_type != PredictionLoss.MSE.value:
        raise ValueError(
            f"--loss_type {flags.loss_type} is of the prediction, --use_kl True trains on the "
            "bound instead; leave one of them out"
        )
    if flags.use_kl:
        loss_type = LossType.RESCALED_KL
    elif flags.rescale_learned_sigmas:
        loss_type = LossType.RESCALED_MSE
    else:
        loss_type = LossType.MSE
    fixed = ModelVarType.FIXED_SMALL if flags.sigma_small else ModelVarType.FIXED_LARGE
    require_at_least(flags, diffusion_steps=1)
    steps = flags.diffusion_steps
    betas = get_named_beta_schedule(flags.noise_schedule, steps)
    spacing = flags.timestep_respacing or [steps]
    try:
        kept = space_timesteps(steps, spacing, betas)
    except ValueError as error:
        raise ValueError(f"--timestep_respacing {flags.timestep_respacing}: {error}") from None
    return GaussianDiffusion(
        betas=betas,
        use_timesteps=kept,
        model_mean_type=ModelMeanType.START_X if flags.predict_xstart else ModelMeanType.EPSILON,
        model_var_type=ModelVarType.LEARNED_RANGE if flags.learn_sigma else fixed,
        loss_type=loss_type,
        prediction_loss=PredictionLoss(flags.loss_type),
        rescale_timesteps=flags.rescale_timesteps,
    )


def training_process(flags: Flags, log: Callable[[str], None]) -> Flags:
    """The flags of the whole process, which training uses; says so where fewer steps were asked."""
    if not flags.timestep_respacing:
        return flags
    log("notice: --timestep_respacing is for sampling; training uses all steps")
    return replace(flags, timestep_respacing="")


def create_schedule_sampler(name: str, diffusion: GaussianDiffusion) -> ScheduleSampler:
    """How training draws its timesteps: `uniform` or `loss-second-moment`."""
    from diffusion.timesteps import create_named_schedule_sampler

    return create_named_schedule_sampler(name, diffusion.num_timesteps)


# flags that matter in training alone
TRAINING_ONLY = frozenset(
    {"use_checkpoint", "dropout", "use_kl", "loss_type", "rescale_learned_sigmas"}
)


def denoiser_identity(
    network_class: str, network: Any, process: DiffusionFlags, *, is_training: bool
) -> Identity:
    """What the checkpoints of a denoiser are; `network` is a dataclass of its flags.

    With `is_training` what matters in training alone must agree, too.
    """
    flags = dict(vars(network))
    if not flags["class_cond"]:
        del flags["num_classes"]  # of a guide, or of nothing
    free = free_flags(type(network), type(process))
    return Identity(
        network_class, flags, vars(process), free=free if is_training else free | TRAINING_ONLY
    )


def model_settings(model_path: str, network: Any, process: DiffusionFlags) -> JsonObject:
    """What a network's output depends on: its weights, and flags that change what they compute.

    `network` is a dataclass of its flags; heads, for one, show in no weight.
    """
    flags = {**vars(network), **vars(process)}
    kept = {name: value for name, value in flags.items() if name not in TRAINING_ONLY}
    return {"model_sha256": weights_digest(model_path), **kept}


def setting_defaults(*flags: type[Any]) -> JsonObject:
    """What a record of settings was made with that lacks one of the flags of these classes."""
    found = {name: value for one in flags for name, value in defaults(one).items()}
    return {**found, "sampler": SamplerFlags().chosen_sampler}


def warn_of_lost_std(diffusion: GaussianDiffusion, log: Callable[[str], None]) -> None:
    """Warn when the last step alone loses more than 5 % of a std of 5 grey levels.

    Every sampler ends with a jump from the noise at the first timestep to the predicted image
    (`diffusion.samplers.std_share_of_last_jump`).
    """
    from diffusion.samplers import last_noise_level, std_share_of_last_jump

    alpha_bar = float(diffusion.coefficients.alphas_cumprod[0])
    share = std_share_of_last_jump(WATCHED_STD_255 / HALF_RANGE_255, alpha_bar)
    if share >= MIN_STD_SHARE:
        return
    noise_255 = last_noise_level(alpha_bar) * HALF_RANGE_255
    first = int(diffusion.timestep_map[0])
    remedy = (
        f"the respacing starts at timestep {first}: give a --timestep_respacing that keeps "
        "timestep 0, such as logsnr25"
        if first
        else "that is the first noise level of the whole chain: train with more --diffusion_steps"
    )
    log(
        f"warning: the last step of any sampler, from noise of {noise_255:.2f} grey levels to the "
        f"image, keeps {share:.3f} of a std of {WATCHED_STD_255:g} grey levels and so loses "
        f"{1 - share:.1%} of it; {remedy} (docs/samplers.md)"
    )
