"""Write the golden files anew: ``python -m tests.golden``."""

from .texts import HERE, golden

for path, text in golden().items():
    file = HERE / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
