"""The text: Multiscale Vision Transformers as equations, in Python and PyTorch and nothing else.

Read in this order: ``grid`` (how tokens lie), ``config`` (what a model is, as numbers), ``model`` (every layer,
top-down), ``relpos`` (equations 3 and 4 of the paper), ``attend`` and ``windows`` (how queries meet keys),
``reversible``, ``init``.
"""
