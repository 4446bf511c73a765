"""Numerical identity with every peer, from golden fixtures made by running their own code."""
