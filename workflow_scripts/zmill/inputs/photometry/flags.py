"""Bits of the column `flags` that photometry sets."""

from __future__ import annotations

IMPUTED, UNDETECTED, UNOBSERVED, FEW_BANDS = 2, 4, 8, 32
BITS = {
    IMPUTED: "a band was imputed",
    UNDETECTED: "a band is undetected",
    UNOBSERVED: "a band was not observed",
    FEW_BANDS: "fewer than two bands measured (the PDF is little more than the prior)",
}
"""Bit -> its meaning."""
