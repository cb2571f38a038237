"""Runs the PTX that the JIT made, on NumPy: the second tenant behind runtime/launch.py."""
