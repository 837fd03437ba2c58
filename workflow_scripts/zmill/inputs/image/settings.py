"""The section `image:` of the survey definition."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Tag, model_validator

from zmill.sections import Name, Section, Text, shown
from zmill.sentinels import as_number, one_of

MOST_BANDS, MOST_SIZE, MOST_PIXELS = 31, 1024, 1 << 20
"""Most bands, pixels on a side, and pixels of all bands together: 4 MB of a stamp."""
Names = Annotated[
    list[Text],
    Field(min_length=1, max_length=MOST_BANDS),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]
"""One column of all bands; a column per band, with `{band}` in its name; or a list of columns, one for each band."""
Unit = Annotated[float, Field(gt=0, ge=1e-40, le=1e40)]
Width = Annotated[float, Field(gt=0, le=60)]


def _number_or_dict(value: Any) -> Any:
    value = as_number(value)
    if not isinstance(value, float | dict):
        raise ValueError(f"expected a number, or a number per band, found {shown(value)}")
    return value


def _number_dict_or_column(value: Any) -> Any:
    value = as_number(value)
    if not isinstance(value, float | dict | str):
        raise ValueError(f"expected a number, a number per band or the name of a column, found {shown(value)}")
    return value


FluxUnit = Annotated[
    Annotated[Unit, Tag("is-number")] | Annotated[dict[Name, Unit], Tag("is-per-band")],
    one_of({float: "is-number", dict: "is-per-band"}),
    BeforeValidator(_number_or_dict),
]
PsfWidth = Annotated[
    Annotated[Width, Tag("is-number")]
    | Annotated[dict[Name, Width], Tag("is-per-band")]
    | Annotated[Text, Tag("is-column")],
    one_of({float: "is-number", dict: "is-per-band", str: "is-column"}),
    BeforeValidator(_number_dict_or_column),
]


class ImageSettings(Section):
    """The section `image:`: a stamp in each row, a square of pixels in several bands."""

    bands: Annotated[list[Name], Field(min_length=1, max_length=MOST_BANDS)]
    """Names of the planes of a stamp, in the order in which they are stored. They need not be the bands of the photometry."""
    size: Annotated[int, Field(ge=4, le=MOST_SIZE)]
    """Pixels on a side."""
    pixel_scale: Width
    """Width of a pixel in arcsec."""
    flux: Names
    """Column of the fluxes of all pixels of all bands; a column per band, with `{band}` in its name; or a list of columns, one for each
    band. Fluxes are linear and in one unit: no magnitudes, no pictures for the eye."""
    ivar: Names | None = None
    """Inverse variances of the fluxes, in columns like those of `flux`, or in one column of one number per band; 0 is the mask."""
    error: Names | None = None
    """Standard deviations of the fluxes instead; 0 and below are the mask. Without `ivar` and `error`, each band of a stamp has one
    error, estimated from the scatter of its outermost pixels."""
    mask: Names | None = None
    """Integers or logical values per pixel, in columns like those of `flux`; those that are not 0 mask a pixel."""
    mask_bits: list[Annotated[int, Field(ge=0, le=62)]] | None = None
    """Only these bits of `mask` mask a pixel; left out, every bit."""
    mask_means: Literal["bad", "good"] = "bad"
    """Meaning of values of `mask` that are not 0."""
    missing: Annotated[list[Annotated[float, Field(ge=-1e38, le=1e38)]], Field(max_length=10)] = []
    """Values of `flux` that stand for a pixel that was not measured, such as -99. NaN always does."""
    order: Literal["bands_first", "bands_last"] = "bands_first"
    """Order of the numbers of a column of all bands: (bands, size, size), or (size, size, bands). Files that state another shape are
    refused."""
    noise: Literal["band", "pixel"] = "band"
    """What is stored: one inverse variance per band of a stamp, or one per pixel, which takes up twice the space. Files with inverse
    variances, errors or masks that differ from pixel to pixel need `pixel`."""
    psf_fwhm: PsfWidth | None = None
    """Width of the point spread function in arcsec, full width at half maximum: a number, a number per band, or a column of one number
    per band."""
    flux_unit: FluxUnit = 1.0
    """A stored flux of 1, in the unit of the file: a number, or a number per band where bands have other units."""
    source: dict[Name, Any] | None = None
    """Where the stamps are, if not in the survey's own files: `type` names one of `zmill/inputs/image/sources/`, which has the other keys.
    The columns of this section are then those of the stamps."""
    edge: Text | None = None
    """Logical column: the stamp reaches beyond the edge of its image. Left out, stamps of which a complete outer row or column is
    masked do."""

    @model_validator(mode="after")
    def _consistent(self) -> ImageSettings:
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("bands: name each band once")
        if len(self.bands) * self.size**2 > MOST_PIXELS:
            raise ValueError(f"size: a stamp has at most {MOST_PIXELS:,} pixels in all bands")
        if self.ivar and self.error:
            raise ValueError("give `ivar` or `error`, not both")
        for key in ("flux", "ivar", "error", "mask"):
            names = getattr(self, key)
            if names and len(names) > 1 and len(names) != len(self.bands):
                raise ValueError(
                    f"{key}: expected one column, or one for each of {len(self.bands)} bands, found {len(names)}"
                )
            if names and len(names) > 1 and len(set(names)) < len(names):
                raise ValueError(f"{key}: every band needs a column of its own")
        for key in ("psf_fwhm", "flux_unit"):
            value = getattr(self, key)
            if isinstance(value, dict) and set(value) != set(self.bands):
                raise ValueError(f"{key}: expected one number for each of {', '.join(self.bands)}")
        if (self.mask_bits is not None or self.mask_means == "good") and not self.mask:
            raise ValueError("mask_bits and mask_means need `mask`")
        if self.mask_bits is not None and self.mask_means == "good":
            raise ValueError("mask_bits: bits mark bad pixels: leave out mask_means")
        return self

    def columns(self, key: Literal["flux", "ivar", "error", "mask"]) -> list[str]:
        """The columns of a key: one, or one for each band; none where the key is left out."""
        names: list[str] = getattr(self, key) or []
        if len(names) == 1 and "{band}" in names[0]:
            return [names[0].replace("{band}", band) for band in self.bands]
        return names

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, size, size)."""
        return len(self.bands), self.size, self.size

    @property
    def noise_key(self) -> Literal["ivar", "error"] | None:
        """Which of `ivar` and `error` is given."""
        return "ivar" if self.ivar else "error" if self.error else None

    @property
    def units(self) -> list[float]:
        """`flux_unit` of each band."""
        given = self.flux_unit
        return [given[band] if isinstance(given, dict) else given for band in self.bands]
