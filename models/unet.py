"""One U-Net and its four uses: mean net, variance net, time-conditioned net, upsampler.

Attribute names and positions are the checkpoint format: those of `models.blocks`, then
`output_blocks.I.J` and `out.0/.2`, in this order, with the names of `models.blocks` below them. Do
not renumber, reorder or rename them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import (
    AttentionBlock,
    BlockSequential,
    Torso,
    Upsample,
    dtype_of,
)
from models.config import UNetConfig
from models.layers import (
    GroupNorm32,
    activation,
    conv_nd,
    last_layer,
    project,
    require_labels,
    resize_linear,
    zero_module,
)


class UNetBase(Torso):
    """The U-Net that owns every parameter; subclasses say what enters and what leaves it.

    Ronneberger et al. 2015 in the form of Dhariwal & Nichol 2021, section 3. The last convolution
    of every residual and attention block and of the net are zero at the start, so that a new net
    returns zero. Nothing is cast by the constructor: see `convert_torso`.
    """

    may_predict_residual: ClassVar[bool] = False
    has_last_layer: ClassVar[bool] = False

    def __init__(self, config: UNetConfig) -> None:
        """Build the net.

        Raises:
            ValueError: `config` sets an option that this net does not have.
        """
        self._check_options(config)
        super().__init__(config)
        self.output_blocks = nn.ModuleList(self._make_output_blocks(self.input_widths))
        top = config.widths[0]
        self.out = nn.Sequential(
            GroupNorm32(top),
            activation(config.act),
            zero_module(conv_nd(config.dims, top, config.out_channels, 3, padding=1)),
        )

    def _check_options(self, config: UNetConfig) -> None:
        name = type(self).__name__
        has_embedding = self.is_time_conditioned or config.num_classes is not None
        if not has_embedding and config.use_scale_shift_norm:
            raise ValueError(f"{name} has no embedding: --use_scale_shift_norm must be False")
        if not self.has_last_layer and config.last_layer_type != "none":
            raise ValueError(
                f"{name} has no last layer: --last_layer_type {config.last_layer_type!r} must be "
                "'none'"
            )
        if not config.predict_residual:
            return
        if not self.may_predict_residual:
            raise ValueError(f"{name} has no image to add to: --predict_residual must be False")
        if config.shown_channels != config.in_channels:
            raise ValueError(
                f"--predict_residual True adds the image that is given, of {config.shown_channels} "
                f"channels, to one of {config.in_channels}: leave it out"
            )
        if config.out_channels < config.in_channels:
            raise ValueError(
                f"--predict_residual True adds {config.in_channels} input channels to "
                f"{config.out_channels} output channels: set out_channels to "
                f"{config.in_channels} or more"
            )

    def _make_output_blocks(self, skip_widths: list[int]) -> list[BlockSequential]:
        """Return the blocks on the way up; each also takes the last output not yet taken."""
        config, channels = self.config, self.config.widths[-1]
        blocks: list[BlockSequential] = []
        remaining = iter(reversed(skip_widths))
        for level, width in reversed(list(enumerate(config.widths))):
            for i in range(config.num_res_blocks + 1):
                layers: list[nn.Module] = [self._make_res_block(channels + next(remaining), width)]
                channels = width
                if 2**level in config.attention_factors:
                    layers.append(AttentionBlock(config, channels, is_upsampling=True))
                if level > 0 and i == config.num_res_blocks:
                    layers.append(
                        self._make_res_block(channels, channels, "up")
                        if config.resblock_updown
                        else Upsample(config.dims, channels, use_conv=config.conv_resample)
                    )
                blocks.append(BlockSequential(*layers))
        return blocks

    def _run(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Return (N, out_channels, *spatial) for x (N, C, *spatial), in the dtype of `x`."""
        h = self._enter(x)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)  # the tensors before it are free from here on
            h = block(h, emb)
        output: Tensor = self.out(h.to(dtype_of(self.out)))
        return output.to(x.dtype)


class TimeFreeBase(UNetBase):
    """What mean and variance net share: of an embedding, where there is one, it is the class's.

    A new net has a zero embedding, and nothing is added to it on its way into the blocks. So a net
    that takes the weights of one without classes computes the same at first, for every label.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        if config.num_classes is None:
            return
        zero_module(self.label_emb)
        for name, parameter in self.named_parameters():
            if name.endswith(".emb_layers.1.bias"):
                nn.init.zeros_(parameter)

    def _embed(self, batch_size: int, y: Tensor | None) -> Tensor | None:
        """Return the embedding of the classes, (N, 4 * model_channels); None without classes."""
        require_labels(y, self.config.num_classes, batch_size)
        return None if y is None else self.embed_labels(y)

    def is_neutral_when_new(self, name: str) -> bool:
        """Whether a net of a file without this parameter computes the same with a new one."""
        return name.startswith("label_emb.") or ".emb_layers." in name


class UNetModel(TimeFreeBase):
    """The time-free net that maps an image to an image, such as the mean net.

    With `predict_residual` it returns x + net(x): a new net is then the identity. Of an x with
    `extra_channels` behind the image, the image alone is added.
    """

    may_predict_residual = True

    def __init__(self, config: UNetConfig) -> None:
        if config.predict_residual and config.in_channels != config.out_channels:
            raise ValueError(
                f"--predict_residual True adds {config.in_channels} input channels to "
                f"{config.out_channels} output channels: make them equal"
            )
        super().__init__(config)

    def forward(
        self, x: Tensor, size: tuple[int, int] | None = None, y: Tensor | None = None
    ) -> Tensor:
        """Return an image (N, out_channels, *size).

        Args:
            x: (N, x_channels, h, w), in [-1, 1] an image.
            size: to which `x` is upsampled bilinearly before all else; None: `x` has it already.
            y: (N,) labels in [0, num_classes); None exactly for a net without classes.

        Raises:
            ValueError: the net is `consistent`, and `size` is no multiple of that of `x`; or labels
                are missing, or not in range.
        """
        upsampled = x if size is None else resize_linear(x, size)
        output = self._run(upsampled, self._embed(x.shape[0], y))
        channels = self.config.in_channels
        if self.config.predict_residual:
            output = upsampled[:, :channels] + output
        return project(output, x[:, :channels]) if self.config.consistent else output


class VarianceModel(TimeFreeBase):
    """The time-free net that maps two images, side by side in the channels, to a variance.

    `last_layer_type` makes the output positive: exp, sigmoid (hence at most 1) or softplus; with
    none it may be negative. It has no parameters.
    """

    num_input_images = 2
    has_last_layer = True

    def forward(self, x: Tensor, mean: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return variances.

        Args:
            x: (N, x_channels, h, w), the low-res image in [-1, 1]; at the size
                of `mean` it is used as it is. Without `mean` the two side by side.
            mean: (N, in_channels, H, W), the predicted mean.
            y: as for `UNetModel`.

        Returns:
            (N, out_channels, H, W), in the squared unit of the images.
        """
        if mean is not None:
            x = torch.cat([resize_linear(x, tuple(mean.shape[2:])), mean.to(x.dtype)], dim=1)
        return last_layer(self._run(x, self._embed(x.shape[0], y)), self.config.last_layer_type)


class TimeConditionedBase(UNetBase):
    """The part that the two denoisers share: the embedding of the timestep and the class."""

    is_time_conditioned = True

    def _embed(self, batch_size: int, timesteps: Tensor, y: Tensor | None) -> Tensor:
        """Return the sum (N, 4 * model_channels) of the embeddings of time and class."""
        emb = self._embed_time(batch_size, timesteps)
        require_labels(y, self.config.num_classes, batch_size)
        if y is None:
            return emb
        is_embedded = y.is_floating_point() and y.shape == emb.shape
        if is_embedded and self.config.num_classes is not None:
            return emb + y
        return emb + self.embed_labels(y)


class TimeConditionedUNet(TimeConditionedBase):
    """The denoiser of a diffusion process: it knows the timestep and, optionally, the class."""

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the model output for noisy images.

        Args:
            x: (N, in_channels, H, W), the noisy image x_t.
            timesteps: (N,), integer or fractional, in units of the base process.
            y: (N,) labels in [0, num_classes), or their embeddings from `embed_labels`;
                None exactly for a net without class condition.

        Returns:
            (N, out_channels, H, W), in the dtype of `x`.
        """
        return self._run(x, self._embed(x.shape[0], timesteps, y))


class SuperResModel(TimeConditionedBase):
    """The denoiser that also sees a low-res image, upsampled and appended to the channels.

    With `predict_residual` that image is added to the first `in_channels` output channels, those
    that predict an image; the channels of a learned variance stay as they are.
    """

    num_input_images = 2
    may_predict_residual = True

    def forward(
        self, x: Tensor, timesteps: Tensor, low_res: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """Return the model output for noisy images given their low-res images.

        Args:
            x: (N, in_channels, H, W), the noisy image x_t.
            timesteps: (N,), integer or fractional, in units of the base process.
            low_res: (N, x_channels, h, w), in [-1, 1] an image; at the size of
                `x` it is used as it is.
            y: as for `TimeConditionedUNet`.

        Returns:
            (N, out_channels, H, W), in the dtype of `x`.
        """
        given = x.shape[1] - self.config.in_channels + self.config.x_channels
        wanted = (x.shape[0], given)
        if low_res.ndim != x.ndim or low_res.shape[:2] != wanted:
            raise ValueError(
                f"low_res of shape {tuple(low_res.shape)} does not fit x of shape "
                f"{tuple(x.shape)}: batch, channels and number of axes must agree"
            )
        upsampled = resize_linear(low_res, tuple(x.shape[2:])).to(x.dtype)
        emb = self._embed(x.shape[0], timesteps, y)
        output = self._run(torch.cat([x, upsampled], dim=1), emb)  # (N, out_channels, H, W)
        if not self.config.predict_residual:
            return output
        num_rest = output.shape[1] - x.shape[1]
        return output + F.pad(upsampled[:, : x.shape[1]], (0, 0) * self.config.dims + (0, num_rest))

    def condition(
        self, low_res: Tensor, size: tuple[int, ...], y: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute once what every step of a sampling loop would compute again.

        `model(x, timesteps, **model.condition(low_res, x.shape[2:], y))` equals
        `model(x, timesteps, low_res, y)`.

        Args:
            low_res: as for `forward`.
            size: spatial shape of the images to be sampled.
            y: (N,) labels, or None.

        Returns:
            `low_res` of the spatial shape `size` and, with labels, `y` (N, 4 * model_channels).

        Raises:
            ValueError: the net has no classes, or `y` is not a vector of labels in range.
        """
        kwargs = {"low_res": resize_linear(low_res, size)}
        return kwargs if y is None else {**kwargs, "y": self.embed_labels(y)}
