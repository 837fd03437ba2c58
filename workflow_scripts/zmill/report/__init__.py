"""The report: one HTML file that shows what a run found, how well, and how it came to it."""
