"""The commands of one experiment on the oracle: the nets, and what judges them by the exact law.

Every command is one that a user could type. No torch: the scripts import it themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Command = tuple[str, list[str]]

NUM_EXACT_SAMPLES = 100


@dataclass(frozen=True)
class Route:
    """A way to a mean and a variance.

    Attributes:
        name: of its folders.
        title: of its row in a table.
        flags: of the variance net, or of the one network of a baseline.
        num_folds: mean nets that the residuals come from (``--cross_fit``); 0: the one mean net.
        is_baseline: one network for both.
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
class OracleExperiment:
    """Sizes of data, networks and training; images of 32², given 8².

    Attributes:
        name: of the folders.
        width, channel_mult: of every network.
        batch_size, lr: of every training; the learning rate falls to 0.
        num_crops, num_test_crops: pieces of photographs; four draws of each for training.
        mean_steps, var_steps: of the two nets; a baseline trains for as many as both.
    """

    name: str
    width: int
    channel_mult: str
    batch_size: int
    lr: float
    num_crops: int
    num_test_crops: int
    mean_steps: int
    var_steps: int

    def data(self) -> Command:
        """Training and test images, exact samples and moments."""
        return _command(
            f"oracle_data.py --data_dir data/demo --test_folder test --output_dir {self._data} "
            f"--sample_dir {self._exact} --log_dir logs/oracle_data/{self.name} --large_size 32 "
            f"--small_size 8 --num_train_crops {self.num_crops} --num_draws 4 "
            f"--num_test_crops {self.num_test_crops} --num_samples {NUM_EXACT_SAMPLES}"
        )

    def train_mean(self) -> Command:
        """The mean net, which all routes of two nets share."""
        return _command(
            f"sr_mean_train.py {self._net} --predict_residual True {self._train} "
            + self._schedule("sr_mean", self.name, self.mean_steps)
        )

    def train(self, route: Route) -> list[Command]:
        """What the route needs beside the mean net."""
        name = self._run(route)
        if route.is_baseline:
            line = f"sr_baseline_train.py {self._net} --predict_residual True {route.flags} "
            schedule = self._schedule("sr_baseline", name, self.mean_steps + self.var_steps)
            return [_command(line + self._train + " " + schedule)]
        folds = [
            _command(
                f"sr_mean_train.py {self._net} --predict_residual True {self._train} --cross_fit "
                f"{route.num_folds} --fold {fold} "
                + self._schedule("sr_mean", f"{name}_fold{fold}", self.mean_steps)
            )
            for fold in range(route.num_folds)
        ]
        mean_name = f"{name}_fold{{fold}}" if route.num_folds else self.name
        line = f"sr_var_train.py {self._net} {route.flags} {self._train} {self._mean(mean_name)} "
        return [*folds, _command(line + self._schedule("sr_var", name, self.var_steps))]

    def test(self, route: Route) -> list[Command]:
        """Mean and variance of every test image."""
        name = self._run(route)
        rest = f"{self._test} --output_dir outputs/sr_var/{name} --batch_size 16"
        if route.is_baseline:
            path = _model("sr_baseline", name, self.steps(route)[0])
            line = f"sr_baseline_test.py {rest} --log_dir logs/sr_baseline/{name}"
            return [_command(f"{line} --model_path {path}")]
        mean, variance = self.steps(route)
        return [
            _command(
                f"sr_mean_test.py {rest} --log_dir logs/sr_mean/{self.name} "
                f"--model_path {_model('sr_mean', self.name, mean)}"
            ),
            _command(
                f"sr_var_test.py {rest} --log_dir logs/sr_var/{name} "
                f"--model_path {_model('sr_var', name, variance)} {self._mean(self.name)}"
            ),
        ]

    def judge(self, route: Route) -> list[Command]:
        """The error budget and the verification."""
        mean, variance = self.steps(route)
        judged = (
            f"{self._test} --large_size 32 --ddpm_sr_output_dir {self._exact} "
            f"--num_samples {NUM_EXACT_SAMPLES} "
            f"--sr_model_output_dir outputs/sr_var/{self._run(route)} --mean_model_step {mean} "
            f"--var_model_step {variance} --log_dir {self.log_dir(route)}"
        )
        return [
            _command(f"oracle_budget.py {judged}"),
            _command(f"sr_var_verification.py {judged}"),
        ]

    def commands(self, routes: Sequence[Route]) -> list[Command]:
        """All of it in order; run again, each goes on where it was."""
        lines = [self.data(), self.train_mean()]
        for route in routes:
            lines += self.train(route) + self.test(route) + self.judge(route)
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
    def _data(self) -> str:
        return f"data/{self.name}"

    @property
    def _exact(self) -> str:
        return f"outputs/oracle/{self.name}"

    @property
    def _net(self) -> str:
        return (
            f"--large_size 32 --small_size 8 --model_channels {self.width} "
            f"--channel_mult {self.channel_mult} --num_res_blocks 1 --attention_resolutions= "
            "--resblock_updown True"
        )

    @property
    def _train(self) -> str:
        return (
            f"--data_dir {self._data}/images "
            f"--data_info_dict_path {self._data}/train_data_info.pkl "
            f"--batch_size {self.batch_size} --log_interval 50 --save_interval 300 --keep_last_k 1 "
            f"--resume_checkpoint auto --lr {self.lr:g}"
        )

    @property
    def _test(self) -> str:
        info = f"{self._data}/to_sample_data_info.pkl"
        return f"--data_dir {self._data}/images --data_info_dict_path {info}"

    def _mean(self, name: str) -> str:
        return (
            f"--mean_model_path {_model('sr_mean', name, self.mean_steps)} "
            f"--mean_model_args_path logs/sr_mean/{name}/mean_model_args.pkl"
        )

    def _schedule(self, task: str, name: str, steps: int) -> str:
        return (
            f"--max_step {steps} --lr_anneal_steps {steps} "
            f"--log_dir logs/{task}/{name} --model_save_dir checkpoints/{task}/{name}"
        )


def _model(task: str, name: str, step: int) -> str:
    return f"checkpoints/{task}/{name}/model{step:06d}.pt"


def _command(line: str) -> Command:
    script, *words = line.split()
    return script, words
