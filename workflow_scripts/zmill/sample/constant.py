"""Warnings of training rows that carry no information; a model cannot use them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from zmill.inputs.base import InputKind
from zmill.workflow.warning import Warnings


def warn_of_constants(inputs: Sequence[InputKind], train: pa.Table, warnings: Warnings) -> None:
    """Warn of each part of the input that is the same in all training rows."""
    for kind in inputs:
        for part, (value, rows) in kind.read(train).constants().items():
            warnings.add(
                f"{part} is {value:g} in all {rows:,} training rows that have it: a constant carries no information on redshifts. Check "
                f"that {kind.source} of the survey definition names what the survey measured, and not a constant"
            )
