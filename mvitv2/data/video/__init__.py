"""Clips: video files to tensors, read frame by frame as they were filmed, sampled and cropped as the peers do it.

Read one clip::

    from mvitv2.data.video.reader import open_clip

    with open_clip("dog.mp4") as clip:
        clip.info  # frames, fps, seconds, size, rotation, codec, streams, which library reads it
        clip.frames([0, 30, 60])  # (3, 3, H, W) uint8: frames by number, exact
        for frame in clip.stream():  # one after another in bounded memory: frame.time, frame.pixels (3, H, W)
            ...

Train and evaluate on many::

    from functools import partial
    from mvitv2.data.video.clips import TrainingClips, ViewedClips, collate_clips
    from mvitv2.data.video.open import open_clips
    from mvitv2.data.video.sampling import Sampling
    from mvitv2.data.video.transforms import EvalClip, TrainClip
    from mvitv2.preprocessing import KINETICS

    sampling = Sampling.of(KINETICS)  # 16 frames, 4 apart at 30 a second
    makers = {
        "train": partial(TrainingClips, sampling=sampling, transform=TrainClip(KINETICS), repeats=2, on_error="skip"),
        "val": partial(ViewedClips, sampling=sampling, transform=EvalClip(KINETICS, crops=1), num_clips=5),
    }
    splits = open_clips("clips", makers)  # a folder, a list, shards, Kinetics, Something-Something v2
    splits["train"][SampleKey(index, seed)]  # (repeats, C, T, H, W), label: everything drawn from the seed
    splits["val"][index]  # (views, C, T, H, W), label: SlowFast's clip starts and crops, in its order
    DataLoader(splits["train"], batch_size, collate_fn=collate_clips)  # repeats become samples; bad clips are named

Go through a long file in bounded memory with ``windows.windows(clip, sampling)``. Mixup and cutmix take batches of
clips as they are (:class:`mvitv2.train.mixing.Mixing`).

Both sets are :class:`mvitv2.data.labelled.Labelled`, as sets of pictures are: ``classes``, ``labels``, ``order``,
``path``. One view or one repeat comes without its axis, as ``(C, T, H, W)``. ``transforms`` has the published
augmentations (``KINETICS_CLIPS``, ``SSV2_CLIPS``, ``MASKFEAT_CLIPS``), ``device`` does most of them on a GPU.

Import from the modules, which build on each other in this order: ``faults`` (errors and limits), ``info``, ``index``
and ``container`` (what is in a file), the readers ``pyav``, ``codec`` (torchcodec) and ``pictures``, ``reader`` (any of
them); ``sampling``, ``spatial``, ``transforms``, ``device``, ``windows``; ``files`` (where clips lie), ``clips``,
``open``; before training ``preflight`` and ``sheet``.

Needs the extra ``video``. Nothing here is imported by ``import mvitv2``.
"""
