"""Towers, localiser and the bundle they travel in."""
