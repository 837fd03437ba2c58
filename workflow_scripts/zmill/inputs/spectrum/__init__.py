"""Everything that depends on spectra: wavelength grids, rebinning, conversion, normalization, flags and masking."""

from zmill.inputs.spectrum.kind import SpectrumKind

KIND = SpectrumKind
