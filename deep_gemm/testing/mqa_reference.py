"""What MQA logits must be, in FP64 from the operands as the kernels get them."""

from __future__ import annotations

import math

import torch

from deep_gemm.testing.reference import Operand


def mqa_logits_reference(
    q: torch.Tensor, kv: Operand, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every logit, whether its token sees the key or not, and what bounds its error.

    Args:
        q: [tokens, heads, head_dim] float8_e4m3fn.
        kv: keys [keys, head_dim] float8_e4m3fn, and scale factors [keys].
        weights: [tokens, heads].

    Returns:
        logits: [tokens, keys] FP64: (sum over heads of weights * relu(q . k)) * sf. NaN where an
            operand of the sum is.
        scale: the same of magnitudes: (sum over heads of |weights| * (|q| . |k|)) * |sf|.
    """
    keys, sf = kv
    q64, k64, w64, sf64 = q.double(), keys.double(), weights.double(), sf.double()
    products = torch.relu(torch.einsum("thd,kd->thk", q64, k64))
    magnitudes = torch.einsum("thd,kd->thk", q64.abs(), k64.abs())
    logits = torch.einsum("thk,th->tk", products, w64) * sf64
    scale = torch.einsum("thk,th->tk", magnitudes, w64.abs()) * sf64.abs()
    return logits, scale


def visible_logits(
    logits: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, width: int | None = None
) -> torch.Tensor:
    """What a call has to write: logits where a token sees the key, -inf elsewhere.

    Args:
        logits: [tokens, keys].
        starts, ends: [tokens] int: the keys that a token sees.
        width: columns of compressed logits, in which column 0 is the first key that is seen.

    Returns:
        [tokens, keys] or [tokens, width].
    """
    num_keys = logits.shape[1]
    shift = torch.zeros_like(starts) if width is None else starts
    columns = torch.arange(num_keys if width is None else width, device=logits.device)
    keys = columns[None] + shift[:, None].long()
    is_seen = (keys >= starts[:, None].clamp(min=0)) & (keys < ends[:, None].clamp(max=num_keys))
    if num_keys == 0:
        return logits.new_full(keys.shape, -math.inf)
    gathered = logits.gather(1, keys.clamp(0, num_keys - 1))
    return gathered.masked_fill(~is_seen, -math.inf)


def pages_of(kv: Operand, page_keys: int) -> torch.Tensor:
    """A paged cache that holds keys in order, the last page padded with zeros.

    Returns:
        [pages, page_keys, 1, head_dim + 4] uint8: of each page its keys' values, then their scale
        factors.
    """
    keys, sf = kv
    num_keys, head_dim = keys.shape
    pages = -(-num_keys // page_keys)
    padding = pages * page_keys - num_keys
    values = torch.nn.functional.pad(keys.view(torch.uint8), (0, 0, 0, padding))
    factors = torch.nn.functional.pad(sf.float(), (0, padding)).view(torch.uint8)
    halves = values.reshape(pages, page_keys * head_dim), factors.reshape(pages, page_keys * 4)
    return torch.cat(halves, dim=1).view(pages, page_keys, 1, head_dim + 4)
