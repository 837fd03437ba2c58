"""Releases: immutable folders of a finished catalogue, published by an atomic switch of the link `current`."""
