"""Bundles in the layouts of other software, and other projects' checkpoints as a start for ours."""
