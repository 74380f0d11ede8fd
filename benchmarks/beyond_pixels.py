"""Variances of linear functionals, and components of blocks, against the oracle's exact ones.

    python benchmarks/beyond_pixels.py                 (6 minutes on a core that is free)

Every network trains for as many steps on fresh draws of the law, and all variance nets
stand on one mean net. Beside them stand 100 exact samples, and what the exact variances of the
pixels would say if pixels were independent. Writes `<name>_<date>.json`, `.md` and, of
components, `.png`.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.block_components import (  # noqa: E402
    components_row,
    format_components,
    of_net,
    of_samples,
    pictured,
)
from benchmarks.record import hardware, own_command  # noqa: E402
from benchmarks.time_to_truth import HowFlags  # noqa: E402
from benchmarks.truth_data import FACTOR, judged_images, load_photos  # noqa: E402
from benchmarks.truth_routes import (  # noqa: E402
    COMPONENTS,
    ROUTES,
    VARIANCE,
    Bench,
    Recipe,
    Trained,
    Trial,
)
from oracle.functionals import variance_of_functional  # noqa: E402
from oracle.law import BILINEAR, OracleLaw  # noqa: E402
from sr_var.degradation import mean_of, variance_of  # noqa: E402
from sr_var.flags.scripts import VarModelFlags  # noqa: E402
from sr_var.functionals import Functional, num_components  # noqa: E402
from sr_var.script_util import create_var_model  # noqa: E402
from utils.files.atomic import write_json_atomic, write_text_atomic  # noqa: E402
from utils.files.records import versions  # noqa: E402
from utils.images.pictures import write_picture  # noqa: E402
from utils.machine.threads import num_cores, tune_allocator  # noqa: E402
from utils.metrics import HALF_RANGE_255  # noqa: E402
from utils.process.errors import EXIT_DONE, run_main  # noqa: E402
from utils.script_util import FlagParser, flag, from_args, make_parser, require_at_least  # noqa: E402

NUM_SAMPLES = 100
# of a functional whose variance is 0, as rounding leaves it, there is no relative error
_SMALLEST_STD_255 = 1e-3
_SMALLEST_ERROR = 1e-9  # rounding makes less
_ROUTE = next(route for route in ROUTES if route.name == "subpixel_muon")
_TITLES = {"": "pixels", "block:4": "block:4, the low-res pixel"}
Row = dict[str, Any]


@dataclass(frozen=True)
class WhatFlags:
    """What is trained, and where the table goes."""

    name: str = flag("beyond_pixels", "of the files")
    functionals: str = flag(
        "block:2 block:4+2,2 filter:-1,1 block:4 pc:2",
        "values of --functional, separated by spaces; the pixels come first anyway",
    )
    steps: int = flag(1000, "of training, each network")
    seed: int = flag(0, "of weights and data")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the files")

    def __post_init__(self) -> None:
        """Refuse what are no functionals, or no steps."""
        require_at_least(self, steps=1)
        for text in self.texts:
            _ = num_components(text) or Functional.parse(text)

    @property
    def texts(self) -> list[str]:
        """Every functional once, the pixels first."""
        return list(dict.fromkeys(["", *self.functionals.split()]))


@dataclass(frozen=True)
class RecipeFlags(HowFlags):
    """How networks are trained and judged; smaller ones than there, since there are more."""

    width: int = 32
    num_res_blocks: int = 2
    components_lr: float = flag(1e-2, "learning rate of the net of components, with Muon")

    @property
    def recipes(self) -> dict[str, Recipe]:
        """As there, with the components' learning rate."""
        return {
            network: replace(recipe, muon_lrs={**recipe.muon_lrs, COMPONENTS: self.components_lr})
            for network, recipe in super().recipes.items()
        }


class FunctionalBench(Bench):
    """A mean net, and variance nets of functionals on it."""

    def means_of(self, trial: Trial) -> tuple[Trained, Tensor]:
        """The mean net, and its means of the test images, (N, 3, H, W)."""
        mean = self._mean(trial)
        with torch.inference_mode():
            return mean, mean_of(mean.model, self._images, [FACTOR * self.size] * 2)

    def output_of(
        self, trial: Trial, text: str, mean: Trained, means: Tensor
    ) -> tuple[Trained, Tensor]:
        """A network for a `--functional`, and its output for the test images."""
        net, last_layer, own = VARIANCE, trial.route.last_layer_type, {"mean_model": mean.model}
        if num_components(text):
            net, last_layer = COMPONENTS, "none"
        else:
            own |= {"loss": trial.route.loss, "functional": Functional.parse(text)}
        flags = self._model_flags(
            trial,
            VarModelFlags,
            predict_residual=False,
            last_layer_type=last_layer,
            functional=text,
        )
        make = self._loops(trial, net, create_var_model, flags, **own)
        trained = self._train(trial, make, (1 - self.mean_share) * trial.budget)
        with torch.inference_mode():
            return trained, variance_of(trained.model, self._images, means)

    @property
    def _images(self) -> Tensor:
        return judged_images(self.test_photos, self.num_test, self.size)


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, what=WhatFlags, how=RecipeFlags)


def sample_variance(law: OracleLaw, functional: Functional, num_samples: int) -> Tensor:
    """k₂ of the functional of as many exact samples of each image, (N, C, H′, W′)."""
    generator = torch.Generator().manual_seed(1)
    total, squares = torch.zeros(()), torch.zeros(())
    for _ in range(num_samples):
        value = functional(law.sample(generator) - law.mean)
        total, squares = total + value, squares + value.square()
    return (squares - total.square() / num_samples) / (num_samples - 1)


def errors(estimate: Tensor, exact: Tensor) -> Row:
    """How far variances are from the exact ones, both in units of [-1, 1] squared.

    `relative_var_error` mean |v̂ − v| / v, `relative_rms_error` √(mean (v̂ − v)² / mean v²),
    `var_bias` mean v̂ / mean v − 1, left out where v is 0 everywhere; `rms_std`, √(mean v̂) in grey
    levels.
    """
    row = {"rms_std": float(estimate.double().mean().sqrt()) * HALF_RANGE_255}
    if float(exact.mean().sqrt()) * HALF_RANGE_255 < _SMALLEST_STD_255:
        return row
    error = estimate.double() - exact
    return row | {
        "relative_var_error": float((error.abs() / exact).mean()),
        "relative_rms_error": float((error.square().mean() / exact.square().mean()).sqrt()),
        "var_bias": float(estimate.double().mean() / exact.mean()) - 1,
    }


def functional_row(law: OracleLaw, text: str, output: Tensor) -> Row:
    """The errors of the variances of a linear functional: the network's, and those beside it."""
    functional = Functional.parse(text)
    exact = variance_of_functional(law, functional)
    return {
        "exact": errors(exact, exact),
        "net": errors(functional.at_places(output), exact),
        "samples": errors(sample_variance(law, functional, NUM_SAMPLES), exact),
        "independent": errors(functional(law.variance, 2), exact),
    }


def rows_of(bench: FunctionalBench, what: WhatFlags, picture: Path) -> list[Row]:
    """Train and judge: a row each functional, with what it took; those of components draw them."""
    trial = Trial(_ROUTE, what.steps / (1 - bench.mean_share), what.seed, BILINEAR)
    law = bench.law(BILINEAR)
    mean, means = bench.means_of(trial)
    rows: list[Row] = []
    pixels = law.variance  # until the network of pixels, the first one, is there
    for text in what.texts:
        trained, output = bench.output_of(trial, text, mean, means)
        took = {"functional": text, "seconds": trained.seconds, "steps": trained.steps}
        pixels = pixels if text else output
        if num_components(text):
            found = of_net(output, FACTOR, pixels)
            row = components_row(law, found, of_samples(law, NUM_SAMPLES))
            write_picture(str(picture), pictured(law, means, found))
        else:
            row = functional_row(law, text, output)
        print(f"{text or 'pixels'}: {row['net']}", flush=True)
        rows.append(took | row)
    return rows


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown; per cent, stds in grey levels."""
    lines = [
        "| functional | rms std: exact | net | relative error of the variance: net | bias | "
        f"{NUM_SAMPLES} exact samples | exact pixel variances, as if independent |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [_TITLES.get(row["functional"], row["functional"])]
        cells += [_std(row[of]) for of in ("exact", "net")]
        cells += [_percent(row["net"], "relative_var_error"), _percent(row["net"], "var_bias", "+")]
        # where the exact variance is 0, the std that they say in place of it
        cells += [
            _percent(row[of], "relative_var_error") or f"std {_std(row[of])}"
            for of in ("samples", "independent")
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _std(found: Mapping[str, float]) -> str:
    return f"{found['rms_std']:.3g}" if found["rms_std"] > _SMALLEST_STD_255 else "0"


def _percent(found: Mapping[str, float], name: str, sign: str = "") -> str:
    if name not in found:
        return ""
    return f"{100 * found[name]:{sign}.2g} %" if abs(found[name]) > _SMALLEST_ERROR else "0"


def main(argv: list[str] | None = None) -> int:
    """Trains, judges, writes, prints; returns the exit code."""
    args = create_parser().parse_args(argv)
    what, how = from_args(WhatFlags, args), from_args(RecipeFlags, args)
    torch.set_num_threads(how.threads or num_cores())
    tune_allocator()
    bench = FunctionalBench(
        how.recipes,
        load_photos(how.data_dir, how.small_size, "--data_dir"),
        load_photos(how.test_dir, how.small_size, "--test_dir"),
        how.num_test_crops,
        how.small_size,
        1.0,  # a budget is one of steps
        how.mean_share,
    )
    today = datetime.date.today().isoformat()
    path = Path(what.output_dir, f"{what.name}_{today}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = rows_of(bench, what, path.with_suffix(".png"))
    record = {
        "date": today,
        "command": own_command("benchmarks.beyond_pixels"),
        "settings": how.settings,
        "hardware": hardware(),
        "versions": versions(),
        "rows": rows,
    }
    write_json_atomic(path, record)
    table = format_table([row for row in rows if "exact" in row])
    table += "".join(f"\n{format_components(row)}" for row in rows if "exact" not in row)
    write_text_atomic(path.with_suffix(".md"), table)
    print(f"\n{table}\nwritten: {path}, its .md, and of components its .png")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
