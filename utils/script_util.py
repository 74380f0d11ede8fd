"""Command-line flags made from dataclasses: one field, one flag, one help text, one default.

Imports neither torch nor numpy, so that `--help` answers at once. What a flag means belongs to
the module that declares its dataclass.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias, TypeVar

from utils.files.storage import with_home

T = TypeVar("T")
# name of a flag → its value, the keywords that a network, a process or a loop is made of
FlagValues: TypeAlias = dict[str, Any]

# what is meant: the first of the flags that the script has → what others call it
_FLAGS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        # training
        ("max_step",): """iterations iters num_iterations num_iters n_iter n_iters niter max_iter
            max_iters max_iterations total_iterations train_iters training_iterations total_steps
            max_steps train_steps training_steps total_training_steps num_train_steps
            max_train_steps train_num_steps num_training_steps epochs num_epochs n_epochs
            max_epochs nb_epochs num_train_epochs total_epochs""",
        ("max_step", "timestep_respacing"): "steps num_steps n_steps",
        ("lr_anneal_steps",): "anneal_lr lr_anneal anneal_steps lr_decay lr_decay_steps",
        ("lr_schedule",): "lr_func lr_scheduler scheduler lr_policy",
        ("lr_warmup_steps",): "warmup warmup_steps num_warmup_steps lr_warmup warmup_iters",
        ("lr",): "learning_rate base_lr lrate",
        ("weight_decay",): "wd",
        ("optimizer",): "optim optimizer opt",
        ("ema_rate",): "ema ema_decay use_ema ema_rates ema_beta",
        ("batch_size",): """batch bs batch_sz train_batch_size eval_batch_size batch_gpu
            sample_batch_size batch_size_per_gpu per_device_train_batch_size""",
        ("microbatch",): """micro_batch microbatch_size micro_batch_size grad_accum
            gradient_accumulation_steps accumulate_grad_batches gradient_accumulate_every""",
        ("save_interval",): """save_every save_freq save_steps save_step checkpointing_steps
            ckpt_interval ckpt_every checkpoint_interval checkpoint_every save_and_sample_every
            save_model_interval save_model_interval_epochs save_model_epochs save_model_steps""",
        ("keep_last_k",): "checkpoints_total_limit save_total_limit keep_last max_to_keep",
        ("log_interval",): "log_every log_freq log_steps logging_steps print_freq print_every",
        ("sample_interval",): "sample_every sample_freq save_images_epochs vis_freq",
        ("num_grid_samples",): "num_vis",
        ("val_data_info_dict_path",): "val_data_dir val_dir val_data val_path valid_dir",
        ("val_share",): "val_split validation_split val_ratio val_fraction",
        ("val_interval",): """eval_interval eval_every eval_steps eval_freq validation_steps
            validation_interval val_every val_freq val_steps val_check_interval""",
        ("run_time",): "time_limit max_time max_hours",
        ("resume_checkpoint",): """resume resume_from resume_path resume_from_checkpoint
            start_epoch continue_train load_checkpoint""",
        ("init_from", "resume_checkpoint"): "pretrain pretrained pretrain_path pretrained_path",
        ("model_path", "resume_checkpoint"): """weight_path weights_path weights ckpt ckpt_path
            checkpoint checkpoint_path model model_file load_path network_pkl model_checkpoint
            model_path_checkpoints
            pretrained_model_name_or_path""",
        ("use_fp16", "classifier_use_fp16"): "fp16 half amp use_amp use_half mixed_precision",
        ("use_bf16",): "bf16",
        ("use_checkpoint",): "gradient_checkpointing grad_checkpoint checkpointing",
        ("num_workers", "num_threads", "num_processes"): """workers num_workers num_worker
            n_workers dataloader_num_workers num_threads n_threads threads""",
        # folders
        ("model_save_dir", "output_dir", "log_dir"): """save_dir savedir save_path ckpt_dir
            checkpoint_dir checkpoints_dir model_dir""",
        ("output_dir", "model_save_dir", "log_dir"): """result_path results_path result_dir
            results_dir outdir out_dir outf output output_path sample_dir samples_dir""",
        ("log_dir",): "logdir log_path logging_dir tensorboard_dir run_name exp_name",
        ("data_dir", "archive"): """dataset_path dataset_dir dataset data data_path dataroot
            data_root datadir train_dir train_data_dir image_dir images_dir img_dir base_samples""",
        ("data_info_dict_path", "to_sample_images_dict_path"): """data_info_dict_path
            to_sample_images_dict_path data_info data_info_path""",
        # images
        ("image_size", "large_size"): """image_size large_size resolution img_size size
            image_resolution img_resolution sample_size crop_size input_size hr_size
            r_resolution""",
        ("small_size",): "lr_size low_res_size l_resolution",
        ("random_flip",): "flip hflip horizontal_flip mirror xflip",
        ("random_turn",): "rotate rotation random_rotate random_rotation random_rot rot90 use_rot",
        ("random_crop",): "center_crop",
        ("seed",): "random_seed manual_seed",
        # networks
        ("num_channels", "model_channels", "classifier_width"): """num_channels model_channels
            base_channels base_width width dim ch nf inner_channel unet_dim""",
        ("channel_mult", "classifier_channel_mult"): """channel_mult channel_mults ch_mult
            channel_multiplier channel_multipliers dim_mults""",
        ("num_res_blocks", "classifier_depth"): """num_res_blocks res_blocks n_res_blocks
            num_resblocks layers_per_block depth""",
        ("attention_resolutions", "classifier_attention_resolutions"): """attention_resolutions
            attention_resolution attn_resolutions attn_res attn""",
        ("num_heads",): "heads n_heads attn_heads num_attention_heads",
        ("num_head_channels", "classifier_num_head_channels"): """num_head_channels head_dim
            attention_head_dim""",
        ("dropout",): "drop dropout_rate drop_rate dropout_prob",
        ("class_cond",): "conditional class_conditional conditioned cond use_labels",
        ("num_classes",): "n_classes n_class nclass label_dim num_class",
        ("class_dropout",): """p_uncond uncond_prob cond_drop_prob label_dropout cfg_dropout
            class_dropout_prob""",
        # process and sampling
        ("diffusion_steps",): """timesteps num_timesteps n_timesteps time_steps noise_steps
            num_diffusion_steps diffusion_timesteps num_diffusion_timesteps ddpm_num_steps""",
        ("noise_schedule",): "schedule schedule_name beta_schedule ddpm_beta_schedule",
        ("learn_sigma",): "learned_sigma learn_variance learn_var",
        ("predict_xstart",): "predict_x0 predict_x_start prediction_type pred_type predict_epsilon",
        ("timestep_respacing",): """sampling_steps sample_steps sampling_timesteps ddim_steps
            num_inference_steps ddpm_num_inference_steps inference_steps num_sampling_steps nfe""",
        ("sampler",): "sample use_ddim sampling_method sample_method solver sampler_name",
        ("num_samples", "num_samples_per_image", "num_images"): """num_samples n_samples nsamples
            num_sample num_images num_fid_samples total_samples number""",
        ("labels",): "class_name class_id class_idx class_label class_labels classes label",
        ("guidance_scale",): "cfg cfg_scale cond_scale unconditional_guidance_scale guidance",
        ("classifier_scale",): "classifier_guidance_scale",
        ("alpha", "alphas"): "noise_rate noise_ratio noise_level",
        ("debug_mode",): "debug verbose",
        ("dry_run",): "dryrun",
    }
)
# what has no flag here, or another unit
_REMARKS: Mapping[str, str] = MappingProxyType(
    {
        "trainings count steps, not epochs": """epochs num_epochs n_epochs max_epochs nb_epochs
            num_train_epochs total_epochs start_epoch save_model_interval_epochs save_model_epochs
            save_images_epochs""",
        "the number of steps over which it falls": "anneal_lr lr_anneal",
        "the share of right labels": "noise_rate noise_ratio noise_level",
        "the size of a part of the batch, not their number": """grad_accum
            gradient_accumulation_steps accumulate_grad_batches gradient_accumulate_every""",
        "CUDA_VISIBLE_DEVICES chooses the GPU": """gpu gpus gpu_id gpu_ids device devices use_gpu
            main_gpu cuda no_cuda""",
        "start several processes with torchrun or mpiexec": """distributed world_size num_gpus
            n_gpus ngpu nproc nproc_per_node ddp multi_gpu""",
    }
)


def _by_word(table: Mapping[T, str]) -> Mapping[str, T]:
    return {word: meaning for meaning, words in table.items() for word in words.split()}


_FLAGS_OF_WORD = _by_word(_FLAGS)
_REMARK_OF_WORD = _by_word(_REMARKS)


def explain_foreign_flag(name: str, known: Collection[str]) -> str | None:
    """What another tool's flag is here, as in `here --max_step`; None for a word of no tool.

    Empty for a word of the table where the script has nothing like it.

    The name and the known flags of the script have their dashes in front.
    """
    word = name.lstrip("-").replace("-", "_").lower()
    flags, remark = _FLAGS_OF_WORD.get(word, ()), _REMARK_OF_WORD.get(word, "")
    there = next((f"--{flag}" for flag in flags if f"--{flag}" in known), None)
    if f"--{word}" in known:
        return None
    if there is not None:
        return f"here {there}" + (f": {remark}" if remark else "")
    if word.startswith("no_") and f"--{word[3:]}" in known:
        return f"here --{word[3:]} False"
    return "" if flags else remark or None


# what parsing and settling add to the flags: not for args.json
PRIVATE = ("local_rank", "given_flags", "notices")
_NOT_GIVEN = object()
# how alike a flag must be to one that is suggested: as model_path_checkpoints to model_path
_NEAR = 0.65
# what the word auto of a size stands for
AUTO = -1
# how the names of flags end that hold a path; others are marked with is_path
_PATH_ENDS = ("_dir", "_path", "_file", "_checkpoint")
# numbers of 64 bits: larger ones end in tracebacks of torch and numpy
_MOST = 1 << 63
_NEGATIVE_LIST = re.compile(r"-[\d.][^=]*,.*")


def str2bool(text: str | bool) -> bool:
    """Parse `True/False/yes/no/y/n/t/f/1/0` in any case."""
    if isinstance(text, bool):
        return text
    word = text.strip().lower()
    if word in ("true", "yes", "t", "y", "1"):
        return True
    if word in ("false", "no", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not a boolean; write True or False")


def whole_number(text: str) -> int:
    """Parse `100000` and `1e5` alike; a whole number of 64 bits."""
    try:
        number = float(text) if not text.strip().lstrip("+-").isdecimal() else int(text)
        if number == int(number) and abs(number) < _MOST:
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def size_or_auto(text: str) -> int:
    """Parse a positive whole number, or the word `auto`, which is `AUTO`."""
    if text.strip().lower() == "auto":
        return AUTO
    try:
        number = whole_number(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor the word auto") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1, or the word auto")
    return number


def path_or_word(text: str) -> str:
    """Parse a path, see `with_home`, or a word that stands in its place."""
    try:
        return with_home(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def flag(
    default: Any,
    help: str,
    choices: Sequence[str] | None = None,
    *,
    is_auto: bool = False,
    is_free: bool = False,
    is_path: bool = False,
    is_retired: bool = False,
) -> Any:
    """A dataclass field that becomes a flag. `help` says what it is and its unit.

    Args:
        default: its type is the flag's.
        is_auto: a size that may be left to the script (`AUTO`).
        is_free: a flag of a network or process that a later run may change: what the trained
            network computes does not depend on it (`utils.files.records`).
        is_path: a path, as every flag is that ends in `_dir`, `_path`, `_file` or
            `_checkpoint`.
        is_retired: it does nothing any more, and the script says so where it is given.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "is_auto": is_auto,
        "is_free": is_free,
        "is_path": is_path,
        "is_retired": is_retired,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flags_of(flags_class: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """The flags of a dataclass: its own, then those of the dataclasses that it stands on.

    A plain field, as in `log_dir: str = "logs/x"`, gives a flag of these another default; if none
    of them has such a flag it is a ValueError.
    """
    flags: dict[str, dataclasses.Field[Any]] = {}
    for base in flags_class.__mro__:
        for name in inspect.get_annotations(base):
            declared = getattr(base, "__dataclass_fields__", {}).get(name)
            if declared is not None and declared.metadata:
                flags.setdefault(name, declared)
    for field in dataclasses.fields(flags_class):
        if field.name not in flags:
            raise ValueError(f"{flags_class.__name__}.{field.name} is no flag: make it with flag()")
        if field.default != flags[field.name].default:
            flags[field.name] = copy.copy(flags[field.name])
            flags[field.name].default = field.default
    return tuple(flags.values())


def free_flags(*classes: type[Any]) -> frozenset[str]:
    """Names of the flags of dataclasses that were declared with `is_free`."""
    return frozenset(
        one.name for flags in classes for one in flags_of(flags) if one.metadata["is_free"]
    )


_KINDS: Mapping[type, Callable[[str], Any]] = MappingProxyType({bool: str2bool, int: whole_number})
_METAVARS = MappingProxyType({bool: "BOOL", int: "INT", float: "FLOAT", str: "STR"})


class FlagParser(argparse.ArgumentParser):
    """An `ArgumentParser` that names the nearest known flag when it meets an unknown one."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.retired: dict[str, str] = {}  # flag → what its help says
        # torch.distributed.launch passes it in one of two spellings; the environment decides
        self.add_argument(
            "--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS
        )
        self._declared: dict[str, tuple[str, dataclasses.Field[Any]]] = {}

    def add_flags(self, title: str, flags_class: type[Any]) -> None:
        """Add a group of flags; one that another group has too stays in that group.

        A flag is declared once: if the two declare it differently it is a ValueError.
        """
        group = self.add_argument_group(title)
        for field in flags_of(flags_class):
            if field.name in self._declared:
                there, other = self._declared[field.name]
                if (other.default, other.metadata) != (field.default, field.metadata):
                    raise ValueError(
                        f"--{field.name} is declared twice, differently, in the groups {there} and "
                        f"{title}: declare it in one dataclass that both stand on"
                    )
                continue
            self._declared[field.name] = title, field
            if field.metadata["is_retired"]:
                self.retired[field.name] = field.metadata["help"]
            choices, (kind, metavar) = field.metadata["choices"], _kind_of(field)
            shown = '""' if field.default == "" else field.default
            group.add_argument(
                f"--{field.name}",
                type=kind,
                default=field.default,
                choices=choices,
                metavar=None if choices else metavar,
                help=f"{field.metadata['help']} (default: {shown})".replace("%", "%%"),
            )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses; an unknown flag ends the program with exit code 2 and a suggestion."""
        known = {a.dest: a.default for a in self._actions if a.default is not argparse.SUPPRESS}
        marked = argparse.Namespace(**dict.fromkeys(known, _NOT_GIVEN))
        parsed, unknown = self.parse_known_args(_joined(args), marked)
        if unknown:
            self._refuse(unknown)
        given = {name for name in known if getattr(parsed, name) is not _NOT_GIVEN}
        values = {name: getattr(parsed, name) if name in given else known[name] for name in known}
        if told := sorted(self.retired.keys() & given):
            values["notices"] = tuple(f"notice: --{name} {self.retired[name]}" for name in told)
        return argparse.Namespace(**values, given_flags=frozenset(given))

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        parts = []
        for word in unknown:
            if not word.startswith("-"):
                continue
            name = word.split("=")[0]
            hint = explain_foreign_flag(name, known)
            near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
            if hint is None and near:
                hint = f"did you mean {near[0]}?"
            parts.append(f"unknown flag {name}" + (f" ({hint})" if hint else ""))
        self.error("; ".join(parts) or f"unexpected words: {' '.join(unknown)}")


def _joined(words: Sequence[str] | None) -> list[str]:
    """The words with `--range -1,1` as `--range=-1,1`: argparse takes `-1,1` for a flag."""
    found: list[str] = []
    for word in sys.argv[1:] if words is None else words:
        if found and found[-1].startswith("--") and _NEGATIVE_LIST.fullmatch(word):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def with_values(args: argparse.Namespace, **values: Any) -> argparse.Namespace:
    """Return a copy of parsed flags in which some have these values."""
    return argparse.Namespace(**{**vars(args), **values})


def _kind_of(field: dataclasses.Field[Any]) -> tuple[Callable[[str], Any], str]:
    """What parses the words of a flag, and what stands for them in the help."""
    kind, metavar = type(field.default), _METAVARS[type(field.default)]
    if field.metadata["is_auto"]:
        return size_or_auto, f"{metavar}|auto"
    is_text = kind is str  # use_checkpoint is no path
    if is_text and (field.metadata["is_path"] or field.name.endswith(_PATH_ENDS)):
        return path_or_word, metavar
    return _KINDS.get(kind, kind), metavar


def make_parser(description: str | None, **groups: type[Any]) -> FlagParser:
    """A parser with one group of flags per dataclass; the keyword is the group's title."""
    parser = FlagParser(description)
    for title, flags_class in groups.items():
        parser.add_flags(title.replace("_", " "), flags_class)
    return parser


def from_args(flags_class: type[T], args: argparse.Namespace) -> T:
    """The dataclass filled from parsed arguments.

    Raises:
        SystemExit: exit code 2 with the message of a `ValueError` that the dataclass raises, or
            for the empty name of a folder (`…_dir`) that has another default.
    """
    fields = dataclasses.fields(flags_class)  # type: ignore[arg-type]
    try:
        for field in fields:
            if field.name.endswith("_dir") and field.default and not getattr(args, field.name):
                raise ValueError(
                    f"--{field.name} is empty; name a folder, or leave the flag out for "
                    f"{field.default}"
                )
        return flags_class(**{field.name: getattr(args, field.name) for field in fields})
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def defaults(flags_class: type[Any]) -> FlagValues:
    """Flag name → default value."""
    return {field.name: field.default for field in dataclasses.fields(flags_class)}


def require_at_least(flags: object, other: int | None = None, /, **smallest: int) -> None:
    """Refuse values that no run could use.

    `other` is a value that has a meaning of its own, as -1 for all or `AUTO`; `smallest` are the
    smallest values by flag. A ValueError names flag, value and bound.
    """
    for name, bound in smallest.items():
        value = getattr(flags, name)
        if value != other and not value >= bound:  # nan is no number of anything
            either = "" if other is None else f"{other} or "
            raise ValueError(f"--{name} {value} must be {either}at least {bound}")
