"""What must not change unseen: schedules, names and shapes of every variant, and the public names.

``python -m tests.golden`` writes the files anew; a change of architecture is then a diff that a reader can judge.
"""
