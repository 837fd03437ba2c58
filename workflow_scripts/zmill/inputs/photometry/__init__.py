"""Everything that depends on photometry: conversion, states, extinction, imputation, colors, features, synthetic galaxies."""
