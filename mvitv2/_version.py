"""The version, said once; the build, the command line and the weights' provenance read it from here."""

__version__ = "0.1.0"
