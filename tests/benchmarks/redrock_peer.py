"""Runs redrock on spectra, with the Python of its own environment (peers.sh FOLDER redrock.txt): `redrock_peer.py JOB.npz TEMPLATES OUT.json`.

The job has `wave` (p), `flux` and `ivar` (n, p). TEMPLATES is a folder of rrtemplate-*.fits. Spectra are given with a resolution of one
pixel, because the templates are those of the instrument's resolution. `seconds` are processor seconds of `zfind`, those of its child process
included; `prepare_seconds` those of putting the templates on the wavelengths of the survey at all redshifts, once for all spectra.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import scipy.sparse
from redrock.targets import DistTargetsCopy, Spectrum, Target
from redrock.templates import DistTemplate, Template
from redrock.zfind import zfind


def processor_seconds() -> float:
    """Of this process and its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(job: str, folder: str, out: str) -> None:
    """Fit and write."""
    found = np.load(job)
    wave = found["wave"]
    identity = scipy.sparse.dia_matrix((np.ones((1, len(wave))), [0]), shape=(len(wave), len(wave)))
    targets = [
        Target(number, [Spectrum(wave, flux.astype(float), ivar.astype(float), identity, identity.tocsr())])
        for number, (flux, ivar) in enumerate(zip(found["flux"], found["ivar"], strict=True))
    ]
    started = processor_seconds()
    known = DistTargetsCopy(targets)
    templates = [
        DistTemplate(Template(filename=name), known.wavegrids())
        for name in sorted(map(str, Path(folder).glob("rrtemplate-*.fits")))
    ]
    prepared = processor_seconds()
    _, fits = zfind(known, templates, mp_procs=1)
    ended = processor_seconds()
    best = fits[fits["znum"] == 0]
    best.sort("targetid")
    answer = {name: np.asarray(best[name]).tolist() for name in ("targetid", "z", "zwarn", "chi2", "deltachi2")}
    answer["spectype"] = [str(name) for name in best["spectype"]]
    answer |= {"seconds": ended - prepared, "prepare_seconds": prepared - started}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
