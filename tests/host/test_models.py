"""Models as sizes: what they make of products, and which of those there are."""

from __future__ import annotations

import pytest

from deep_gemm import problems_of_model
from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.models import ALIASES, MODELS, dense_shapes, expert_shapes, model_of
from deep_gemm.errors import ArgumentError


def test_products_of_deepseek_v3() -> None:
    model = model_of("DeepSeek-V3")
    dense = {(2112, 7168), (1536, 7168), (576, 7168), (24576, 1536), (32768, 512), (7168, 16384)}
    mlp = {(36864, 7168), (7168, 18432), (4096, 7168), (7168, 2048)}
    assert set(dense_shapes(model, [1])) == dense | mlp
    assert (3072, 1536) in dense_shapes(model, [8]) and (7168, 2048) in dense_shapes(model, [8])
    whole = [(256, 4096, 7168), (256, 7168, 2048)]
    assert expert_shapes(model, [1], []) == expert_shapes(model, [], [1]) == whole
    assert expert_shapes(model, [8], [32]) == [
        (8, 4096, 7168),
        (8, 7168, 2048),
        (256, 512, 7168),
        (256, 7168, 256),
    ]


def test_products_of_models_without_latents_or_shared_experts() -> None:
    qwen = model_of("qwen3-235b-a22b")
    assert dense_shapes(qwen, [1]) == [(4096, 8192), (9216, 4096)]
    # Eight devices share four heads of keys and values: each has one.
    assert dense_shapes(qwen, [8]) == [(1280, 4096), (4096, 1024)]
    indexer = {(8192, 1536), (128, 7168)}
    v3, v32 = (set(dense_shapes(model_of(name), [1])) for name in ("deepseek-v3", "deepseek-v3.2"))
    assert v32 - v3 == indexer


def test_experts_that_cannot_be_dealt_out_are_left_out() -> None:
    assert expert_shapes(model_of("glm-4.5"), [], [64]) == []
    assert len(expert_shapes(model_of("glm-4.5"), [], [32])) == 2


@pytest.mark.parametrize("name", MODELS)
def test_every_product_can_be_computed(name: str) -> None:
    model, tp = MODELS[name], (1, 2, 4, 8)
    shapes = [*dense_shapes(model, tp), *(shape[1:] for shape in expert_shapes(model, tp, tp))]
    assert len(shapes) >= 12 and model.source
    assert all(n % 8 == 0 and k % 16 == 0 and n > 0 and k > 0 for n, k in shapes)


def test_names() -> None:
    assert all(model_of(alias) is MODELS[name] for alias, name in ALIASES.items())
    assert model_of("GLM-4.6") is MODELS["glm-4.5"]
    with pytest.raises(ArgumentError, match="model: must be one of .*kimi-k2.*, got 'gpt-2'"):
        model_of("gpt-2")


def test_problems_of_a_model() -> None:
    problems = problems_of_model("kimi-k2", tp=[4], ep=[8], max_m=512, num_sms=78, alignment=64)
    assert all(every.problem.m == 1 and every.last_m == 512 for every in problems)
    assert {every.problem.num_sms for every in problems} == {78}
    grouped = [e.problem for e in problems if e.problem.grouping is Grouping.M_GROUPED]
    assert {(problem.num_groups, problem.alignment) for problem in grouped} == {
        *((384, 64), (384, 1), (48, 64), (48, 1)),
    }
    assert len({every.problem for every in problems}) == len(problems)


def test_problems_for_another_architecture() -> None:
    for arch, num_sms in (("90a", 132), ("100a", 148)):
        problems = problems_of_model("deepseek-v3", tp=[8], ep=[64], arch=arch)
        found = {(every.problem.arch, every.problem.num_sms) for every in problems}
        assert found == {(arch, num_sms)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "90"}, "argument arch: must be one of 90a, 100a, 103a, got '90'"),
        ({"tp": [0]}, "argument tp: must be a positive int, got 0"),
        ({"ep": [2, True]}, "argument ep: must be a positive int, got True"),
        ({"max_m": 1.5}, "argument max_m: must be a positive int, got 1.5"),
        ({"num_sms": -1}, "argument num_sms: must be a positive int, got -1"),
        ({"alignment": "1"}, "argument alignment: must be a positive int, got '1'"),
    ],
)
def test_wrong_numbers_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        problems_of_model("deepseek-v3", **arguments)  # type: ignore[arg-type]
