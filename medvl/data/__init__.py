"""Cohorts and targets: what a model is trained on."""
