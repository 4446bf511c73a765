"""Data sets of clips, in the forms that the peers hand them around in; bad clips are counted and named."""

import json
import tarfile
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mvitv2.data.labelled import DataError
from mvitv2.data.samples import SampleKey, sample_seed
from mvitv2.data.video.clips import TrainingClips, ViewedClips, collate_clips
from mvitv2.data.video.faults import ClipError
from mvitv2.data.video.open import open_clip_files, open_clips
from mvitv2.data.video.sampling import Sampling
from mvitv2.data.video.transforms import PLAIN_CLIPS, EvalClip, TrainClip
from mvitv2.preprocessing import Preprocessing
from tests.clips import numbers, picture, write_clip

pytest.importorskip("av", reason="needs PyAV, the extra video")

SAMPLING = Sampling(4, 2, None)
SMALL = Preprocessing(size=(32, 32), resize=32, num_frames=4, sampling_rate=2, interpolation="bilinear")
MAKERS = {
    "train": partial(TrainingClips, sampling=SAMPLING, transform=TrainClip(SMALL, PLAIN_CLIPS)),
    "val": partial(ViewedClips, sampling=SAMPLING, transform=EvalClip(SMALL)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of two classes; one clip of ``dog`` lies as pictures."""
    folder = tmp_path_factory.mktemp("clips")
    for split, count in (("train", 2), ("val", 1)):
        for name in ("cat", "dog"):
            for number in range(count):
                write_clip(folder / split / name / f"{number}.mp4", 16 + number)
    frames = folder / "train" / "dog" / "frames"
    frames.mkdir()
    for index in range(9):
        Image.fromarray(picture(index)).save(frames / f"{index:05d}.png")
    return folder


def test_class_folders_of_clips_and_of_pictures(root):
    splits = open_clips(root, MAKERS)
    train, val = splits["train"], splits["val"]
    assert train.classes == val.classes == ("cat", "dog")
    assert train.counts == {"cat": 2, "dog": 3} and len(val) == 2
    assert train.path(4) == root / "train" / "dog" / "frames"
    clip, label = train[4]
    assert clip.shape == (3, 4, 32, 32) and label == 1
    assert sorted(train.order(seed=0, epoch=0)) == list(range(5))
    view, label = val[1]
    assert view.shape == (3, 4, 32, 32) and label == 1


def test_the_seed_in_the_key_decides_frames_and_augmentation(root):
    train = open_clips(root, MAKERS, need=("train",))["train"]
    keys = [SampleKey(0, sample_seed(1, epoch, 0)) for epoch in (0, 0, 1)]
    first, again, other = (train[key][0] for key in keys)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_views_come_in_slowfasts_order(root):
    files = open_clip_files(root, split="val")
    raw = ViewedClips(files, SAMPLING, num_clips=3)
    frames, _ = raw[0]  # 16 frames, 8 of them reached over: clips start at 0, 4, 8
    assert [numbers(clip) for clip in frames] == [[0, 2, 4, 7], [4, 6, 8, 11], [8, 10, 12, 15]]
    views = ViewedClips(files, SAMPLING, EvalClip(SMALL, crops=3), num_clips=3)[0][0]
    assert views.shape == (9, 3, 4, 32, 32)
    single = ViewedClips(files, SAMPLING, EvalClip(SMALL, crops=3))
    torch.testing.assert_close(single[0][0], views[3:6], rtol=0, atol=0)  # one clip alone lies in the middle
    with pytest.raises(ValueError, match="all are the same"):
        ViewedClips(files, Sampling(4, None, None), num_clips=2)


def test_repeats_are_other_clips_of_one_file_and_become_samples(root):
    files = open_clip_files(root, split="train")
    data = TrainingClips(files, SAMPLING, TrainClip(SMALL, PLAIN_CLIPS), repeats=3)
    clips, _ = data[SampleKey(0, 7)]
    assert clips.shape == (3, 3, 4, 32, 32) and not torch.equal(clips[0], clips[1])
    batch = collate_clips([data[0], data[3]])
    assert batch.images.shape == (6, 3, 4, 32, 32) and batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="repeats=0"):
        TrainingClips(files, SAMPLING, repeats=0)


def test_a_bad_clip_is_counted_and_named_and_nothing_takes_its_place(tmp_path, root):
    for name in ("cat", "dog"):
        write_clip(tmp_path / name / "good.mp4")
    bad = tmp_path / "cat" / "bad.mp4"
    bad.write_bytes((tmp_path / "cat" / "good.mp4").read_bytes()[:900])
    files = open_clip_files(tmp_path)
    data = TrainingClips(files, SAMPLING, TrainClip(SMALL, PLAIN_CLIPS), on_error="skip", repeats=2)
    batches = list(DataLoader(data, 3, collate_fn=collate_clips, num_workers=1))
    assert [batch.images.shape[0] for batch in batches] == [4]
    (named,) = batches[0].unreadable
    assert named.path == str(bad) and "cut off" in named.reason
    with pytest.raises(ClipError, match=r"bad.mp4: cannot be read as a video"):
        TrainingClips(files, SAMPLING, TrainClip(SMALL, PLAIN_CLIPS))[0]


LISTS = {
    "train.csv": "train/cat/0.mp4 0\ntrain/dog/1.mp4 1\n",  # SlowFast's, with a space
    "comma.csv": "train/cat/0.mp4,0\ntrain/dog/1.mp4,1\n",
    "named.csv": "video,label\ntrain/cat/0.mp4,cat\ntrain/dog/1.mp4,dog\n",
    "list.tsv": "path\tlabel\ntrain/cat/0.mp4\t0\ntrain/dog/1.mp4\t1\n",
    "list.txt": "train/cat/0.mp4 0\ntrain/dog/frames 1\n",
    "raw.txt": "train/dog/frames 9 1\n",  # mmaction2's
    "lines.jsonl": '{"video": "train/cat/0.mp4", "label": "cat"}\n{"video": "train/dog/1.mp4", "label": "dog"}\n',
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_as_the_peers_write_them(root, tmp_path, name):
    path = tmp_path / name
    path.write_text(LISTS[name])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    files = open_clip_files(path, data_root=root)
    assert files.classes == ("cat", "dog") and int(files.labels[-1]) == 1
    data = TrainingClips(files, SAMPLING)
    assert data[len(data) - 1][0].shape == (4, 3, 48, 64)


def test_slowfasts_list_of_frames(root, tmp_path):
    header = "original_vido_id video_id frame_id path labels\n"
    lines = [f'clip 0 {index} train/dog/frames/{index:05d}.png "1"' for index in range(9)]
    (tmp_path / "frames.csv").write_text(header + "\n".join(lines))
    files = open_clip_files(tmp_path / "frames.csv", data_root=root)
    assert len(files) == 1 and files.path(0) == root / "train" / "dog" / "frames"
    (tmp_path / "bare.csv").write_text(header + 'clip 0 0 train/dog/frames/00000.png ""\n')
    with pytest.raises(DataError, match=r"no label: clip; labels of Something-Something are in its .json files"):
        open_clip_files(tmp_path / "bare.csv", data_root=root)


def test_kinetics_annotations_take_the_clips_that_are_there(tmp_path):
    write_clip(tmp_path / "train" / "abc_000010_000020.mp4")
    rows = ["label,youtube_id,time_start,time_end,split", "riding a bike,abc,10,20,train", "juggling,gone,0,10,train"]
    rows.append("juggling,other,0,10,validate")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    files = open_clip_files(tmp_path / "train.csv", split="train")
    assert files.path(0).name == "abc_000010_000020.mp4" and files.classes == ("juggling", "riding a bike")
    assert files.notes == (f"1 of 2 clips that train.csv lists are not below {tmp_path}; they are left out",)


def test_something_something_as_it_comes(tmp_path):
    labels = {"Moving something up": "1", "Putting something on a surface": "0"}
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(labels))
    entries = [
        {"id": "12", "label": "moving a cup up", "template": "Moving [something] up"},
        {"id": "7", "label": "putting a pen on a surface", "template": "Putting [something] on a surface"},
    ]
    for split in ("train", "validation"):
        (tmp_path / f"something-something-v2-{split}.json").write_text(json.dumps(entries))
    for name in ("12", "7"):
        write_clip(tmp_path / "20bn-something-something-v2" / f"{name}.webm", codec="libvpx-vp9")
    splits = open_clips(tmp_path, MAKERS)
    assert splits["train"].classes == ("Putting something on a surface", "Moving something up")
    assert splits["val"].labels.tolist() == [1, 0]
    assert splits["val"][0][0].shape == (3, 4, 32, 32)


def test_shards_of_clips(root, tmp_path):
    path = tmp_path / "clips.tar"
    with tarfile.open(path, "w") as archive:
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "label").write_text(name)
            Image.new("RGB", (8, 8)).save(tmp_path / "still.jpg")
            archive.add(tmp_path / "still.jpg", f"{number:04d}.jpg")  # a picture beside a clip is not the clip
            archive.add(root / "train" / name / "0.mp4", f"{number:04d}.mp4")
            archive.add(tmp_path / "label", f"{number:04d}.cls")
    data = ViewedClips(open_clip_files(str(path)), SAMPLING)
    assert data.classes == ("cat", "dog") and str(data.path(1)).endswith("clips.tar/0001.mp4")
    assert numbers(data[1][0]) == [4, 6, 8, 11]


def test_what_is_missing_is_said(root, tmp_path):
    with pytest.raises(DataError, match=r"looked for test; there is train, val"):
        open_clips(root, MAKERS, need=("test",))
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no clip")
    with pytest.raises(DataError, match=r"hold no clips: cat"):
        open_clip_files(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "still.png")
    with pytest.raises(DataError, match=r"1 class folders hold no clips: cat"):
        open_clip_files(tmp_path)
    with pytest.raises(DataError, match="holds no clips; they lie in class folders"):
        open_clip_files("digits")
