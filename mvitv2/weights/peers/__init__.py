"""The peers' own configurations, read into :class:`~mvitv2.core.config.MViTConfig`: one module per family of code."""
