"""Volumes: NIfTI, resampling, the input contract, Hounsfield checks, phantoms."""
