"""Training of models: fit, calibrate, refit; stored models; evaluation and selection."""
