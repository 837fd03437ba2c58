"""Releases: immutable folders of a finished catalogue, published by one atomic switch of the link `current`."""
