"""Compiled passes over rows. Each is a function or class of arrays; only this folder knows how they are compiled (`simd`)."""
