"""Tokens to answers: what a model is used for. Import from the modules; whole detectors are in ``detect``."""
