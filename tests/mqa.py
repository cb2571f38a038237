"""Calls for MQA logits, and the checks that each of them passes on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from unittest import mock

import torch

import deep_gemm
from deep_gemm import mqa_logits
from deep_gemm.runtime.device import arch_of, is_sm100
from deep_gemm.testing import GuardedOutput, guarded_output
from deep_gemm.testing.mqa_reference import mqa_logits_reference, pages_of, visible_logits

Kv = tuple[torch.Tensor, torch.Tensor]

FP32, BF16 = torch.float32, torch.bfloat16

NAN_BYTE = 0x7F
"""NaN in FP8, and in every byte of a scale factor a NaN or a huge number."""

GARBAGE = -(2**31) + 5
"""What the table holds behind the pages in use: no page has this number."""

ERROR = 2.0**-9
"""Of a logit, relative to the sum of magnitudes. WGMMA cuts each of 32 products and what was summed
up before to 13 fractional bits below the largest, which is at most that sum: 33 * 2^-13 = 2^-8 if
all were cut by a whole bit in one direction."""

ERROR_SM100 = 2.0**-21
"""The same there, for random operands, where the emulator's logits are 2^-27 off. The worst case of
25 bits, four steps along head_dim and 35 FP32 roundings is 2^-17, but so far off nobody would see
whether products have 25 bits or 13."""


@dataclass(frozen=True)
class Shape:
    """Heads and head_dim; how the logits are stored, and which operands they are of.

    Attributes:
        heads, head_dim: of the queries.
        dtype: of the logits.
        is_exact: operands are small integers, so that every sum is exact.
    """

    heads: int
    head_dim: int
    dtype: torch.dtype = FP32
    is_exact: bool = True

    def __str__(self) -> str:
        kind = "integers" if self.is_exact else "normal"
        return f"h{self.heads}-d{self.head_dim}-{str(self.dtype)[6:]}-{kind}"

    def queries(self, tokens: int, device: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """q [tokens, heads, head_dim], and weights [tokens, heads] whose rows lie apart."""
        generator = torch.Generator().manual_seed(seed)
        q = self._values((tokens, self.heads, self.head_dim), generator)
        buffer = torch.full((tokens, self.heads + 5), math.nan)
        buffer[:, : self.heads] = self._values((tokens, self.heads), generator)
        return q.to(torch.float8_e4m3fn).to(device), buffer.to(device)[:, : self.heads]

    def keys(self, num_keys: int, device: str, seed: int) -> Kv:
        """Keys and their scale factors, powers of two where they are to be exact."""
        generator = torch.Generator().manual_seed(seed + 1000)
        values = self._values((num_keys, self.head_dim), generator).to(torch.float8_e4m3fn)
        sf = torch.rand(num_keys, generator=generator) + 0.1
        if self.is_exact:
            sf = torch.exp2(torch.randint(-3, 4, (num_keys,), generator=generator).float())
        return values.to(device), sf.to(device)

    def _values(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        if self.is_exact:
            return torch.randint(-2, 3, shape, generator=generator).float()
        return torch.randn(shape, generator=generator)


@dataclass
class Guards:
    """Takes the place of the library's allocation: outputs full of NaN between guard bytes."""

    outputs: list[GuardedOutput] = field(default_factory=list)

    def new_logits(
        self, rows: int, columns: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        step = -(-(columns + 64) // 256) * 256
        out = guarded_output(rows, columns, dtype, device, row_stride=step, guard_rows=16)
        self.outputs.append(out)
        return out.view

    def check(self) -> None:
        for out in self.outputs:
            out.check()


def check_logits(
    out: torch.Tensor, reference: torch.Tensor, scale: torch.Tensor, is_exact: bool, cleaned: bool
) -> None:
    """Every element: a logit where `reference` is finite; elsewhere -inf, or NaN as it was.

    Args:
        out: [tokens, width], which was full of NaN.
        reference: the same, FP64, with -inf where no key is seen.
        scale: of the errors, likewise.
        is_exact: whether logits are right to the bit.
        cleaned: what is expected where no key is seen.
    """
    is_seen = reference != -math.inf
    unseen = out[~is_seen]
    assert (unseen == -math.inf).all() if cleaned else unseen.isnan().all()
    got, wanted = out[is_seen], reference[is_seen]
    if is_exact:
        differs = got != wanted.to(out.dtype)
        assert not differs.any(), f"{int(differs.sum())} of {differs.numel()} logits differ"
        return
    rounding = 2.0**-8 if out.dtype == BF16 else 2.0**-22
    error = ERROR_SM100 if is_sm100(arch_of(out.device)) else ERROR
    limit = error * scale[is_seen] + rounding * wanted.abs()
    assert ((got.double() - wanted).abs() <= limit).all()


def check_matrix(
    shape: Shape,
    ranges: torch.Tensor,
    num_keys: int,
    device: str,
    cleans: bool = True,
    width: int = 0,
    seed: int = 0,
) -> torch.Tensor:
    """One call of `fp8_mqa_logits`, on a guarded output.

    Args:
        shape: of the operands.
        ranges: [tokens, 2]: the keys that each token sees.
        num_keys: how many there are.
        device: where to call.
        cleans, width: as clean_logits and max_seqlen_k.
        seed: of the operands.

    Returns:
        The logits.
    """
    tokens = ranges.shape[0]
    q, weights = shape.queries(tokens, device, seed)
    kv = shape.keys(num_keys, device, seed)
    starts, ends = (column.int().contiguous().to(device) for column in ranges.unbind(1))
    guards = Guards()
    with mock.patch.object(mqa_logits, "new_logits", guards.new_logits):
        out = deep_gemm.fp8_mqa_logits(
            q, kv, weights, starts, ends, cleans, width, logits_dtype=shape.dtype
        )
    guards.check()
    logits, scale = mqa_logits_reference(q, kv, weights)
    wanted, scales = (visible_logits(x, starts, ends, width or None) for x in (logits, scale))
    check_logits(out, wanted, scales, shape.is_exact, cleans)
    return out


@dataclass(frozen=True)
class Pages:
    """A paged problem.

    Attributes:
        lens: of each sequence, one length for each of its tokens.
        page_keys: keys of a page.
        max_len: columns of the logits.
        one_dimensional: lengths are given per sequence: the last of `lens`, which must rise by 1.
    """

    lens: tuple[tuple[int, ...], ...]
    page_keys: int
    max_len: int = 300
    one_dimensional: bool = False

    def __str__(self) -> str:
        flag = "-1d" if self.one_dimensional else ""
        return f"b{len(self.lens)}-n{len(self.lens[0])}-page{self.page_keys}{flag}"

    def context_lens(self, device: str) -> torch.Tensor:
        rows = [row[-1] for row in self.lens] if self.one_dimensional else self.lens
        return torch.tensor(rows, dtype=torch.int32, device=device)


def paged_cache(
    shape: Shape, pages: Pages, device: str, seed: int
) -> tuple[list[Kv], torch.Tensor, torch.Tensor]:
    """Keys of each sequence, in pages that lie in no order among pages of NaN, and their table."""
    per_sequence = -(-pages.max_len // pages.page_keys)
    table = torch.full((len(pages.lens), per_sequence + 3), GARBAGE, dtype=torch.int32)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pages.lens) * per_sequence + 1, generator=generator).tolist()
    row = pages.page_keys * (shape.head_dim + 4)
    cache = torch.full((len(order), row + 16), NAN_BYTE, dtype=torch.uint8)
    keys = []
    for i, lens in enumerate(pages.lens):
        longest = min(max(lens), pages.max_len)
        kv = shape.keys(pages.max_len, "cpu", seed + i)
        keys.append((kv[0].to(device), kv[1].to(device)))
        for j, page in enumerate(pages_of((kv[0][:longest], kv[1][:longest]), pages.page_keys)):
            number = order[i * per_sequence + j]
            table[i, j] = number
            cache[number, :row] = page.flatten()
    strides = (row + 16, shape.head_dim + 4, shape.head_dim + 4, 1)
    view = cache.to(device).as_strided(
        (len(order), pages.page_keys, 1, shape.head_dim + 4), strides
    )
    return keys, view, table.to(device)


def check_pages(
    shape: Shape, pages: Pages, device: str, num_sms: int = 3, cleans: bool = False, seed: int = 0
) -> torch.Tensor:
    """One call of the metadata and of `fp8_paged_mqa_logits`, on a guarded output."""
    next_n = len(pages.lens[0])
    q, weights = shape.queries(len(pages.lens) * next_n, device, seed)
    keys, cache, table = paged_cache(shape, pages, device, seed)
    lens = pages.context_lens(device)
    schedule = deep_gemm.get_paged_mqa_logits_metadata(lens, pages.page_keys, num_sms)
    guards = Guards()
    with mock.patch.object(mqa_logits, "new_logits", guards.new_logits):
        out = deep_gemm.fp8_paged_mqa_logits(
            q.unflatten(0, (-1, next_n)),
            cache,
            weights,
            lens,
            table,
            schedule,
            pages.max_len,
            cleans,
            shape.dtype,
        )
    guards.check()
    for i, kv in enumerate(keys):
        rows = slice(i * next_n, (i + 1) * next_n)
        logits, scale = mqa_logits_reference(q[rows], kv, weights[rows])
        ends = torch.tensor(pages.lens[i], dtype=torch.int32, device=device)
        starts = torch.zeros_like(ends)
        wanted, scales = (visible_logits(x, starts, ends) for x in (logits, scale))
        check_logits(out[rows], wanted, scales, shape.is_exact, cleans)
    return out
