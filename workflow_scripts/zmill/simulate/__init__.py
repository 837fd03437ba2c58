"""Simulated surveys."""

INSTRUMENTS = ("gaia", "euclid", "spherex")
"""Instruments of simulated spectra: files of this folder that have a function `instrument`."""
