"""Which of some measurements a table takes, and how it is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import cheapest
from deep_gemm.config.tuned_file import Entry, Timed, read
from deep_gemm.errors import ArgumentError
from deep_gemm.tuning.measurements import Measurement
from deep_gemm.tuning.tuner import tried
from deep_gemm.tuning.winners import entries_of, write_table

GPU = "NVIDIA H100 80GB HBM3"
PROBLEM = GemmProblem(16, 2112, 7168)
COSTS = tried(PROBLEM, 0)
WHOLE = [config for config in COSTS if config.cluster_k == 1]
SPLIT = [config for config in COSTS if config.cluster_k > 1]


def measured(config: GemmConfig, us: float | None, kernels: str = "new") -> Measurement:
    estimate = COSTS[config]
    return Measurement(GPU, "v", kernels, PROBLEM, config, us, estimate_us=estimate)


def entry(*found: Measurement) -> Entry:
    (only,) = entries_of(found)
    return only


def test_the_fastest_wins_and_the_model_s_choice_is_kept_beside_it() -> None:
    assert cheapest(PROBLEM) == WHOLE[0]
    found = entry(measured(WHOLE[0], 9.0), measured(WHOLE[5], 8.0), measured(WHOLE[3], 8.5))
    assert (found.best, found.model) == (Timed(WHOLE[5], 8.0), Timed(WHOLE[0], 9.0))
    assert found.split is None
    # Where that was not measured, nothing is made up.
    assert entry(measured(WHOLE[5], 8.0)).model is None


def test_of_equal_times_the_model_decides() -> None:
    near = [measured(WHOLE[0], 8.07), measured(WHOLE[5], 8.0), measured(WHOLE[3], 8.05)]
    assert entry(*near).best == Timed(WHOLE[0], 8.07)
    assert entry(*near[1:]).best == Timed(WHOLE[3], 8.05)
    # One hundredth is equal, two are not.
    assert entry(measured(WHOLE[0], 8.16), measured(WHOLE[5], 8.0)).best.config == WHOLE[5]


def test_split_k_counts_only_where_it_is_faster() -> None:
    whole = measured(WHOLE[0], 8.0)
    assert entry(whole, measured(SPLIT[0], 7.0)).split == Timed(SPLIT[0], 7.0)
    assert entry(whole, measured(SPLIT[0], 8.0)).split is None
    # Calls that may not split K need something too.
    assert entries_of([measured(SPLIT[0], 7.0)]) == []


def test_what_failed_is_no_winner() -> None:
    assert entries_of([measured(WHOLE[0], None)]) == []
    # Measured again, the last time counts, and a failure does not undo it.
    again = [measured(WHOLE[0], 9.0), measured(WHOLE[0], 7.0), measured(WHOLE[1], None)]
    assert entry(*again).best == Timed(WHOLE[0], 7.0)


def test_times_of_older_kernels_do_not_compete() -> None:
    old, new = measured(WHOLE[5], 5.0, "old"), measured(WHOLE[0], 8.0)
    assert entry(old, new).best == Timed(WHOLE[0], 8.0)
    assert entry(new, old).best == Timed(WHOLE[5], 5.0)


def test_a_table_is_written_whole_and_keeps_what_it_has(tmp_path: Path) -> None:
    first = Entry(PROBLEM, Timed(WHOLE[0], 8.0))
    second = Entry(replace(PROBLEM, m=8), Timed(WHOLE[1], 7.0))
    path, number = write_table(tmp_path / "new", GPU, [first])
    assert (path.name, number) == ("h100-80gb-hbm3.json", 1)
    assert write_table(path.parent, GPU, [second])[1] == 2
    better = first._replace(best=Timed(WHOLE[2], 6.0))
    assert write_table(path.parent, GPU, [better]) == (path, 2)
    assert read(path, GPU) == [second, better]
    assert list(path.parent.iterdir()) == [path]
    # A table of a GPU with other multiprocessors is not mixed in, and stays.
    text = path.read_text()
    with pytest.raises(ArgumentError, match="number of SMs"):
        write_table(path.parent, GPU, [Entry(replace(PROBLEM, num_sms=78), Timed(WHOLE[0], 9.0))])
    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]
