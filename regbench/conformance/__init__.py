"""The checks behind :mod:`regbench.testing` and ``regbench check``."""
