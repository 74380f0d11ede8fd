"""The commands of `make demo`: the whole experiment on small tiles of real photographs, then the
same two nets on the oracle.

Sizes only; every command is one that a user could type. No torch: the scripts import it themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

Command = tuple[str, list[str]]

NUM_EXACT_SAMPLES = 100


@dataclass(frozen=True)
class Route:
    """A way to a mean and a variance: `name` is that of its folders, `title` of its row in a table.

    `flags` are those of the variance net, or of the one network of a baseline; the residuals come
    from `num_folds` mean nets (`--cross_fit`), 0: from the one mean net.
    """

    name: str
    title: str
    flags: str
    num_folds: int = 0
    is_baseline: bool = False


_ITAKURA_SAITO = "--last_layer_type softplus --loss itakura_saito"
ITAKURA_SAITO = Route("itakura_saito", "two nets, Itakura–Saito, softplus", _ITAKURA_SAITO)
ROUTES = (
    Route("squared_error", "two nets, squared error", "--last_layer_type none"),
    Route("softplus", "two nets, squared error, softplus", "--last_layer_type softplus"),
    ITAKURA_SAITO,
    Route("cross_fit", "the same, cross-fit of 2", f"{_ITAKURA_SAITO} --cross_fit 2", num_folds=2),
    Route("nll", "one net, Gaussian likelihood", "--objective nll", is_baseline=True),
    Route("beta_nll", "one net, β-likelihood", "--objective beta_nll", is_baseline=True),
    Route("quantile", "one net, five quantiles", "--objective quantile", is_baseline=True),
)


@dataclass(frozen=True)
class Nets:
    """What mean, variance and baseline nets are: U-Nets, or sub-pixel networks without multipliers.

    `channel_mult` is the U-Nets' alone. `in_bf16` is of trainings: sub-pixel nets are as far after
    as many steps (benchmarks/README.md, time to the truth), which take less time on such a CPU.
    """

    width: int
    num_res_blocks: int = 1
    channel_mult: str = ""
    large_size: int = 32
    small_size: int = 8
    in_bf16: bool = False

    @property
    def precision(self) -> str:
        """The flag of trainings, left out where it has its default."""
        return " --use_bf16 True" if self.in_bf16 else ""

    def flags(self, task: str) -> str:
        """Those of the training of one net, by the first words of its scripts, as `sr_mean`."""
        sizes = (
            f"--large_size {self.large_size} --small_size {self.small_size} "
            f"--model_channels {self.width} --num_res_blocks {self.num_res_blocks}{self.precision}"
        )
        if self.channel_mult:
            unet = f"--channel_mult {self.channel_mult} --attention_resolutions= "
            residual = "" if task == "sr_var" else " --predict_residual True"
            return f"{sizes} {unet}--resblock_updown True{residual}"
        projection = " --consistent True" if task == "sr_mean" else ""
        return f"{sizes} --network subpixel{projection} --optimizer muon --lr_schedule cosine"

    def lr(self, task: str, lr: float) -> float:
        """The learning rate of one net, by that of the mean net.

        Muon takes a variance further at twice that rate (docs/theory.md, section 5).
        """
        return 2 * lr if task == "sr_var" and not self.channel_mult else lr


@dataclass(frozen=True)
class OracleExperiment:
    """Sizes of data, of every network and training.

    The learning rate falls to 0; of each of `num_crops` pieces of photographs there are four draws
    for training; a baseline trains for as many steps as both nets. With `num_calibration_crops`
    further pieces the nets' intervals are calibrated, by risk control.
    """

    name: str
    nets: Nets
    batch_size: int
    lr: float
    num_crops: int
    num_test_crops: int
    mean_steps: int
    var_steps: int
    seed: int = 0
    num_calibration_crops: int = 0

    def data(self) -> Command:
        """Training and test images, exact samples and moments."""
        return _command(
            f"oracle_data.py --data_dir data/demo --test_folder test --output_dir data/{self.name} "
            f"--sample_dir {self._exact} --log_dir logs/oracle_data/{self.name} "
            f"--large_size {self.nets.large_size} --small_size {self.nets.small_size} "
            f"--num_train_crops {self.num_crops} --num_draws 4 "
            f"--num_test_crops {self.num_test_crops} --num_samples {NUM_EXACT_SAMPLES}"
            f"{self._calibrated(f' --num_calibration_crops {self.num_calibration_crops}')}"
            f"{_seed(self.seed)}"
        )

    def train_mean(self) -> Command:
        """The mean net, which all routes of two nets share."""
        return self._train("sr_mean", self.name, self.mean_steps)

    def train(self, route: Route) -> list[Command]:
        """What the route needs beside the mean net."""
        name = self._run(route)
        if route.is_baseline:
            steps = self.mean_steps + self.var_steps
            return [self._train("sr_baseline", name, steps, before=route.flags)]
        folds = [
            self._train(
                "sr_mean",
                f"{name}_fold{fold}",
                self.mean_steps,
                after=f"--cross_fit {route.num_folds} --fold {fold}",
            )
            for fold in range(route.num_folds)
        ]
        mean = _mean(f"{name}_fold{{fold}}" if route.num_folds else self.name, self.mean_steps)
        variance = self._train("sr_var", name, self.var_steps, before=route.flags, after=mean)
        return [*folds, variance]

    def test(self, route: Route, images: str = "to_sample") -> list[Command]:
        """Mean and variance of every test image, or of the images of another list."""
        name, (mean, variance) = self._run(route), self.steps(route)
        if route.is_baseline:
            return [self._test("sr_baseline", name, mean, route, images)]
        of_mean = f" {_mean(self.name, mean)}"
        return [
            self._test("sr_mean", self.name, mean, route, images),
            self._test("sr_var", name, variance, route, images, of_mean),
        ]

    def calibrate(self, route: Route) -> list[Command]:
        """Intervals that hold with a stated probability; nothing without images for it.

        Test images are further pieces of the same photographs, so the unit is a piece.
        """
        if not self.num_calibration_crops:
            return []
        mean, variance = self.steps(route)
        line = (
            f"sr_calibrate.py {self._list('calibration')} --large_size {self.nets.large_size} "
            f"--sr_model_output_dir {self._results(route, 'calibration')} "
            f"--mean_model_step {mean} --var_model_step {variance} --method risk_control "
            "--cluster image "
            f"--output_dir {self._calibration(route)} "
            f"--log_dir logs/sr_calibrate/{self._run(route)}"
        )
        return [*self.test(route, "calibration"), _command(line)]

    def judge(self, route: Route) -> list[Command]:
        """The error budget and the verification."""
        mean, variance = self.steps(route)
        judged = (
            f"{self._list('to_sample')} --large_size {self.nets.large_size} "
            f"--ddpm_sr_output_dir {self._exact} "
            f"--num_samples {NUM_EXACT_SAMPLES} "
            f"--sr_model_output_dir {self._results(route)} --mean_model_step {mean} "
            f"--var_model_step {variance} --log_dir {self.log_dir(route)}"
        )
        intervals = self._calibrated(f" --calibration {self._calibration(route)}/calibration.json")
        return [
            _command(f"oracle_budget.py {judged}"),
            _command(f"sr_var_verification.py {judged}{intervals}"),
        ]

    def commands(self, routes: Sequence[Route]) -> list[Command]:
        """All of it in order; run again, each goes on where it was."""
        lines = [self.data(), self.train_mean()]
        for route in routes:
            lines += self.train(route) + self.test(route)
            lines += self.calibrate(route) + self.judge(route)
        return lines

    def steps(self, route: Route) -> tuple[int, int]:
        """Steps in the names of the mean's and of the variance's files."""
        both = self.mean_steps + self.var_steps
        return (both, both) if route.is_baseline else (self.mean_steps, self.var_steps)

    def log_dir(self, route: Route) -> str:
        """Where the verification writes."""
        return f"logs/sr_compare/{self._run(route)}"

    def _run(self, route: Route) -> str:
        return f"{self.name}_{route.name}"

    @property
    def _exact(self) -> str:
        return f"outputs/oracle/{self.name}"

    def _results(self, route: Route, images: str = "to_sample") -> str:
        ending = "" if images == "to_sample" else f"_{images}"
        return f"outputs/sr_var/{self._run(route)}{ending}"

    def _calibration(self, route: Route) -> str:
        return f"outputs/sr_calibrate/{self._run(route)}"

    def _calibrated(self, flags: str) -> str:
        return flags if self.num_calibration_crops else ""

    def _list(self, images: str) -> str:
        data = f"data/{self.name}"
        return f"--data_dir {data}/images --data_info_dict_path {data}/{images}_data_info.pkl"

    def _train(
        self, task: str, name: str, steps: int, *, before: str = "", after: str = ""
    ) -> Command:
        """One training; the flags of its own stand before and after those of all trainings."""
        lr = self.nets.lr(task, self.lr)
        shared = _training(self._list("train"), self.batch_size, lr, self.seed)
        net, schedule = self.nets.flags(task), _schedule(task, name, steps)
        return _command(f"{task}_train.py {net} {before} {shared} {after} {schedule}")

    def _test(
        self, task: str, name: str, step: int, route: Route, images: str, more: str = ""
    ) -> Command:
        return _command(
            f"{task}_test.py {self._list(images)} --output_dir {self._results(route, images)} "
            f"--batch_size 16 --log_dir logs/{task}/{name} "
            f"--model_path {_model(task, name, step)}{more}"
        )


def _training(images: str, batch_size: int, lr: float, seed: int) -> str:
    return (
        f"{images} --batch_size {batch_size} --log_interval 50 --save_interval 300 "
        f"--keep_last_k 1 --resume_checkpoint auto --lr {lr:g} --lr_warmup_steps 20{_seed(seed)}"
    )


def _seed(seed: int) -> str:
    """The flag; left out where it has its default."""
    return f" --seed {seed}" if seed else ""


def _schedule(task: str, name: str, steps: int) -> str:
    return (
        f"--max_step {steps} --lr_anneal_steps {steps} "
        f"--log_dir logs/{task}/{name} --model_save_dir checkpoints/{task}/{name}"
    )


def _model(task: str, name: str, step: int) -> str:
    return f"checkpoints/{task}/{name}/model{step:06d}.pt"


def _mean(name: str, steps: int) -> str:
    return (
        f"--mean_model_path {_model('sr_mean', name, steps)} "
        f"--mean_model_args_path logs/sr_mean/{name}/mean_model_args.pkl"
    )


def _command(line: str) -> Command:
    script, *words = line.split()
    return script, words


@dataclass(frozen=True)
class Preset:
    """How large a demo is; steps are of training, `denoiser` has what its network is called with.

    `train_tiles` and `test_tiles` are of each photograph; 0: all.
    """

    name: str
    nets: Nets
    batch_size: int
    lr: float
    mean_steps: int
    var_steps: int
    denoiser: str
    denoiser_lr: float
    denoiser_batch_size: int
    diffusion_steps: int
    num_samples: int
    respacing: str
    sample_batch_size: int
    train_tiles: int
    test_tiles: int
    oracle_crops: int
    oracle_mean_steps: int
    oracle_var_steps: int
    seed: int = 0

    def with_seed(self, seed: int) -> Preset:
        """The same with another seed of weights, data and noise, and its own folders."""
        return replace(self, name=f"{self.name}_seed{seed}", seed=seed) if seed else self

    def with_bf16(self, in_bf16: bool) -> Preset:
        """The same, trained in bf16 where `in_bf16` says so."""
        return replace(self, nets=replace(self.nets, in_bf16=in_bf16))

    @property
    def log_dir(self) -> str:
        """Where the verification on photographs writes."""
        return f"logs/sr_compare/{self.name}"

    @property
    def calibration_dir(self) -> str:
        """Where the calibration is."""
        return f"outputs/sr_calibrate/{self.name}"

    @property
    def oracle(self) -> OracleExperiment:
        """The small check against the truth: the same nets on the oracle."""
        return OracleExperiment(
            name=f"{self.name}_oracle",
            nets=self.nets,
            batch_size=self.batch_size,
            lr=self.lr,
            num_crops=self.oracle_crops,
            num_test_crops=24,
            num_calibration_crops=400,
            mean_steps=self.oracle_mean_steps,
            var_steps=self.oracle_var_steps,
            seed=self.seed,
        )


CPU = Preset(
    name="demo",
    nets=Nets(width=48, num_res_blocks=3, large_size=64, small_size=16),
    batch_size=16,
    lr=2.5e-3,
    mean_steps=1500,
    var_steps=1500,
    denoiser="--num_channels 64 --num_res_blocks 4",
    denoiser_lr=4e-3,
    denoiser_batch_size=8,
    diffusion_steps=2000,
    num_samples=20,
    respacing="16",
    sample_batch_size=40,
    train_tiles=0,
    test_tiles=5,
    oracle_crops=2000,
    oracle_mean_steps=800,
    oracle_var_steps=800,
)
QUICK = replace(
    CPU,
    name="demo_quick",
    mean_steps=150,
    var_steps=150,
    denoiser="--num_channels 32 --num_res_blocks 3",
    diffusion_steps=400,
    num_samples=8,
    train_tiles=20,
    test_tiles=1,
    oracle_crops=200,
    oracle_mean_steps=100,
    oracle_var_steps=100,
)
GPU = replace(
    CPU,
    name="demo_gpu",
    nets=replace(CPU.nets, width=64, num_res_blocks=4),
    batch_size=32,
    lr=1e-3,
    mean_steps=6000,
    var_steps=6000,
    denoiser="--num_channels 96 --num_res_blocks 6",
    denoiser_lr=3e-3,
    denoiser_batch_size=32,
    diffusion_steps=8000,
    num_samples=50,
    respacing="24",
    sample_batch_size=400,
    test_tiles=5,
    oracle_crops=8000,
    oracle_mean_steps=6000,
    oracle_var_steps=6000,
)


def commands(preset: Preset) -> list[Command]:
    """(script, arguments) in order; `photograph_commands` has what stands before the last one."""
    name, nets, mean_net = preset.name, preset.nets, _mean(preset.name, preset.mean_steps)
    tiles, info = f"data/{name}_tiles", f"data/{name}_info"
    denoiser = (
        f"--large_size {nets.large_size} --small_size {nets.small_size} --network subpixel "
        f"{preset.denoiser} --noise_schedule shifted_cosine --predict_xstart True"
    )
    images = (
        f"--data_dir {tiles} --data_info_dict_path {info}/train_data_info.pkl "
        "--random_flip True --random_turn True"
    )
    train_mean, train_var = (
        _training(images, preset.batch_size, nets.lr(task, preset.lr), preset.seed)
        for task in ("sr_mean", "sr_var")
    )
    train_denoiser = _training(images, preset.denoiser_batch_size, preset.denoiser_lr, preset.seed)
    test = f"--data_dir {tiles} --data_info_dict_path {info}/to_sample_data_info.pkl"
    lines = [
        f"data/demo/make_tiles.py --output_dir {tiles} --splits train,test --tile_size "
        f"{nets.large_size} --num_tiles {preset.train_tiles},{preset.test_tiles} --strides "
        f"{nets.large_size // 2},0",
        f"sr_data_info.py --data_dir {tiles} --test_folder test --output_dir {info} "
        f"--large_size {nets.large_size} --log_dir logs/sr_data_info/{name}",
        f"sr_mean_train.py {nets.flags('sr_mean')} {train_mean} "
        + _schedule("sr_mean", name, preset.mean_steps),
        f"sr_var_train.py {nets.flags('sr_var')} {_ITAKURA_SAITO} {train_var} {mean_net} "
        + _schedule("sr_var", name, preset.var_steps),
        f"ddpm_sr_train.py {denoiser}{nets.precision} {train_denoiser} --optimizer muon "
        "--lr_schedule cosine --ema_rate 0.99 "
        + _schedule("ddpm_sr", name, preset.diffusion_steps),
        f"ddpm_sr_sample.py {denoiser} --sampler dpmpp_2m_sde "
        f"--timestep_respacing {preset.respacing} "
        f"--data_dir {tiles} --to_sample_images_dict_path {info}/to_sample_data_info.pkl "
        f"--model_path checkpoints/ddpm_sr/{name}/ema_0.99_{preset.diffusion_steps:06d}.pt "
        f"--log_dir logs/ddpm_sr/{name}_sample --output_dir outputs/ddpm_sr/{name} "
        f"--num_samples_per_image {preset.num_samples} --batch_size {preset.sample_batch_size}"
        f"{_seed(preset.seed)}",
        f"sr_mean_test.py {test} --log_dir logs/sr_mean/{name} --output_dir outputs/sr_var/{name} "
        f"--model_path {_model('sr_mean', name, preset.mean_steps)} --batch_size 16",
        f"sr_var_test.py {test} --log_dir logs/sr_var/{name} --output_dir outputs/sr_var/{name} "
        f"--model_path {_model('sr_var', name, preset.var_steps)} --batch_size 16 {mean_net}",
        f"sr_var_verification.py {test} --large_size {nets.large_size} "
        f"--ddpm_sr_output_dir outputs/ddpm_sr/{name} --num_samples {preset.num_samples} "
        f"--sr_model_output_dir outputs/sr_var/{name} --mean_model_step {preset.mean_steps} "
        f"--var_model_step {preset.var_steps} --log_dir {preset.log_dir} "
        f"--calibration {preset.calibration_dir}/calibration.json",
    ]
    return [_command(line) for line in lines]


def calibration_commands(preset: Preset) -> list[Command]:
    """Tiles of photographs that neither train nor test, and the factor by which intervals hold."""
    name, nets, mean_net = preset.name, preset.nets, _mean(preset.name, preset.mean_steps)
    tiles, info, results = (
        f"data/{name}_calibration",
        f"data/{name}_calibration_info",
        f"outputs/sr_var/{name}_calibration",
    )
    images = f"--data_dir {tiles} --data_info_dict_path {info}/to_sample_data_info.pkl"
    lines = [
        f"data/demo/make_tiles.py --output_dir {tiles} --splits calibration --tile_size "
        f"{nets.large_size} --num_tiles {preset.test_tiles}",
        f"sr_data_info.py --data_dir {tiles} --test_share 1 --output_dir {info} "
        f"--large_size {nets.large_size} --log_dir logs/sr_data_info/{name}_calibration",
        f"sr_mean_test.py {images} --log_dir logs/sr_mean/{name} --output_dir {results} "
        f"--model_path {_model('sr_mean', name, preset.mean_steps)} --batch_size 16",
        f"sr_var_test.py {images} --log_dir logs/sr_var/{name} --output_dir {results} "
        f"--model_path {_model('sr_var', name, preset.var_steps)} --batch_size 16 {mean_net}",
        f"sr_calibrate.py {images} --large_size {nets.large_size} --sr_model_output_dir {results} "
        f"--mean_model_step {preset.mean_steps} --var_model_step {preset.var_steps} "
        f"--output_dir {preset.calibration_dir} --log_dir logs/sr_calibrate/{name} "
        "--cluster photograph",
    ]
    return [_command(line) for line in lines]


def photograph_commands(preset: Preset) -> list[Command]:
    """All on photographs, as they run: what the verification reads is made before it."""
    *lines, verification = commands(preset)
    return [*lines, *calibration_commands(preset), verification]


def oracle_commands(preset: Preset) -> list[Command]:
    """The check against the truth: both nets on the oracle, judged by its exact law."""
    return preset.oracle.commands([ITAKURA_SAITO])
