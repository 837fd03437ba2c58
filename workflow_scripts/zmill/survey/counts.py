"""Counts of converted rows: rejected rows by reason, and faults of parts of rows, such as bands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from zmill.inputs.registry import kinds

MEANINGS = {
    **{fault: meaning for kind in kinds() for fault, meaning in kind.faults.items()},
    "ebv_out_of_range": "E(B-V) is out of range; it is unknown",
}
"""Meaning of each fault of a part of a row."""


@dataclass
class Counts:
    """Counts of converted rows.

    rows : number of all rows.
    rejected : number of rejected rows, by reason.
    faults : of the other rows, the number with a fault in a part (a band; `E(B-V)`), by part and fault.
    unusable : of the other rows, the number that have no usable measurement because of such faults.
    """

    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Counter[str]] = field(default_factory=dict)
    unusable: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of other rows."""
        self.rows += other.rows
        self.rejected.update(other.rejected)
        for band, faults in other.faults.items():
            self.faults.setdefault(band, Counter()).update(faults)
        self.unusable += other.unusable

    @property
    def kept(self) -> int:
        """Number of rows that were not rejected."""
        return self.rows - self.rejected.total()

    def json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "faults": {band: dict(sorted(faults.items())) for band, faults in self.faults.items()},
            "unusable": self.unusable,
        }

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Counts:
        """The inverse of `json`."""
        faults = {band: Counter(counts) for band, counts in values["faults"].items()}
        return cls(values["rows"], Counter(values["rejected"]), faults, values["unusable"])

    def refusal(self) -> str | None:
        """The reason to refuse these rows, where more than half of them are unusable; None otherwise."""
        lost = self.rejected.total() + self.unusable
        if not self.rows or lost <= self.rows / 2:
            return None
        reasons = [f"{reason}: {number}" for reason, number in self.rejected.most_common()]
        if self.unusable:
            reasons.append(f"no usable measurement: {self.unusable}, with {'; '.join(self.by_fault())}")
        return (
            f"{lost} of {self.rows} rows are of no use, more than half ({', '.join(reasons)}): the survey definition does not fit "
            "the files; check columns, angle_unit and what it states of the measurements (of photometry: photometry, errors and "
            "sentinels; docs/refusals.md)"
        )

    def by_fault(self) -> list[str]:
        """A line per fault: rows per part."""
        names = dict.fromkeys(fault for faults in self.faults.values() for fault in faults)
        return [
            f"{name}: " + ", ".join(f"{faults[name]} in {band}" for band, faults in self.faults.items() if faults[name])
            for name in names
        ]

    def lines(self) -> list[str]:
        """Log lines: the counts with the meaning of each fault."""
        return [f"{line} of {self.rows} rows ({MEANINGS[line.split(':')[0]]})" for line in self.by_fault()]
