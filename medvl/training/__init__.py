"""Stages of a recipe and what they share."""
