"""What became of the rows that were converted: how many were set aside and why, and what was wrong with single bands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from zmill.inputs.photometry.states import FAULTS


@dataclass
class Counts:
    """What became of rows.

    rows : all of them.
    rejected : rows that were set aside, by reason.
    faults : of the other rows, those with a fault in a band, by band and fault; `E(B-V)` stands beside the bands.
    unusable : of the other rows, those that have no band left for the faults of their bands.
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
        """Rows that were not set aside."""
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
        """Why these rows are no survey, where more than half of them are lost; None where they are one."""
        lost = self.rejected.total() + self.unusable
        if not self.rows or lost <= self.rows / 2:
            return None
        told = [f"{reason}: {number}" for reason, number in self.rejected.most_common()]
        if self.unusable:
            told.append(f"no usable band: {self.unusable}, with {'; '.join(self.by_fault())}")
        return (
            f"{lost} of {self.rows} rows are of no use, more than half ({', '.join(told)}): the survey definition does not fit "
            "the files; check columns, angle_unit, photometry, errors and sentinels (docs/refusals.md)"
        )

    def by_fault(self) -> list[str]:
        """A line per fault of single bands: rows per band."""
        names = dict.fromkeys(fault for faults in self.faults.values() for fault in faults)
        return [
            f"{name}: " + ", ".join(f"{faults[name]} in {band}" for band, faults in self.faults.items() if faults[name])
            for name in names
        ]

    def lines(self) -> list[str]:
        """The same for a person: with what each fault is and what became of the bands."""
        meanings = {**FAULTS, "ebv_out_of_range": "E(B-V) is out of range; it is unknown"}
        return [f"{line} of {self.rows} rows ({meanings[line.split(':')[0]]})" for line in self.by_fault()]
