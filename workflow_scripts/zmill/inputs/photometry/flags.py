"""Bits of the column `flags` that photometry sets."""

from __future__ import annotations

IMPUTED, UNDETECTED, UNOBSERVED, FEW_BANDS = 2, 4, 8, 32
"""A band of the row was imputed, undetected, unobserved; fewer than two bands were measured."""
BITS = {"imputed": IMPUTED, "undetected": UNDETECTED, "unobserved": UNOBSERVED, "few_bands": FEW_BANDS}
