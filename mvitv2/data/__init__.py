"""Files to pixels: data in any form that people have, read robustly, checked, and made into tensors.

Import from the modules, which build on each other in this order:

- one picture: ``images``, ``colours``, ``transforms``, ``augment``, ``device_augment``;
- many: ``sources`` (paths), ``folder``, ``listed``, ``truth`` (ImageNet), ``shards``, ``hub``, ``digits``, all of them
  ``labelled``; ``open`` takes what people type;
- before training: ``preflight``, ``sheet``; for loading processes: ``samples``, ``watched``; for moving: ``pack``.

Nothing here is imported by ``import mvitv2``.
"""
