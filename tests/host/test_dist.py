"""deep_gemm.utils.dist, with two processes that gather by Gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deep_gemm.errors import ArgumentError, DeepGemmError
from deep_gemm.utils.dist import dist_print, init_dist

RANK = """
import sys
import torch
from deep_gemm.utils.dist import dist_print, init_dist, uneven_all_gather

local_rank = int(sys.argv[1])
rank, world_size, group = init_dist(local_rank, 2)
assert (rank, world_size, group.size()) == (local_rank, 2, 2)

def mine(rank):
    return torch.arange(12.0).view(4, 3)[: 1 + 2 * rank] + 100 * rank

both = torch.cat([mine(0), mine(1)])
assert torch.equal(uneven_all_gather(mine(rank)), both)
assert torch.equal(uneven_all_gather(mine(rank).t(), dim=1, group=group), both.t())
assert torch.equal(uneven_all_gather(mine(rank)[:rank]), mine(1)[:1])
dist_print(f"rank {rank}")
dist_print("node", once_in_node=True)
torch.distributed.destroy_process_group()
"""


def test_two_processes_gather_what_differs_in_size() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MASTER_PORT": port}
    for name in ("MASTER_ADDR", "WORLD_SIZE", "RANK"):
        environment.pop(name, None)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank)],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert [out for out, _ in said] == ["rank 0\nnode\n", "rank 1\n"]


@pytest.mark.parametrize("local_rank", [-1, 2])
def test_refuses_a_rank(local_rank: int) -> None:
    with pytest.raises(ArgumentError, match=rf"local_rank: must be in 0\.\.1, got {local_rank}"):
        init_dist(local_rank, 2)


def test_printing_before_joining_is_an_error() -> None:
    with pytest.raises(DeepGemmError, match="needs init_dist first"):
        dist_print("lost")
