"""Selecting settings on the held-out images, with the same number of trials for every method."""
