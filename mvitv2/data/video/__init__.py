"""Clips: video files to tensors, read frame by frame as they were filmed, sampled and cropped as the peers do it.

Read one clip::

    from mvitv2.data.video.reader import open_clip

    with open_clip("dog.mp4") as clip:
        clip.info  # frames, fps, seconds, size, rotation, codec, streams, which library reads it
        clip.frames([0, 30, 60])  # (3, 3, H, W) uint8: frames by number, exact
        for frame in clip.stream():  # one after another in bounded memory: frame.time, frame.pixels (3, H, W)
            ...

Import from the modules, which build on each other in this order: ``faults`` (errors and limits), ``info``, the readers
``pyav``, ``codec`` (torchcodec) and ``folder`` (frames as pictures), ``reader`` (any of them).

Needs the extra ``video``. Nothing here is imported by ``import mvitv2``.
"""
