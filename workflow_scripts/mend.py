"""Compare every file of a survey's results with its checksum; damaged files are restored, or written again by the next run."""

from pathlib import Path

from zmill.mend import mend
from zmill.workflow.job import job

with job(snakemake) as log:
    found = mend(Path(snakemake.params.results), every_byte=True)
    for sentence in found:
        log.warning("%s", sentence)
    log.info("%s", f"{len(found)} faults; run again to make good what is left" if found else "nothing is damaged")
