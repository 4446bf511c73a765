"""Weights of every peer: files, names, releases."""
