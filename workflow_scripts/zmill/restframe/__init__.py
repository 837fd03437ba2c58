"""Rest-frame spectra: SEDs from files, emission lines, PCA templates."""
