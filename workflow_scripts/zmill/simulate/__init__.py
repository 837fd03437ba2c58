"""Simulated surveys."""

INSTRUMENTS = ("gaia", "euclid", "spherex")
"""Instruments of simulated spectra: files of this folder that have a function `instrument`."""
IMAGERS = ("images", "images_lsst")
"""Simulated surveys of stamps: like SDSS and like LSST (`image_survey.py`)."""
