"""The names that engines import: each is a plain function with the reference's arguments, aliases
are one object, submodules are there, and what cannot run is absent."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import deep_gemm
from deep_gemm import utils

# What is added in later versions comes behind; keyword-only arguments are older or forks' names.
DENSE = (
    "a b d c=None recipe=None recipe_a=None recipe_b=None compiled_dims='{}' "
    "disable_ue8m0_cast=False alpha=None epilogue=None"
)
GROUPED = (
    "recipe=None recipe_a=None recipe_b=None compiled_dims='nk' disable_ue8m0_cast=False "
    "{}epilogue=None"
)
PSUM = "use_psum_layout=False ensure_zero_padding=True "
MASKED = "a b d masked_m expected_m " + GROUPED.format("")
OVERLAP = " * enable_overlap=False max_block_n=None signal=None"
SIGNATURES = {
    "fp8_gemm_nt": DENSE.format("nk"),
    "fp8_gemm_nn": DENSE.format("nk"),
    "fp8_gemm_tn": DENSE.format("mn"),
    "fp8_gemm_tt": DENSE.format("mn"),
    "m_grouped_fp8_gemm_nt_contiguous": (
        "a b d grouped_layout=None "
        + GROUPED.format(PSUM + "expected_m_for_psum_layout=None ")
        + " * m_indices=None"
    ),
    "m_grouped_fp8_gemm_nn_contiguous": (
        "a b d grouped_layout=None " + GROUPED.format(PSUM) + " * m_indices=None"
    ),
    "m_grouped_fp8_gemm_nt_masked": MASKED + OVERLAP,
    "k_grouped_fp8_gemm_nt_contiguous": (
        "a b d ks_cpu=None grouped_layout=None c=None recipe=(1,1,128) compiled_dims='mn' "
        "use_psum_layout=False epilogue=None * ks=None ks_tensor=None use_padded_sf_layout=False"
    ),
    "gemm_fp8_fp8_bf16_nt": "lhs rhs out disable_ue8m0_cast=False",
    "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous": "lhs rhs out m_indices disable_ue8m0_cast=False",
    "m_grouped_gemm_fp8_fp8_bf16_nt_masked": (
        "lhs rhs out masked_m expected_m disable_ue8m0_cast=False"
    ),
    "wgrad_gemm_fp8_fp8_fp32_nt": "lhs rhs out",
    "k_grouped_wgrad_gemm_fp8_fp8_fp32_nt": "lhs rhs out batch_sizes",
    "get_theoretical_mk_alignment_for_contiguous_layout": "expected_m=None num_groups=None",
    "transform_sf_into_required_layout": (
        "sf mn k recipe num_groups=None is_sfa=None disable_ue8m0_cast=False psum_layout=None"
    ),
    "fp8_mqa_logits": (
        "q kv weights cu_seq_len_k_start cu_seq_len_k_end clean_logits=None max_seqlen_k=0 "
        "logits_dtype=torch.float32 * schedule_meta=None"
    ),
    "get_paged_mqa_logits_metadata": "context_lens block_kv num_sms indices=None",
    "fp8_paged_mqa_logits": (
        "q kv_cache weights context_lens block_table schedule_meta max_context_len "
        "clean_logits=False logits_dtype=torch.float32 indices=None"
    ),
    "get_tma_aligned_size": "mn element_size",
    "get_mn_major_tma_aligned_tensor": "sf",
    "get_mn_major_tma_aligned_packed_ue8m0_tensor": "sf psum_layout=None",
    "get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor": (
        "sf grouped_layout=None ks_cpu=None gran_k=128 k_alignment=None use_psum_layout=False "
        "* ks=None ks_tensor=None"
    ),
    "utils.math.ceil_to_ue8m0": "x",
    "utils.math.pack_ue8m0_to_int": "x",
    "utils.math.unpack_ue8m0_from_int": "packed_sf",
    "per_token_cast_to_fp8": "x use_ue8m0 gran_k=128 use_packed_ue8m0=False",
    "per_channel_cast_to_fp8": "x use_ue8m0 gran_k=128",
    "per_block_cast_to_fp8": "x use_ue8m0 gran_k=128",
    "per_custom_dims_cast_to_fp8": "x dims use_ue8m0",
    "per_token_cast_to_fp4": "x use_ue8m0 gran_k=128 use_packed_ue8m0=False",
    "transpose_packed_fp4": "a",
    "cast_back_from_fp4": "packed sf gran_k=128 use_packed_ue8m0=False",
    "testing.bench": "fn num_warmups=5 num_tests=10 high_precision=False",
    "testing.bench_kineto": (
        "fn kernel_names num_tests=30 suppress_kineto_output=False trace_path=None flush_l2=True "
        "with_multiple_kernels=False barrier=None"
    ),
    "testing.calc_diff": "x y",
    "testing.count_bytes": "*tensors",
    "testing.assert_bitwise_equal": "x y label=''",
    "testing.get_arch_major": "",
    "testing.test_filter": "condition",
    "testing.ignore_env": "name condition",
    "utils.dist.init_dist": "local_rank num_local_ranks",
    "utils.dist.uneven_all_gather": "tensor dim=0 group=None",
    "utils.dist.dist_print": "s='' once_in_node=False",
}

ALIASES = {
    "fp8_gemm_nt": ["fp8_fp4_gemm_nt"],
    "fp8_gemm_nn": ["fp8_fp4_gemm_nn"],
    "fp8_gemm_tn": ["fp8_fp4_gemm_tn"],
    "fp8_gemm_tt": ["fp8_fp4_gemm_tt"],
    "m_grouped_fp8_gemm_nt_contiguous": ["m_grouped_fp8_fp4_gemm_nt_contiguous"],
    "m_grouped_fp8_gemm_nn_contiguous": ["m_grouped_fp8_fp4_gemm_nn_contiguous"],
    "m_grouped_fp8_gemm_nt_masked": [
        "m_grouped_fp8_fp4_gemm_nt_masked",
        "fp8_m_grouped_gemm_nt_masked",
    ],
    "fp8_mqa_logits": ["fp8_fp4_mqa_logits"],
    "fp8_paged_mqa_logits": ["fp8_fp4_paged_mqa_logits"],
    "get_mk_alignment_for_contiguous_layout": [
        "get_m_alignment_for_contiguous_layout",
        "get_k_alignment_for_contiguous_layout",
    ],
    "get_mn_major_tma_aligned_tensor": ["get_col_major_tma_aligned_tensor"],
    "testing.bench": ["bench"],
    "testing.bench_kineto": ["bench_kineto"],
    "testing.calc_diff": ["calc_diff"],
}

SUBMODULES = {
    "utils": "align ceil_div ceil_to_ue8m0 get_tma_aligned_size per_token_cast_to_fp8 init_dist",
    "utils.math": (
        "align ceil_div ceil_to_ue8m0 pack_ue8m0_to_int unpack_ue8m0_from_int "
        "per_token_cast_to_fp8 per_channel_cast_to_fp8 per_block_cast_to_fp8 "
        "per_custom_dims_cast_to_fp8 per_token_cast_to_fp4 transpose_packed_fp4 cast_back_from_fp4"
    ),
    "utils.layout": "transform_sf_into_required_layout get_mn_major_tma_aligned_tensor",
    "utils.dist": "init_dist uneven_all_gather dist_print",
    "testing": "empty_suppress suppress_stdout_stderr bench_kineto",
    "legacy": "gemm_fp8_fp8_bf16_nt wgrad_gemm_fp8_fp8_fp32_nt",
    "jit_kernels.utils": "set_num_sms get_num_sms get_tma_aligned_size ceil_div",
}

# Nothing here runs so far, or on SM90 at all; engines take a name for a promise.
ABSENT = """
    fp8_fp4_mega_moe bf16_mega_moe mega_mhc bf16_mega_gate
    get_symm_buffer_for_mega_moe transform_weights_for_mega_moe get_block_m_for_mega_moe
    fp8_fp4_sparse_mqa_logits fp8_fp4_paged_sparse_mqa_logits get_sparse_mqa_logits_metadata
    get_paged_sparse_mqa_logits_metadata cublaslt_gemm_nt cublaslt_gemm_nn cublaslt_gemm_tn
    cublaslt_gemm_tt cublaslt_nvfp4_gemm_nt get_compile_mode set_compile_mode compile_only
    batched_syrk batched_symm fp4_gemm_nt m_grouped_fp4_gemm_nt_contiguous mega _C epilogue
    locality_domain
"""


def resolve(path: str) -> object:
    found: object = deep_gemm
    for name in path.split("."):
        found = getattr(found, name)
    return found


def as_text(function: object) -> str:
    """A signature as SIGNATURES writes it."""
    words, keyword_only = [], False
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            words, keyword_only = [*words, "*"], True
        name = (
            f"*{parameter.name}" if parameter.kind is parameter.VAR_POSITIONAL else parameter.name
        )
        default = repr(parameter.default).replace(" ", "")
        words.append(name if parameter.default is parameter.empty else f"{name}={default}")
    return " ".join(words)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    assert as_text(resolve(name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", sorted(deep_gemm.__all__))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(deep_gemm, name)
    if name != "__version__":
        assert inspect.getdoc(found)
    if callable(found) and not inspect.isclass(found):
        assert inspect.isfunction(found), "engines read signatures, which builtins do not have"


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    stub = Path(deep_gemm.__file__).with_suffix(".pyi")
    places = {
        f"{node.module}.{name.asname}"
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for name in node.names
        if name.name == name.asname
    }
    packages = {f"deep_gemm.{name}" for name in ("operators", *deep_gemm._PACKAGES)}
    names = {f"deep_gemm.{m}.{name}" for m, names in deep_gemm._NAMES.items() for name in names}
    assert places == packages | names | {"deep_gemm._version.__version__"}
    assert set(deep_gemm.__all__) <= set(dir(deep_gemm))


def test_the_names_of_utils_are_those_that_their_modules_have() -> None:
    for module, names in utils._NAMES.items():
        found = {name: getattr(getattr(utils, module), name) for name in names}
        assert all(getattr(utils, name) is value for name, value in found.items())
    # Its stub has them by a star.
    for module in ("layout", "math"):
        assert set(getattr(utils, module).__all__) == set(utils._NAMES[module])
    assert set(utils.__all__) <= set(dir(utils))


@pytest.mark.parametrize("name", ["*", "align", "layout", "math", "per_token_cast_to_fp8"])
def test_a_name_of_utils_may_be_what_a_process_imports_first(name: str) -> None:
    code = f"from deep_gemm.utils import {name}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'deep_gemm' has no attribute 'fp8_gem'"):
        deep_gemm.fp8_gem  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'fp8_gem'"):
        from deep_gemm import fp8_gem  # noqa: F401


@pytest.mark.parametrize("name", ALIASES)
def test_aliases_are_the_same_object(name: str) -> None:
    assert all(resolve(alias) is resolve(name) for alias in ALIASES[name])


@pytest.mark.parametrize("module", SUBMODULES)
def test_submodules_are_there_after_import_of_the_package(module: str) -> None:
    """As attributes, without an import of their own, and for `from .. import`."""
    names = SUBMODULES[module].split()
    code = f"import deep_gemm\nmodule = deep_gemm.{module}\n"
    code += f"for name in {names}:\n    getattr(module, name)\n"
    code += f"from deep_gemm.{module} import {', '.join(names)}\n"
    code += f"from deep_gemm.{module} import *\n" + "\n".join(names)
    run = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    result = subprocess.run(run, cwd=root, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ABSENT.split())
def test_what_cannot_run_is_absent(name: str) -> None:
    assert not hasattr(deep_gemm, name)
    with pytest.raises(AttributeError):
        getattr(deep_gemm, name)


def test_star_import_gives_every_public_name() -> None:
    scope: dict[str, object] = {}
    exec("from deep_gemm import *", scope)
    assert set(deep_gemm.__all__) <= set(scope)
