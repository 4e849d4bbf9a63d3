"""What is measured on a trained model, and on its images."""

EVALUATION = 2
"""Version of what a result holds besides the suite's metrics. Finished cells with an older one are measured again
from their saved weights: raise it whenever a diagnostic is added or changes its meaning."""
