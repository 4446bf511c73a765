"""What breaks runs, done to a small one: its end must be, bit for bit, that of a run which nothing happened to."""
