"""Rows of the MQA table: what is scored, its operands, and how any library is called with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch

from benchmarks.problems import HBM_BYTES_PER_US
from deep_gemm.testing.mqa_reference import mqa_logits_reference, pages_of

PAGE_KEYS = 64
FP8_FLOP_PER_US = 1.979e9
"""Dense FP8 of an H100 SXM, by its data sheet."""

CHECKED_TOKENS = 4
MAX_ERROR = 2.0**-9
"""Of a logit, relative to the sum of its terms' magnitudes: see tests/mqa.py."""

Check = Callable[[torch.Tensor], Iterator[float]]


@dataclass(frozen=True)
class Case:
    """A call that can be timed, and the errors of some of the logits that it returns."""

    launch: Callable[[], torch.Tensor]
    errors: Check


@dataclass(frozen=True)
class MqaProblem:
    """A row.

    Attributes:
        kind: causal and parallel, for keys in one matrix: all tokens at the end, or half of them in
            the middle, as in context parallelism. paged, for decoding, with ragged lengths.
        tokens: of the call; of pages the number of sequences.
        keys: that there are; of pages the longest length.
        heads, head_dim: of the queries.
        next_n: tokens of a sequence, of pages.
    """

    kind: str
    tokens: int
    keys: int
    heads: int
    head_dim: int
    next_n: int = 1

    def __str__(self) -> str:
        shape = f"{self.tokens}x{self.keys}-h{self.heads}-d{self.head_dim}"
        return f"{self.kind}-{shape}" + (f"-n{self.next_n}" if self.is_paged else "")

    @classmethod
    def parse(cls, name: str) -> MqaProblem:
        """The problem of a name."""
        kind, sizes, heads, head_dim, *rest = name.split("-")
        tokens, keys = map(int, sizes.split("x"))
        next_n = int(rest[0][1:]) if rest else 1
        return cls(kind, tokens, keys, int(heads[1:]), int(head_dim[1:]), next_n)

    @property
    def is_paged(self) -> bool:
        return self.kind == "paged"

    def ends(self) -> torch.Tensor:
        """The number of keys that each token sees, or each sequence has."""
        if self.is_paged:
            generator = torch.Generator().manual_seed(self.tokens)
            share = torch.rand(self.tokens, generator=generator) * 0.5 + 0.5
            return (share * self.keys).int().clamp(min=self.next_n)
        last = torch.arange(self.keys - self.tokens, self.keys) + 1
        if self.kind == "parallel":
            half = self.tokens // 2
            last[:half] = torch.arange(half) + self.keys // 2 - half + 1
        return last.clamp(min=0).int()

    @property
    def num_logits(self) -> int:
        return int(self.ends().sum()) * self.next_n

    @property
    def floor_us(self) -> float:
        """No faster than the tensor cores' nominal rate, or HBM with every byte once."""
        flop = 2 * self.num_logits * self.heads * self.head_dim
        keys = int(self.ends().sum()) if self.is_paged else self.keys
        num_bytes = keys * (self.head_dim + 4) + 4 * self.num_logits
        return max(flop / FP8_FLOP_PER_US, num_bytes / HBM_BYTES_PER_US)

    def case(self, library: ModuleType, device: str) -> Case:
        """The call of a library, on operands that are the same for all."""
        build = self._paged_case if self.is_paged else self._matrix_case
        return build(library, torch.Generator(device).manual_seed(0), device)

    def _normal(self, *shape: int, generator: torch.Generator) -> torch.Tensor:
        values = torch.empty(shape, device=generator.device).normal_(generator=generator)
        return values.to(torch.float8_e4m3fn)

    def _matrix_case(self, library: ModuleType, generator: torch.Generator, device: str) -> Case:
        q = self._normal(self.tokens, self.heads, self.head_dim, generator=generator)
        keys = self._normal(self.keys, self.head_dim, generator=generator)
        sf = torch.rand(self.keys, device=device, generator=generator)
        weights = torch.randn(self.tokens, self.heads, device=device, generator=generator)
        ends = self.ends().to(device)
        starts = torch.zeros_like(ends)

        def errors(logits: torch.Tensor) -> Iterator[float]:
            for token in range(0, self.tokens, max(1, self.tokens // CHECKED_TOKENS)):
                some = slice(token, token + 1)
                seen = int(ends[token])
                yield error_of(logits[some], seen, q[some], (keys, sf), weights[some])

        return Case(
            lambda: library.fp8_mqa_logits(
                q, (keys, sf), weights, starts, ends, clean_logits=False
            ),
            errors,
        )

    def _paged_case(self, library: ModuleType, generator: torch.Generator, device: str) -> Case:
        per_sequence = -(-self.keys // PAGE_KEYS)
        num_keys = self.tokens * per_sequence * PAGE_KEYS
        keys = self._normal(num_keys, self.head_dim, generator=generator)
        sf = torch.rand(num_keys, device=device, generator=generator)
        cache = pages_of((keys, sf), PAGE_KEYS)
        pages = torch.arange(len(cache), dtype=torch.int32, device=device)
        table = pages.view(self.tokens, per_sequence)
        shape = (self.tokens, self.next_n, self.heads, self.head_dim)
        q = self._normal(*shape, generator=generator)
        rows = self.tokens * self.next_n
        weights = torch.randn(rows, self.heads, device=device, generator=generator)
        lens = self.ends().to(device)[:, None].expand(-1, self.next_n).contiguous()
        num_sms = library.get_num_sms()
        schedule = library.get_paged_mqa_logits_metadata(lens, PAGE_KEYS, num_sms)
        operands = q, cache, weights, lens, table, schedule, self.keys

        def errors(logits: torch.Tensor) -> Iterator[float]:
            step = per_sequence * PAGE_KEYS
            for i in range(0, self.tokens, max(1, self.tokens // CHECKED_TOKENS)):
                own = slice(i * step, (i + 1) * step)
                some = slice(i * self.next_n, (i + 1) * self.next_n)
                kv = keys[own], sf[own]
                yield error_of(logits[some], int(lens[i, 0]), q[i], kv, weights[some])

        return Case(lambda: library.fp8_paged_mqa_logits(*operands, clean_logits=False), errors)


def error_of(
    logits: torch.Tensor,
    seen: int,
    q: torch.Tensor,
    kv: tuple[torch.Tensor, torch.Tensor],
    weights: torch.Tensor,
) -> float:
    """The worst logit's error, relative to the sum of its terms' magnitudes."""
    keys, sf = kv
    reference, scale = mqa_logits_reference(q, (keys[:seen], sf[:seen]), weights)
    error = (logits[:, :seen].double() - reference).abs() / scale.clamp(min=1e-30)
    return error.max().item() if error.numel() else 0.0


PROBLEMS = (
    *(
        MqaProblem(kind, tokens, keys, heads, head_dim)
        for kind in ("causal", "parallel")
        for tokens, keys in ((2048, 2048), (2048, 8192), (8192, 8192), (4096, 65536))
        for heads in (32, 64)
        for head_dim in (32, 64, 128)
    ),
    *(
        MqaProblem("paged", batch, keys, 64, 128, next_n)
        for batch, keys in ((32, 8192), (128, 8192), (256, 8192), (64, 65536))
        for next_n in (1, 2, 4)
    ),
)
