"""Packages of the wheel; everything else about the build is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # The CUDA headers are the JIT's include root: they are installed as data, at deep_gemm/csrc.
    packages=[*find_packages(include=["deep_gemm", "deep_gemm.*"]), "deep_gemm.csrc"],
    package_dir={"deep_gemm": "deep_gemm", "deep_gemm.csrc": "csrc"},
    package_data={
        "deep_gemm": ["py.typed", "*.pyi", "utils/*.pyi", "config/tuned/*.json"],
        "deep_gemm.csrc": ["**/*.cuh"],
    },
    include_package_data=False,
)
