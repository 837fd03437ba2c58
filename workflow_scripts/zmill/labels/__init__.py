"""Spectroscopic redshifts: sources, quality on one scale, merging into one catalogue."""
