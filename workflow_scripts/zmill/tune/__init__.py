"""Searches for the settings of models on the validation rows: search spaces, resumable trials, and results."""
