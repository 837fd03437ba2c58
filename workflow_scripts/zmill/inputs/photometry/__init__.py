"""All that knows what a magnitude is: conversion, states, extinction, imputation, colors, features, synthetic galaxies."""
