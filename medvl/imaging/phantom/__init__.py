"""Synthetic patients: truth, anatomy, CT, reports, files."""
