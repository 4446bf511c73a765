"""Detection and instance segmentation: MViTv2 with a feature pyramid, Mask R-CNN and Cascade Mask R-CNN.

Read ``detector`` first; it says what goes in and comes out. ``config`` has the numbers and ``variants`` the published
models; then, in the order of computation: ``preparing`` (pixels), ``anchors`` and ``rpn`` (proposals), ``pooling``,
``box_head``, ``roi_heads`` (the cascade), ``mask_head``, ``selecting`` (detections), ``pasting`` (masks in the image).
What training adds: ``matching`` (objects to boxes), ``losses``, ``mask_targets``, ``initial`` (initial values).

The definition is detectron2 (commit 02b5c4e2), number for number; tests/parity holds it. RoIAlign, IoU and NMS are
torchvision's, from the extra ``detect``.
"""
