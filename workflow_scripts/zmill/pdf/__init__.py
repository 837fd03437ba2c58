"""Redshift probability densities: grid, point estimates, compact storage, calibration, qp."""
