"""Template fit, flagship and redrock on real spectra: `python tests/benchmarks/real_spectra.py [--data FOLDER] [--peers ENV] [--flagship N]`.

The spectra of SDSS/BOSS with a reliable redshift of the pipeline (258), and those of FORS2 with a redshift (546). Both programs get the
same templates: a PCA of the SEDs of sed_library and brown2014_seds for galaxies, written in redrock's format, and redrock's own templates of quasars for
BOSS. Those of the SEDs of quasars are left out of the PCA. zmill's model is calibrated on one half of the spectra and applied to the other one, and the reverse.

With `--split redshift`, the spectra of one half have other redshifts than those of the other one: clusters of galaxies are not known from training.

A redshift is right if it differs from the published one by less than 1,000 km/s.

`<survey>_success`           zmill: mode of the density that the model writes
`<survey>_success_fit`       zmill: redshift of the highest likelihood, without prior
`<survey>_success_chosen`    zmill: mode, with the width of the prior of the coefficients, the number of polynomials and the error floor that have most right
                             redshifts on the other half; mean of `HALVINGS` random halvings
`<survey>_success_flagship`  `spectrum_resnet` trained on the other half and on N simulated spectra (`real_flagship.py`)
`<survey>_success_combined`  mode of the geometric mean of the densities of the template fit and of the flagship
`<survey>_success_redrock`
`<survey>_seconds`, `<survey>_seconds_redrock`   of one processor per spectrum
"""

from __future__ import annotations

import argparse
import itertools
import re
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from bench import ROOT, parser, report, table
from real_flagship import Simulator, trained
from redrock_runs import redrock

from zmill.config import load_survey
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models.spectrum_template import SpectrumTemplate, SpectrumTemplateSettings
from zmill.networks import template_fit
from zmill.pdf.grid import Grid
from zmill.pdf.points import summarize
from zmill.restframe import pca
from zmill.survey_definition import Survey
from zmill.units import LIGHT_SPEED_KM_S

DEFAULT = SpectrumTemplateSettings.model_validate({})
CHOICES = ((0.5, 0.25, 1.0), (1, 0, 3), (0.01, 0.03, 0.1))
"""Widths of the prior of the coefficients, numbers of polynomials, error floors."""
HALVINGS = 3
BLOCK = 0.02
"""Width in ln(1 + z) of the blocks of redshift: galaxies of a cluster, and their neighbors, are in one half."""
RIGHT = 1000.0
"""km/s."""
LONGEST = 10_100.0
"""Angstrom: pixels up to here are used, because redrock stops where its templates of quasars end at its lowest redshift."""
QUASARS = ("rrtemplate-QSO-LOZ-v1.1.fits", "rrtemplate-QSO-HIZ-v1.1.fits")
SEDS = ("sed_library/sed_templates.parquet", "brown2014_seds/seds.parquet")
FORS2: dict[str, Any] = {
    "tables": {"train": ["spectra.parquet"], "test": ["spectra.parquet"]},
    "columns": {"object_id": "name", "redshift": "redshift"},
    "spectrum": {
        "flux": "flux",
        "mask": "mask",
        "wavelength": {"column": "wavelength_angstrom", "unit": "angstrom", "air": True},
        "grid": {"start": 4460, "stop": 9240, "pixels": 1424},
    },
}


@dataclass(frozen=True)
class Sample:
    """Spectra of a survey with published redshifts. quasars : files of the templates of quasars."""

    name: str
    context: ModelContext
    rows: LabelledBatch
    quasars: tuple[str, ...] = ()


def boss(data: Path) -> Sample:
    """Galaxies and quasars whose redshift the pipeline does not warn of."""
    content = pq.read_table(data / "boss_spectra" / "boss_spectra.parquet")
    usable = pc.and_(pc.equal(content["ZWARNING"], 0), pc.not_equal(pc.utf8_trim_whitespace(content["OBJTYPE"]), "SKY"))
    usable = pc.and_(usable, pc.is_in(pc.utf8_trim_whitespace(content["CLASS"]), pa.array(["GALAXY", "QSO"])))
    return _sample(
        "boss", content.filter(usable), load_survey("boss", ROOT / "surveys"), "Z", Grid(0.0, 5.0, 2501), QUASARS
    )


def fors2(data: Path) -> Sample:
    """All spectra with a redshift."""
    content = pq.read_table(data / "fors2_spectra" / "spectra.parquet")
    content = content.filter(pc.greater(content["redshift"], 0))
    return _sample("fors2", content, Survey.model_validate(FORS2), "redshift", Grid(0.0, 1.7, 1701))


def _sample(
    name: str, content: pa.Table, survey: Survey, column: str, grid: Grid, quasars: tuple[str, ...] = ()
) -> Sample:
    kind = SpectrumKind.of(survey)
    assert kind is not None
    (batch,) = content.combine_chunks().to_batches()
    columns = SpectrumKind.convert(batch, survey, np.zeros(len(content))).columns
    flux, ivar = (np.asarray(columns[key].flatten(), np.float32).reshape(len(content), -1) for key in ("flux", "ivar"))
    z = content[column].to_numpy().astype(np.float64)
    used = int(np.searchsorted(kind.grid.wavelength, LONGEST))
    kind = replace(kind, grid=replace(kind.grid, pixels=used))
    rows = LabelledBatch(Spectra.of(flux[:, :used], ivar[:, :used], kind.grid), z, np.ones(len(z)))
    good = (rows.batch.good > 0) & np.isfinite(z)
    return Sample(name, ModelContext((kind,), grid, seed=1), rows.rows(good), quasars)


def galaxy_seds(data: Path, folder: Path) -> Path:
    """A file of the SEDs of galaxies in the libraries."""
    library, brown = (pq.read_table(data / name) for name in SEDS)
    names = [f"{row['library']}/{row['name']}" for row in library.select(["library", "name"]).to_pylist()]
    galaxies = [not re.search("qso|quasar|agn", name, re.IGNORECASE) for name in names]
    library = library.filter(pa.array(galaxies))
    names = [name for name, kept in zip(names, galaxies, strict=True) if kept]
    waves, fluxes = library["wave"].to_pylist(), library["flux"].to_pylist()
    names += [f"brown2014/{name}" for name in brown["name"].to_pylist()]
    for wanted, out in ((("wave", "wavelength", "wavelength_rest_angstrom"), waves), (("flux", "f_lambda"), fluxes)):
        out += brown[next(name for name in wanted if name in brown.column_names)].to_pylist()
    lists = pa.list_(pa.float64())
    pq.write_table(
        pa.table({"name": names, "wave": pa.array(waves, lists), "flux": pa.array(fluxes, lists)}),
        folder / "seds.parquet",
    )
    return folder / "seds.parquet"


def velocity(found: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(n,) km/s between redshifts."""
    return np.asarray(LIGHT_SPEED_KM_S * (found - z) / (1 + z))


def success(found: np.ndarray, z: np.ndarray) -> float:
    """Fraction of redshifts that are right."""
    return float(np.mean(np.abs(velocity(found, z)) < RIGHT))


def ours(sample: Sample, settings: SpectrumTemplateSettings, by: str) -> tuple[np.ndarray, np.ndarray, float]:
    """(n, grid.size) densities, (n,) redshifts of the highest likelihood; processor seconds per spectrum."""
    found = np.empty((len(sample.rows), sample.context.grid.size), np.float32)
    peak, used = np.empty(len(sample.rows)), 0.0
    for applied in halves(sample.rows.z, by):
        model = SpectrumTemplate(settings, sample.context)
        known = sample.rows.rows(~applied)
        model.fit(known, known, torch.device("cpu"), print)
        batch = sample.rows.batch[applied]
        started = time.process_time()
        density = model.predict(batch)
        used += time.process_time() - started
        found[applied] = density.numpy()
        peak[applied] = model.axis.z[model._likelihood(batch).argmax(1).numpy()]
    return found, peak, used / len(sample.rows)


def modes(sample: Sample, density: np.ndarray) -> np.ndarray:
    """(n,) modes of densities."""
    grid = sample.context.grid
    return np.asarray(summarize(grid.normalize(torch.as_tensor(density)), grid)["z_mode"].numpy())


def chosen(sample: Sample, settings: SpectrumTemplateSettings, by: str) -> tuple[float, list[str]]:
    """Success of the mode where `CHOICES` are made on the other half, mean of `HALVINGS` random halvings; and what was chosen."""
    model = SpectrumTemplate(settings.model_copy(update={"floor": (settings.floor[0],)}), sample.context)
    rows, z = sample.rows, sample.rows.z
    model.fit(rows, rows, torch.device("cpu"), print)  # for its templates; what it fits is fitted again below
    default = [one.precision for one in model._bases]

    def use(width: float, terms: int, floor: float) -> None:
        for one, precision in zip(model._bases, default, strict=True):
            one.precision = precision * (template_fit.WIDTH / width) ** 2
        model._polynomials, model.floor = template_fit.polynomials(model.axis.size, terms), floor

    combinations = list(itertools.product(*CHOICES))
    right = np.empty((len(combinations), len(rows)), bool)
    for number, one in enumerate(combinations):
        use(*one)
        peak = model.axis.z[model._likelihood(rows.batch).argmax(1).numpy()]
        right[number] = np.abs(velocity(peak, z)) < RIGHT
    rates, taken = [], []
    for seed in range(1, HALVINGS + 1):
        first, second = halves(z, by, seed)
        for known, applied in ((first, second), (second, first)):
            best = combinations[int(right[:, known].sum(1).argmax())]
            use(*best)
            model._calibrate(rows.rows(known))
            mode = summarize(model.predict(rows.batch[applied]), sample.context.grid)["z_mode"].numpy()
            rates.append(success(mode, z[applied]))
            taken.append("width {:g}, {} polynomials, floor {:g}".format(*best))
    return float(np.mean(rates)), taken


def flagship(sample: Sample, seds: Path, data: Path, simulated: int, by: str) -> np.ndarray:
    """(n, grid.size) densities of the network, each half of the spectra by the one that was trained on the other half."""
    simulator = Simulator(sample.context, seds, data if sample.quasars else None)
    density = np.empty((len(sample.rows), sample.context.grid.size), np.float32)
    for applied in halves(sample.rows.z, by):
        density[applied] = trained(simulator, sample.rows.rows(~applied), simulated).predict(sample.rows.batch[applied])
    return density


def halves(z: np.ndarray, by: str, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves of spectra with redshifts (n,), as masks: `object`, one by one; `redshift`, in blocks of `BLOCK`."""
    part = np.arange(len(z)) if by == "object" else np.floor(np.log1p(z) / BLOCK).astype(int)
    half = (np.random.default_rng(seed).permutation(part.max() + 1) % 2 == 0)[part]
    return half, ~half


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--components", type=int, default=DEFAULT.components)
    options.add_argument("--polynomial", type=int, default=DEFAULT.polynomial)
    options.add_argument(
        "--flagship", type=int, default=0, metavar="N", help="simulated spectra that the flagship is trained on"
    )
    options.add_argument("--split", choices=("object", "redshift"), default="object", help="how the halves are made")
    options.add_argument("--surveys", nargs="+", choices=("boss", "fors2"), default=["boss", "fors2"])
    arguments = options.parse_args()
    torch.set_num_threads(1)
    data: Path = arguments.data
    figures: dict[str, float | str | None] = {"components": arguments.components, "split": arguments.split}
    lines: list[list[Any]] = []
    for read in (boss, fors2):
        if read.__name__ not in arguments.surveys:
            continue
        sample = read(data)
        own, found = compared(sample, arguments)
        figures |= {f"{sample.name}_{name}": value for name, value in own.items()}
        low = sample.rows.batch.sn < np.median(sample.rows.batch.sn)
        for name, values in found.items():
            apart = np.abs(velocity(values, sample.rows.z))
            right = apart < RIGHT
            shares = [100 * float(right[part].mean()) for part in (slice(None), low, ~low)]
            lines.append([sample.name, name, len(right), *shares, float(np.median(apart[right]))])
    table(["survey", "", "spectra", "right, %", "of low S/N, %", "of high S/N, %", "median of right ones, km/s"], lines)
    print()
    report("real_spectra", figures)


def compared(sample: Sample, arguments: argparse.Namespace) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Figures of a sample, and (n,) redshifts by what found them."""
    z, data = sample.rows.z, arguments.data
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seds = galaxy_seds(data, folder)
        quasars = [data / "sed_library" / name for name in sample.quasars]
        settings = SpectrumTemplateSettings.model_validate(
            {
                "seds": (str(seds),),
                "templates": tuple(map(str, quasars)),
                "components": arguments.components,
                "polynomial": arguments.polynomial,
                "redshifts": (0.0, 1.7) if quasars else None,
            }
        )
        density, peak, seconds = ours(sample, settings, arguments.split)
        found = {"zmill, mode of the density": modes(sample, density), "zmill, highest likelihood": peak}
        figures = {"spectra": len(z), "success": success(found["zmill, mode of the density"], z)}
        figures |= {"success_fit": success(peak, z), "seconds": seconds}
        figures["success_chosen"], taken = chosen(sample, settings, arguments.split)
        print(f"{sample.name}: chosen on halves: {'; '.join(taken)}")
        if arguments.flagship:
            network = flagship(sample, seds, data, arguments.flagship, arguments.split)
            found["flagship, simulated and real"] = modes(sample, network)
            found["both, geometric mean"] = modes(sample, np.sqrt(density * network))
            figures["success_flagship"] = success(found["flagship, simulated and real"], z)
            figures["success_combined"] = success(found["both, geometric mean"], z)
        if arguments.peers:
            galaxies = folder / "galaxies.fits"
            redshifts = 10 ** np.arange(np.log10(1.001), np.log10(2.7), 3e-4) - 1
            pca.write(galaxies, _galaxies(sample, seds, arguments.components), "GALAXY", redshifts)
            batch, wave = sample.rows.batch, sample.context.of(SpectrumKind).grid.wavelength
            peer = redrock(arguments.peers, wave, batch.flux, batch.ivar, [galaxies, *quasars])
            found["redrock"] = peer.z
            figures |= {"success_redrock": success(peer.z, z), "seconds_redrock": peer.seconds / len(z)}
            figures["ratio_redrock"] = figures["seconds_redrock"] / seconds
    return figures, found


def _galaxies(sample: Sample, seds: Path, components: int) -> pca.Templates:
    """The templates that the model makes, on its axis."""
    model = SpectrumTemplate(DEFAULT, sample.context)
    made, _ = pca.of_seds([seds], model.axis.rest, model.resolution, components)
    return replace(made, wave=model.axis.rest.centers)


if __name__ == "__main__":
    main()
