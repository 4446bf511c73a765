"""The command line: words to calls. Every command is a file with its options, its examples and a ``run``."""
