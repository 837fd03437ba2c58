"""Cross-match of spectra with survey objects by position."""
