"""The sample of labelled rows: split, weights, target, tables, and when models are retrained."""
