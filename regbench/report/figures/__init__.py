"""The bundled figures, one file each; :mod:`regbench.report.bundled` offers them as a plugin."""
