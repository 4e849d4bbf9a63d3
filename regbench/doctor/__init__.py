"""Whether this machine can run suites; :func:`regbench.doctor.examination.examine` looks at everything."""
