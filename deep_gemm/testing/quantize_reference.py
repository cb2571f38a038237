"""What the casts to FP8 must give, in plain PyTorch: the kernels give the same bits.

On a CPU, NaN is made that of a GPU, so that every device returns the same bits: 0x7fffffff in
scale factors and 0x7f in data. Processors differ in its sign.
"""

from __future__ import annotations

import torch

from deep_gemm.utils.math import ceil_div, ceil_to_ue8m0

FP8_MAX = 448.0
# A block of zeros still needs a scale factor that can be divided by.
MIN_AMAX = 1e-4


def cast_blocks_reference(
    x: torch.Tensor, rows: int, cols: int, use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per block of rows x cols, the last blocks padded with zeros.

    Args:
        x: [m, n] of a real dtype, any strides.
        rows, cols: of a block.
        use_ue8m0: round the scale factors up to powers of two.

    Returns:
        data: [m, n] float8_e4m3fn, contiguous.
        sf: [ceil(m / rows), ceil(n / cols)] FP32, contiguous.
    """
    m, n = x.shape
    padded = torch.nn.functional.pad(x.float(), (0, -n % cols, 0, -m % rows))
    blocks = padded.reshape(ceil_div(m, rows), rows, ceil_div(n, cols), cols)
    sf = scale_factors_reference(blocks.abs().amax(dim=(1, 3)), use_ue8m0)
    data = scaled_reference(blocks, sf[:, None, :, None])
    return data.reshape(padded.shape)[:m, :n].contiguous(), sf


def scale_factors_reference(amax: torch.Tensor, use_ue8m0: bool) -> torch.Tensor:
    """The scale factors, FP32, that map blocks' largest magnitudes to the largest FP8 value."""
    # PyTorch turns a division by a number into a product on a GPU, which may be one ulp off; a
    # division by a tensor is one, so that every device returns the same bits.
    sf = amax.clamp(min=MIN_AMAX) / torch.full((), FP8_MAX, device=amax.device)
    return ceil_to_ue8m0(sf) if use_ue8m0 else _with_nan_of_a_gpu(sf)


def scaled_reference(x: torch.Tensor, sf: torch.Tensor) -> torch.Tensor:
    """x * (1 / sf) as FP8, rounded to nearest even; infinity becomes 448."""
    # Only an infinity over a power of two is above 448 but for rounding. What becomes of it is said
    # here because PyTorch has changed that: a NaN before 2.12, 448 since.
    scaled = (x * (1.0 / sf)).clamp(-FP8_MAX, FP8_MAX)
    return _with_nan_of_a_gpu(scaled).to(torch.float8_e4m3fn)


def silu_mul_reference(
    gate: torch.Tensor, up: torch.Tensor, clamp: float | None = None
) -> torch.Tensor:
    """SiLU(gate) * up in FP32, every operation rounded once: gate / (1 + exp(-gate)) * up.

    Args:
        gate, up: of one shape and a real dtype.
        clamp: limits gate from above, and up from both sides, first.
    """
    gate, up = gate.float(), up.float()
    if clamp is not None:
        gate, up = gate.clamp(max=clamp), up.clamp(-clamp, clamp)
    return gate / (1.0 + torch.exp(-gate)) * up


def _with_nan_of_a_gpu(x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu":
        return x
    nan = torch.full((), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    return torch.where(x.isnan(), nan, x)
