"""Searching the settings of models on the validation rows: spaces, trials that may be killed, and what came out."""
