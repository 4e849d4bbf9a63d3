"""Where worker processes run: :mod:`regbench.engines.base` is the boundary, each other module one engine."""
