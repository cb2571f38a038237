"""Measurements on a GPU, beside the packaged reference and cuBLASLt: `python -m benchmarks -h`."""
