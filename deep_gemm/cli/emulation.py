"""The demo without a GPU: a small problem through a real kernel, in the emulator."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch

from deep_gemm.cli.measure import Accuracy, accuracy_of, make_operands, make_output
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense

CONFIG = GemmConfig(128, 128, num_stages=5, num_math_warpgroups=2, cluster_m=2)

PROBLEM = GemmProblem(392, 200, 656, num_sms=CONFIG.cluster_size)
"""Ragged on every side. One cluster computes it all, block after block, and its ring of stages
wraps round: nothing of the kernel is left out but the other clusters, which would do the same."""


def emulate(seed: int, report: Callable[[str], object]) -> tuple[Accuracy, float]:
    """Runs PROBLEM with CONFIG's kernel in the emulator.

    Args:
        seed: of the operands.
        report: told what is going on, as it goes on.

    Returns:
        The result's accuracy, and the seconds of the emulated launch.

    Raises:
        EmulationError: the kernel broke a rule of PTX.
    """
    a, b = make_operands(PROBLEM, torch.device("cpu"), seed)
    d = make_output(PROBLEM, torch.device("cpu"))
    report(f"compiling {CONFIG.name}")
    selection = Selection(CONFIG, best_band(PROBLEM, CONFIG))
    plan = plan_dense(PROBLEM, selection, GemmTensors.of_matrices(*a, *b, d))
    report(f"emulating {CONFIG.name}")
    start = time.perf_counter()
    with warnings.catch_warnings():
        # That this is an emulation is what the demo itself says.
        warnings.filterwarnings("ignore", "CPU tensors", RuntimeWarning)
        plan.launch(*(tensor.data_ptr() for tensor in (a[0], b[0], d, a[1], b[1])))
    seconds = time.perf_counter() - start
    report("comparing with FP64")
    return accuracy_of(d, a, b), seconds
