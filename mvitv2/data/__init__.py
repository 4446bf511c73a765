"""Files to pixels: reading images robustly, transforms as frozen data, folders of classes, the built-in digits.

Import from the modules: ``sources`` (paths), ``images`` (one file), ``transforms`` (pixels to tensors), ``folder``
and ``digits`` (data sets). Nothing here is imported by ``import mvitv2``.
"""
