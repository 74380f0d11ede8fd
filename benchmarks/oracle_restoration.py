"""Denoising and missing pixels against the exact law: how far off are two nets after minutes?

    python -m benchmarks.oracle_restoration             (two nets for each of two observations)

Beside the low-res image the nets see the image with noise of a known std, or some of its pixels.
They are trained on fresh draws of the oracle's law with the loops of the toolkit, and held against
the exact mean and variance given what they saw (`oracle.posterior`; docs/theory.md, section 10).
Beside them stand super-resolution alone, Y's own law, and what 100 exact samples would show.
Writes `<name>_<date>.json` and `.md` to `--output_dir`; docs/oracle.md has the table.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.observed_nets import EDGE_CHANNELS, ToldEdge, observe, parts_of  # noqa: E402
from benchmarks.record import RESULTS_DIR, write_rows  # noqa: E402
from benchmarks.truth_data import (  # noqa: E402
    FACTOR,
    cut,
    errors_of,
    errors_of_samples,
    judged_images,
    load_photos,
)
from models.config import CONV3X3, RES_BLOCKS  # noqa: E402
from models.subpixel import SubpixelModel  # noqa: E402
from oracle.law import OracleLaw, block_sums, oracle_law  # noqa: E402
from oracle.posterior import PosteriorLaw, given_noisy, given_pixels  # noqa: E402
from sr_var.degradation import mean_of, variance_of  # noqa: E402
from sr_var.flags.nets import ITAKURA_SAITO  # noqa: E402
from sr_var.flags.network import SUBPIXEL  # noqa: E402
from sr_var.flags.scripts import VarModelFlags  # noqa: E402
from sr_var.losses import start_at_usual_spread  # noqa: E402
from sr_var.mean_utils import SRMeanTrainLoop  # noqa: E402
from sr_var.script_util import create_mean_model, create_var_model  # noqa: E402
from sr_var.var_utils import SRVarTrainLoop  # noqa: E402
from utils.flags.training import MUON, TrainFlags  # noqa: E402
from utils.machine.threads import num_cores  # noqa: E402
from utils.metrics import HALF_RANGE_255  # noqa: E402
from utils.process.errors import EXIT_DONE, run_main  # noqa: E402
from utils.process.stop import StopRequested, stop_line  # noqa: E402
from utils.script_util import (  # noqa: E402
    FlagParser,
    FlagValues,
    flag,
    from_args,
    make_parser,
    require_at_least,
)
from utils.seeds import stable_seed  # noqa: E402
from utils.train_util import TrainLoop  # noqa: E402

_TEST_BATCH, _NUM_SAMPLES = 16, 100
# log-odds of a polarity that the other one has 1 in 3000 of
_NO_DOUBT = 8.0
_TINY_SQUARE = 1e-30
Row = dict[str, Any]


@dataclass(frozen=True)
class RestorationFlags:
    """What the nets see, and how long they train."""

    observations: str = flag(
        "noise:25,mask:0.5",
        "what is seen beside the low-res image, comma separated: noise:S, the image with noise of "
        "std S grey levels; mask:P, the image without a share P of its pixels",
    )
    steps: int = flag(1500, "training steps of each net")
    seeds: str = flag("0", "of weights and data, comma separated; a row each")
    data_dir: str = flag(str(ROOT / "data/demo/train"), "photographs to train on")
    test_dir: str = flag(
        str(ROOT / "data/demo/test"),
        "photographs to judge on; to choose among nets, others: data/demo/calibration",
    )
    num_test_crops: int = flag(64, "test images")
    small_size: int = flag(16, "side of the low-res images, pixels; the factor is 4")
    width: int = flag(48, "channels of the nets")
    num_res_blocks: int = flag(3, "residual blocks of the nets")
    res_block: str = flag(CONV3X3, "kind of these blocks", RES_BLOCKS)
    knows_edge: bool = flag(
        False, "tell the mean net the law's edge and noise, to see what finding them costs"
    )
    batch_size: int = flag(16, "images of a step")
    lr: float = flag(2.5e-3, "learning rate of the mean net (Muon); it falls to 0 as a cosine")
    var_lr: float = flag(5e-3, "the same, of the variance net")
    lr_warmup_steps: int = flag(50, "first steps, over which lr rises from 0; at most a fifth")
    threads: int = flag(0, "threads of torch; 0: as many as cores")
    name: str = flag("oracle_restoration", "of the files")
    output_dir: str = flag(str(RESULTS_DIR), "folder of the files")

    def __post_init__(self) -> None:
        require_at_least(self, steps=1, num_test_crops=1, small_size=4, threads=0, width=1)
        _ = self.seen, self.seed_list

    @property
    def seen(self) -> list[tuple[str, float]]:
        """The parsed `observations`: kind and number."""
        found = []
        for text in self.observations.split(","):
            kind, _, number = text.strip().partition(":")
            try:
                level = float(number)
            except ValueError:
                level = -1.0
            if kind not in ("noise", "mask") or level < 0 or (kind == "mask" and level > 1):
                raise ValueError(
                    f"--observations {text!r}: give noise:25 (a std in grey levels) or mask:0.5 "
                    "(a share of hidden pixels)"
                )
            found.append((kind, level))
        return found

    @property
    def seed_list(self) -> list[int]:
        """The parsed `seeds`."""
        try:
            return [int(seed) for seed in self.seeds.split(",")]
        except ValueError:
            raise ValueError(f"--seeds {self.seeds!r} must be whole numbers") from None


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=RestorationFlags)


@dataclass(frozen=True)
class ObservedDraws:
    """Endless batches (X, y): pieces of photographs, a draw of the law and what is seen of it.

    Every iteration starts the same sequence anew.
    """

    photos: Sequence[Tensor]
    flags: RestorationFlags
    kind: str
    level: float
    seed: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield X (N, 51 or 67, h, w) and y (N, 3, H, W)."""
        generator = torch.Generator().manual_seed(self.seed)
        flags = self.flags
        while True:
            low_res = cut(self.photos, flags.batch_size, flags.small_size, generator)
            y = oracle_law(low_res, FACTOR).sample(generator)
            yield observe(low_res, y, self.kind, self.level, generator), y


def exact_law(law: OracleLaw, x: Tensor, kind: str, level: float) -> PosteriorLaw:
    """p(Y | X) of the images that are judged, in the dtype of the law."""
    seen, mask = parts_of(x.to(law.base))[1:]
    if kind == "noise":
        return given_noisy(law, seen, level / HALF_RANGE_255)
    assert mask is not None
    return given_pixels(law, seen, mask)


@dataclass
class Trainer:
    """Trains and judges the nets of one observation and seed."""

    flags: RestorationFlags
    kind: str
    level: float
    seed: int
    photos: Sequence[Tensor]
    test_photos: Sequence[Tensor]

    def run(self) -> Row:
        """Both nets, and how far they are from the law."""
        torch.manual_seed(self.seed)
        mean = self._train(partial(SRMeanTrainLoop, model=self._mean_net()), "mean", self.flags.lr)
        torch.manual_seed(self.seed)
        var_flags = VarModelFlags(**self._net_flags, last_layer_type="softplus")
        var_net = create_var_model(**vars(var_flags))
        start_at_usual_spread(var_net.out, var_flags)
        make = partial(SRVarTrainLoop, model=var_net, mean_model=mean[0], loss=ITAKURA_SAITO)
        variance = self._train(make, "variance", self.flags.var_lr)
        return {
            "observation": f"{self.kind}:{self.level:g}",
            "seed": self.seed,
            "steps": self.flags.steps,
            "seconds": [mean[1], variance[1]],
            "cpu_seconds": [mean[2], variance[2]],
            **self._judge(mean[0], variance[0]),
        }

    @property
    def _net_flags(self) -> FlagValues:
        """The flags of both nets, as the scripts make them."""
        flags = self.flags
        return {
            "network": SUBPIXEL,
            "large_size": FACTOR * flags.small_size,
            "small_size": flags.small_size,
            "model_channels": flags.width,
            "num_res_blocks": flags.num_res_blocks,
            "res_block": flags.res_block,
            "degradation": f"area & {self.kind}:{self.level:g}",
        }

    def _mean_net(self) -> nn.Module:
        net = create_mean_model(**self._net_flags, consistent=True)
        if not self.flags.knows_edge:
            return net
        assert isinstance(net, SubpixelModel)
        more = net.config.extra_channels + EDGE_CHANNELS
        return ToldEdge(SubpixelModel(replace(net.config, extra_channels=more)))

    def _train(
        self, make: Callable[..., TrainLoop], net: str, lr: float
    ) -> tuple[nn.Module, float, float]:
        """The net, its seconds and the processor's."""
        flags, steps = self.flags, self.flags.steps
        train = TrainFlags(
            batch_size=flags.batch_size,
            lr=lr,
            optimizer=MUON,
            lr_schedule="cosine",
            lr_anneal_steps=steps,
            max_step=steps,
            lr_warmup_steps=min(flags.lr_warmup_steps, steps // 5),
            log_interval=100,
        )
        seed = stable_seed(self.seed, net, self.kind) % 2**31
        data = ObservedDraws(self.photos, flags, self.kind, self.level, seed)
        loop = make(data=data, **replace(train, seed=self.seed).common())
        started, of_process = time.perf_counter(), time.process_time()
        if not loop.run_loop():
            raise StopRequested(stop_line("received a signal"))
        seconds = time.perf_counter() - started, time.process_time() - of_process
        return loop.model.eval(), *seconds

    def _judge(self, mean_net: nn.Module, var_net: nn.Module) -> dict[str, Any]:
        flags = self.flags
        low_res = judged_images(self.test_photos, flags.num_test_crops, flags.small_size)
        prior = oracle_law(low_res.double(), FACTOR)
        generator = torch.Generator().manual_seed(1)
        y = prior.sample(generator)
        x = observe(low_res.double(), y, self.kind, self.level, generator)
        law = exact_law(prior, x, self.kind, self.level)
        means, variances = [], []
        with torch.inference_mode():
            for batch in torch.split(x.float(), _TEST_BATCH):
                means.append(mean_of(mean_net, batch, y.shape[2:]))
                variances.append(variance_of(var_net, batch, means[-1]))
        mean, variance = torch.cat(means), torch.cat(variances)
        samples = errors_of_samples(law, _NUM_SAMPLES)
        square = (HALF_RANGE_255**2) * torch.stack([prior.variance.mean(), law.variance.mean()])
        return {
            **errors_of(law, mean, variance),
            "samples": samples,
            "super_resolution": errors_of(law, prior.mean, prior.variance),
            "std": square.sqrt().tolist(),
            **error_parts(law, mean),
            "error": float((mean.double() - y).square().mean().sqrt() * HALF_RANGE_255),
        }


def error_parts(law: PosteriorLaw, mean: Tensor) -> dict[str, float]:
    """Where the mean's squared error is, as shares of all of it.

    `known_share`: in blocks whose polarity X tells beyond doubt; `edge_share`: along B′ of the law,
    whose height and sign it gets wrong, the rest being in other patterns of a block.
    """
    off = mean.double() - law.mean
    error = block_sums(off.square().sum(dim=1, keepdim=True), FACTOR)
    along = block_sums((off * law.edge).sum(dim=1, keepdim=True), FACTOR).square()
    square = off.shape[1] * block_sums(law.edge.square(), FACTOR)
    along = torch.where(square > 0, along / square.clamp(min=_TINY_SQUARE), 0.0)
    known = error[law.log_odds.abs() > _NO_DOUBT]
    return {
        "known_share": float(known.sum() / error.sum()),
        "edge_share": float(along.sum() / error.sum()),
    }


def format_table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| seen beside the low-res image | rms std: given it | without it | mean: squared error / "
        "variance | variance: mean relative error | bias | 100 exact samples | steps | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        without, given = row["std"]
        samples = row["samples"]
        lines.append(
            f"| {row['observation']} | {given:.3g} | {without:.3g} | {row['relative_mse']:.2%} | "
            f"{row['relative_var_error']:.1%} | {row['var_bias']:+.1%} | "
            f"{samples['relative_mse']:.1%}, {samples['relative_var_error']:.0%} | "
            f"{row['steps']} + {row['steps']} | {sum(row['cpu_seconds']):.0f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Trains, judges, writes, prints; returns the exit code."""
    flags = from_args(RestorationFlags, create_parser().parse_args(argv))
    torch.set_num_threads(flags.threads or num_cores())
    photos = load_photos(flags.data_dir, flags.small_size, "--data_dir")
    test_photos = load_photos(flags.test_dir, flags.small_size, "--test_dir")
    rows = []
    for kind, level in flags.seen:
        for seed in flags.seed_list:
            row = Trainer(flags, kind, level, seed, photos, test_photos).run()
            print(row, flush=True)
            rows.append(row)
    write_rows(flags.name, Path(flags.output_dir), vars(flags), rows, format_table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
