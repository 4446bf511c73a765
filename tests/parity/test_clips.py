"""A video file through torchvision's own preprocessing and model, and through ours: equal numbers and equal logits."""

import pytest
import torch

import mvitv2
from mvitv2.data.video.clips import ViewedClips
from mvitv2.data.video.files import ClipFiles
from mvitv2.data.video.reader import open_clip
from mvitv2.data.video.sampling import Sampling
from mvitv2.data.video.transforms import EvalClip
from mvitv2.preprocessing import KINETICS_TORCHVISION
from mvitv2.weights.load import load_model
from tests.clips import write_clip

pytest.importorskip("av", reason="needs PyAV, the extra video")
video = pytest.importorskip("torchvision.models.video", reason="torchvision is a development dependency")


@pytest.mark.slow
def test_torchvisions_model_and_transforms_on_a_file(tmp_path):
    write_clip(tmp_path / "clip.mp4", 64, fps=30, size=(120, 214))
    theirs = video.mvit_v2_s(weights=None).eval()
    ours = load_model(theirs.state_dict()).eval()
    sampling = Sampling.of(KINETICS_TORCHVISION)
    files = ClipFiles(tmp_path, ["clip.mp4"], ["0"], classes=None)
    clip, _ = ViewedClips(files, sampling, EvalClip(KINETICS_TORCHVISION))[0]
    with open_clip(tmp_path / "clip.mp4") as opened:
        frames = opened.frames(sampling.views(64, 30.0)[0])
    expected = video.MViT_V2_S_Weights.KINETICS400_V1.transforms()(frames)
    torch.testing.assert_close(clip, expected, rtol=0, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(ours(clip[None]), theirs(expected[None]), rtol=1e-4, atol=1e-4)
    assert isinstance(ours, mvitv2.MViT)
