"""Losses as functions, with their sources."""
