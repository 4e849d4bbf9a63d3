"""Speed against peers and limits, run by hand from a checkout: ``python -m benchmarks.cpu``."""
