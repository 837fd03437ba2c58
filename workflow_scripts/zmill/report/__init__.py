"""The report: one HTML file with the results of a run, their accuracy and their provenance."""
