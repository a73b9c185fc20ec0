"""Scans in, findings with evidence out."""
