"""The records beside results: whether these belong together, what they cost, whose budget it is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

from ddpm.sampling import SECONDS_FILE, SETTINGS_FILE
from diffusion.schedules import get_named_beta_schedule
from diffusion.spacing import space_timesteps
from sr_var.base_dataset import load_entries
from sr_var.flags.verify import NetResultFlags, VerificationFlags
from sr_var.results.folder import CLASS_KEY, read_stamp, seconds_path, short, stamp_path
from sr_var.values import GREY_LEVELS, Units
from utils.files.records import find_record, is_number
from utils.flags.groups import Reading
from utils.machine.cost import seconds_per_item
from utils.process.errors import DataError

BUDGET_FILE = "budget.json"
ARGS_FILE = "args.json"
Stamp = tuple[str, list[str]]


class Origins(TypedDict):
    """What metrics of nets' results are about; None for results without a stamp."""

    mean_models: list[str] | None
    var_models: list[str] | None
    images: dict[str, object]


class GivenClass(TypedDict):
    """Whether moments are given the class of the image beside X; None where it is not known."""

    nets: bool
    samples: bool | None


class RouteCost(TypedDict):
    """What an image takes by one route; None for what is not known."""

    evaluations_per_image: int | None
    seconds_per_image: float | None


class SamplesCost(RouteCost):
    """Also the steps of a sample."""

    steps: int | None


class _CostOfNets(TypedDict):
    nets: RouteCost


class Cost(_CostOfNets, total=False):
    """Section `cost` of `results.json`; what samples cost is left out where there are none."""

    samples: SamplesCost


ErrorInBudget: TypeAlias = Literal["relative_mse", "relative_var_error", "var_bias"]
BUDGET_ERRORS: tuple[ErrorInBudget, ...] = get_args(ErrorInBudget)


class BudgetRow(TypedDict, total=False):
    """A row of `budget.json`; None where a row has no such error, or an error no interval."""

    row: str
    relative_mse: float | None
    relative_var_error: float | None
    var_bias: float | None
    intervals: Mapping[ErrorInBudget, list[float] | None]  # 95 %; not in older files


def require_one_origin(flags: NetResultFlags, log: Callable[[str], None]) -> None:
    """Refuse a mean that the variance beside it was not made on.

    A variance net sees a mean and is trained on its residuals, and a baseline gives both, so each
    variance goes with one mean. The exception is a variance on the average of the nets of all
    folds, of which `log` receives a notice: the mean is then that of one net of all images
    (docs/theory.md, section 4). The average of several mean nets beside a variance on one of them
    is told likewise. Results without a stamp, as other tools leave them, are taken as they are.
    """
    mean = _stamp(flags.nets_dir, "mean", flags.mean_model_step)
    variance = _stamp(flags.nets_dir, "var", flags.var_model_step)
    if mean is None or variance is None:
        return
    (mean_path, (mean_digest, *others)), (variance_path, models) = mean, variance
    # a variance net's stamp begins with its own file; a baseline's file is all there is
    made_on = models[1:] or models
    if mean_digest in made_on:
        if not {*others} <= {*made_on}:
            log(
                f"notice: the means are the average of {1 + len(others)} nets, the variances were "
                f"made on another mean, of {short(made_on)}"
            )
        return
    if len(made_on) > 1:
        log(
            f"notice: the variances are on the average of the mean nets of {len(made_on)} folds "
            f"({short(made_on)}), the means are of another net ({short([mean_digest])})"
        )
        return
    raise DataError(
        f"{mean_path}: these means are of the checkpoint {short([mean_digest])}, but "
        f"{variance_path}: these variances were made on {short(made_on)}; run sr_var_test.py again "
        "with the --mean_model_path of these means, or give the --sr_model_output_dir, "
        "--mean_model_step and --var_model_step of results that belong together"
    )


def origins(flags: NetResultFlags) -> Origins:
    """What metrics of nets' results are about: their checkpoints and the list of images."""
    mean = _stamp(flags.nets_dir, "mean", flags.mean_model_step)
    variance = _stamp(flags.nets_dir, "var", flags.var_model_step)
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    return {
        "mean_models": mean and mean[1],
        "var_models": variance and variance[1],
        "images": entries.digest(),
    }


def models_section(flags: VerificationFlags) -> dict[str, dict[str, list[str]]]:
    """`models`: sha256 of the checkpoints of mean, variance and samples; empty without a record.

    Behind that of the variance net are those of the mean nets that it was made on.
    """
    steps = {"mean": flags.mean_model_step, "var": flags.var_model_step}
    of_nets = {kind: _stamp(flags.nets_dir, kind, step) for kind, step in steps.items()}
    mean, variance = (stamp[1] if stamp else [] for stamp in of_nets.values())
    found = {"mean": mean, "variance": variance}
    if flags.num_samples:
        path = os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE)
        found["samples"] = (find_record(path, _sampler_of) or [])[:1]
    known = {role: digests for role, digests in found.items() if digests}
    return {"models": known} if known else {}


def num_mean_nets(flags: NetResultFlags) -> int:
    """How many mean nets the means are the average of; 0 where no test of this project says it."""
    found = _stamp(flags.nets_dir, "mean", flags.mean_model_step)
    return 0 if found is None else len(found[1])


def provenance(flags: VerificationFlags) -> list[tuple[str, list[str]]]:
    """What results, samples and images are recorded to come from: labels, and a text or some each.

    Nothing is computed but the digest of the list of images.
    """
    known, samples = origins(flags), None
    if flags.num_samples:
        path = os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE)
        samples = find_record(path, _sampler_of)
    variance, *made_on = known["var_models"] or [""]
    unknown = ["no record"]
    found = [
        ("mean net", known["mean_models"] or unknown),
        ("variance net", [variance] if variance else unknown),
        ("mean nets that it was made on", made_on if made_on != known["mean_models"] else []),
        ("samples", (samples or unknown) if flags.num_samples else []),
        ("folder of the images", [flags.data_dir]),
        ("list of the images", [flags.data_info_dict_path, str(known["images"]["digest"])]),
        ("results", [f"{flags.nets_dir}, steps {flags.mean_model_step}, {flags.var_model_step}"]),
        ("samples in", [flags.ddpm_sr_output_dir] if flags.num_samples else []),
        ("calibration", [flags.calibration] if flags.calibration else []),
    ]
    return [(label, texts) for label, texts in found if texts]


def _sampler_of(settings: dict[str, Any]) -> list[str]:
    """The checkpoint of a sampler, and how it draws."""
    steps = settings.get("timestep_respacing") or settings.get("diffusion_steps")
    drawn = f"{settings.get('sampler')}, {steps} steps, seed {settings.get('seed')}"
    return [str(settings["model_sha256"]), drawn]


def command_of(log_dir: str) -> list[tuple[str, list[str]]]:
    """The command that writes into a folder, and when it began, by its `args.json`; or nothing."""
    return find_record(os.path.join(log_dir, ARGS_FILE), _command) or []


def _command(args: dict[str, Any]) -> list[tuple[str, list[str]]]:
    versions = ", ".join(f"{name} {version}" for name, version in args["versions"].items())
    words = [str(word) for word in args["command"][1:]]
    return [
        ("command", [shlex.join(["python", *words])]),
        ("date", [str(args["started"])]),
        ("software", [f"revision {args['git_revision']}", versions]),
    ]


def has_own_means(flags: NetResultFlags) -> bool:
    """Whether a test of this project wrote the means."""
    folder, step = flags.nets_dir, flags.mean_model_step
    return any(os.path.exists(stamp_path(folder, kind, step)) for kind in ("mean", "baseline"))


def _stamp(folder: str, kind: str, step: int) -> Stamp | None:
    """(path, digests) of the stamp of results; None if there is none."""
    for one in (kind, "baseline"):
        path = stamp_path(folder, one, step)
        models = read_stamp(path, "delete it and run the test that wrote it again").models
        if models:
            return path, models
    return None


def require_same_reading(flags: NetResultFlags) -> None:
    """Refuse results and samples of images that were read another way than these are."""
    mean_step, var_step = flags.mean_model_step, flags.var_model_step
    kinds = (("mean", mean_step), ("var", var_step), ("baseline", mean_step))
    records = [stamp_path(flags.nets_dir, kind, step) for kind, step in kinds]
    if isinstance(flags, VerificationFlags) and flags.num_samples:
        records.append(os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE))
    for path in records:
        record = find_record(path, dict)  # whether it is whole does not matter here
        if record is None or not {"models", "model_sha256"} & record.keys():
            continue  # no network's
        made, asked = Reading.parse(record), Reading.of(flags)
        if made != asked:
            raise DataError(
                f"{path}: what lies there was made with {made}, here it is {asked}; give the same "
                "here, or name other folders"
            )


def given_class(flags: VerificationFlags, log: Callable[[str], None]) -> GivenClass:
    """Whether the nets' results and the samples, if any, are given the class of the image, too.

    `log` receives a notice where one of them is and the other is not: what is compared then are
    moments of Y | X and of Y | X, class, which differ by the gap between the classes
    (docs/theory.md, eq. 69).
    """
    paths = [
        stamp_path(flags.nets_dir, kind, flags.mean_model_step) for kind in ("mean", "baseline")
    ]
    nets = any(read_stamp(path, "delete it").class_cond for path in paths)
    samples = None
    if flags.num_samples:
        record = find_record(os.path.join(flags.ddpm_sr_output_dir, SETTINGS_FILE), dict) or {}
        samples = bool(record[CLASS_KEY]) if CLASS_KEY in record else None
    if samples is not None and samples != nets:
        of, given = ("nets", "samples") if samples else ("samples", "nets")
        log(
            f"notice: the {given} know the class of the image and the {of} do not: compared are "
            f"moments of Y given X and the class ({given}) and of Y given X alone ({of}), whose "
            "variances differ by the gap between the classes (docs/theory.md, eq. 69)"
        )
    return {"nets": nets, "samples": samples}


def classes_given(sample_dir: str) -> int:
    """Labels of the oracle's class law that exact samples are given; 0 of those given X alone."""
    record = find_record(os.path.join(sample_dir, SETTINGS_FILE), dict) or {}
    found = record.get("num_classes") if record.get(CLASS_KEY) is True else 0
    return found if type(found) is int else 0


def units_of(flags: NetResultFlags) -> Units:
    """The unit of the results: what the tests kept beside them; else what the flags say.

    Raises:
        DataError: mean and variance are in two units, or the flags say another one.
    """
    kinds = (("mean", flags.mean_model_step), ("var", flags.var_model_step))
    paths = [stamp_path(flags.nets_dir, kind, step) for kind, step in kinds]
    paths += [stamp_path(flags.nets_dir, "baseline", step) for _, step in kinds]
    found = {}
    for path in filter(os.path.exists, paths):
        stamp = read_stamp(path, "delete it and run the test that wrote it again")
        found[Units.of_record(stamp.values, path)] = path
    asked = Units.of(flags)
    if not found:
        return asked
    if len(found) > 1:
        raise DataError(
            f"{' and '.join(found.values())} are of images with other channels or ranges; give the "
            "--mean_model_step and --var_model_step of results that belong together"
        )
    ((units, path),) = found.items()
    # flags that were left out are those of grey levels
    if asked not in (units, GREY_LEVELS):
        raise DataError(
            f"{path} is of images of {units.num_channels} channels from {units.low:g} to "
            f"{units.high:g}; leave --in_channels and --value_range out"
        )
    return units


def cost(flags: VerificationFlags) -> Cost:
    """Section `cost` of `results.json`.

    Nets: one evaluation of each net that the variance test runs, as its stamp lists them (two
    without one): the variance net, and the mean net or those of all folds; of a baseline one. The
    seconds are those of that test. Samples, if any: times samples, times steps.
    """
    of = flags.nets_dir, flags.var_model_step
    is_baseline = os.path.exists(stamp_path(of[0], "baseline", of[1]))
    seconds = seconds_path(of[0], "baseline" if is_baseline else "var", of[1])
    stamp = None if is_baseline else _stamp(flags.nets_dir, "var", flags.var_model_step)
    found: Cost = {
        "nets": {
            "evaluations_per_image": 1 if is_baseline else len(stamp[1]) if stamp else 2,
            "seconds_per_image": seconds_per_item(seconds),
        }
    }
    if flags.num_samples:
        steps = num_steps(flags.ddpm_sr_output_dir)
        a_sample = seconds_per_item(os.path.join(flags.ddpm_sr_output_dir, SECONDS_FILE))
        found["samples"] = {
            "steps": steps,
            "evaluations_per_image": None if steps is None else flags.num_samples * steps,
            "seconds_per_image": None if a_sample is None else flags.num_samples * a_sample,
        }
    return found


def num_steps(samples_dir: str) -> int | None:
    """Steps of a sample by the settings that the sampler left; None without (readable) ones."""
    return find_record(os.path.join(samples_dir, SETTINGS_FILE), _num_steps)


def _num_steps(settings: dict[str, Any]) -> int:
    length, respacing = int(settings["diffusion_steps"]), settings["timestep_respacing"]
    betas = get_named_beta_schedule(settings["noise_schedule"], length)
    return len(space_timesteps(length, respacing or [length], betas))


def read_budget(
    log_dir: str, of: Origins | None = None, log: Callable[[str], None] = print
) -> list[BudgetRow]:
    """The rows that `oracle_budget.py` left in a folder; none if it did not run there.

    `of` is that of what the rows are to be shown with (`origins`): rows of other results are left
    out, which `log` is told. None takes them as they are.
    """
    path = os.path.join(log_dir, BUDGET_FILE)
    made_of, rows = find_record(path, _budget) or (None, [])
    if of is not None and made_of not in (None, of):
        log(
            f"notice: {path} is of other nets or images and is left out; run oracle_budget.py with "
            "the flags of this verification"
        )
        return []
    return rows


def _budget(content: dict[str, Any]) -> tuple[object, list[BudgetRow]]:
    rows = [row for row in content["budget"] if isinstance(row, dict) and _is_row(**row)]
    return content.get("of"), cast(list[BudgetRow], rows)


def _is_row(row: object = None, intervals: object = None, **errors: object) -> bool:
    return (
        isinstance(row, str)
        and all(value is None or is_number(value) for value in errors.values())
        and (intervals is None or (isinstance(intervals, dict) and _are_intervals(intervals)))
    )


def _are_intervals(intervals: dict[str, object]) -> bool:
    return all(
        value is None
        or (isinstance(value, list) and len(value) == 2 and all(map(is_number, value)))
        for value in intervals.values()
    )
