"""Everything that depends on photometry: conversion, states, extinction, imputation, features, flags and missing bands."""

from zmill.inputs.photometry.kind import PhotometryKind

KIND = PhotometryKind
