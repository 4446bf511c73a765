"""AVA's files, its measure against figures worked out by hand, and boxes that go along with frames."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="clips are read by PyAV: the extra video")

from mvitv2.core.model import MViT
from mvitv2.data.actions import tables
from mvitv2.data.actions.boxes import CroppedFrames, WholeFrames
from mvitv2.data.actions.keyframes import ActionSample, Keyframes, action_files, around
from mvitv2.data.labelled import DataError
from mvitv2.data.samples import SampleKey
from mvitv2.data.video.transforms import ClipAugmentation
from mvitv2.preprocessing import Preprocessing
from mvitv2.tasks.actions import ActionMViT, RoIClassifier, tokens_per_pixel
from mvitv2.tasks.ava import BoxAP, average_precision
from mvitv2.tasks.detected import evaluate_actions
from tests import films, tiny

PREPARED = Preprocessing(
    size=(32, 32), resize=32, interpolation="bilinear", mean=(0.45,) * 3, std=(0.225,) * 3,
    num_frames=4, sampling_rate=2, fps=10.0,
)  # fmt: skip
LIST = """\
one,0002,0.10,0.20,0.50,0.90,1,0
one,0002,0.10,0.20,0.50,0.90,3,0
one,0002,0.55,0.10,0.95,0.80,2,1
one,0003,0.10,0.20,0.50,0.90,1,0
two,0002,0.00,0.00,0.40,0.50,2,0
"""
NAMES = 'item {\n  name: "bend"\n  id: 1\n}\nitem {\n  name: "sit"\n  id: 2\n}\nitem {\n  name: "run"\n  id: 3\n}\n'


def ava(folder: Path) -> Path:
    """Two films of five seconds, not square, and AVA's lists of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (folder / f"ava_{split}_v2.2.csv").write_text(LIST)
    (folder / "ava_action_list.pbtxt").write_text(NAMES)
    (folder / "ava_val_excluded_timestamps.csv").write_text("one,0003\n")
    for seed, name in enumerate(("one", "two")):
        films.write_film(
            folder / "videos" / f"{name}.mp4", films.moving_square(True, frames=50, size=(48, 80), seed=seed)
        )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ava(tmp_path_factory.mktemp("ava"))


def keyframes(data: Path, *, detected: bool = False) -> Keyframes:
    return Keyframes(action_files(data), "val", PREPARED, WholeFrames(PREPARED), detected=detected)


def read(frames: Keyframes, key: int | SampleKey) -> ActionSample:
    sample = frames[key]
    assert isinstance(sample, ActionSample)
    return sample


def test_lists_are_read(data: Path) -> None:
    frames = tables.read_keyframes(data / "ava_val_v2.2.csv")
    assert [frame.key for frame in frames] == ["one,0002", "one,0003", "two,0002"]
    assert frames[0].actions == ((0, 2), (1,))
    np.testing.assert_allclose(frames[0].boxes[1], [0.55, 0.10, 0.95, 0.80])
    assert action_files(data).classes == ["bend", "sit", "run"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one,2,0.1,0.2", "line 1 has 4 columns, expected video, second"),
        ("one,2,0.5,0.2,0.1,0.9,1,0", "is no left, top, right, bottom in parts of the frame"),
        ("one,2,0.1,0.2,0.5,120,1,0", "in parts of the frame"),
        ("one,2,0.1,0.2,0.5,x,1,0", "'x' is no number"),
        ("one,2,0.1,0.2,0.5,0.9,0,0", "action 0 must be a whole number, 1 to 3"),
        ("one,2,0.1,0.2,0.5,0.9,4,0", "action 4 must be a whole number, 1 to 3"),
    ],
)
def test_wrong_lines_are_told(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        tables.read_keyframes(tmp_path / "x.csv", num_classes=3)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no list of boxes such as ava_train_v2\.2\.csv; there is no \.csv at all"):
        action_files(tmp_path)
    (tmp_path / "my_val.csv").write_text(LIST)
    with pytest.raises(DataError, match=r"has no videos; expected videos/NAME\.mp4"):
        action_files(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        action_files(tmp_path / "nowhere")


def test_average_precision_by_hand() -> None:
    """Four detections, two of three true boxes found at ranks 1 and 3: precision 1 to recall 1/3, then 2/3 to 2/3."""
    found = average_precision([0.9, 0.8, 0.7, 0.6], [True, False, True, False], 3)
    assert found == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    # precision is the best at that recall or beyond: a miss before two hits lowers both
    assert average_precision([0.9, 0.8, 0.7], [False, True, True], 2) == pytest.approx(2 / 3)
    assert average_precision([], [], 2) == 0
    assert average_precision([0.5], [False], 0) is None


def test_the_measure_by_hand() -> None:
    """Two keyframes: a double detection, a box that is a little off, one that is too far off, an action nobody does."""
    ap = BoxAP(3)
    box, off, far = [0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.5], [0.2, 0.2, 0.6, 0.6]  # overlaps 0.8 and 1/7
    scores = np.array([[0.9, 0.2, 0.1], [0.8, 0.1, 0.1], [0.7, 0.9, 0.1]])
    ap.add(np.array([box, off, far]), scores, np.array([box, far]), [(0,), (1,)])
    ap.add(np.array([far]), np.array([[0.6, 0.3, 0.2]]), np.array([box]), [(0,)])
    # action 0: hit 0.9, double 0.8, far 0.7, far 0.6 of two true boxes; action 1: hit 0.9 of one
    assert ap.average_precision(0) == pytest.approx(0.5)
    assert ap.average_precision(1) == pytest.approx(1.0)
    assert ap.average_precision(2) is None
    assert ap.mean() == pytest.approx(0.75)
    assert ap.mean([0]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="there is no true box of any action that counts"):
        ap.mean([2])


def test_lists_and_tables_count_alike() -> None:
    boxes = np.array([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.5]])
    scores = np.array([[0.9, 0.3], [0.8, 0.4]])
    table, lists = BoxAP(2), BoxAP(2)
    table.add(boxes, scores, boxes[:1], [(0, 1)])
    lines = [(box, number, scores[row, number]) for row, box in enumerate(boxes) for number in range(2)]
    lists.add_lists(lines, [(boxes[0], 0), (boxes[0], 1)])
    assert table.to_dict({0: "a", 1: "b"}) == lists.to_dict({0: "a", 1: "b"})


def test_a_box_goes_to_the_true_box_it_overlaps_most_alone() -> None:
    """As the official evaluation does: a second detection of a found box takes no other box that it overlaps less."""
    ap = BoxAP(1)
    one, two = [0.0, 0.0, 0.4, 1.0], [0.1, 0.0, 0.5, 1.0]
    ap.add(np.array([one, one]), np.array([[0.9], [0.8]]), np.array([one, two]), [(0,), (0,)])
    assert ap.average_precision(0) == pytest.approx(0.5)


def test_frames_around_a_keyframe() -> None:
    """16 frames, every 4th, from 32 before to 28 after (SlowFast ``get_sequence``)."""
    times = np.arange(300) / 30
    record = Preprocessing(num_frames=16, sampling_rate=4, fps=30.0)
    assert around(5, times, 10.0, record) == list(range(150 - 32, 150 + 32, 4))
    assert around(0, times, 10.0, record) == [0] * 8 + list(range(0, 32, 4))
    assert around(904, times, 10.0, record) == list(range(120 - 32, 120 + 32, 4))  # cut from the 900th second on


def test_whole_frames_keep_their_shape_and_boxes_are_in_their_pixels(data: Path) -> None:
    sample = read(keyframes(data), 0)
    assert sample.clip.shape == (3, 4, 32, 53)
    torch.testing.assert_close(sample.boxes[0], torch.tensor([0.1 * 53, 0.2 * 32, 0.5 * 53, 0.9 * 32]))
    assert sample.actions.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_boxes_go_along_with_crops_and_flips() -> None:
    """A white box on black: after any crop and flip the box is where the white is."""
    frames = torch.zeros(4, 3, 60, 100, dtype=torch.uint8)
    frames[:, :, 18:42, 30:60] = 255
    box = torch.tensor([[0.3, 0.3, 0.6, 0.7]])
    transform = CroppedFrames(
        Preprocessing.from_dict({**PREPARED.to_dict(), "mean": [0.0] * 3, "std": [1.0] * 3}),
        ClipAugmentation(jitter=(32, 40), policy=None, erase_probability=0.0, flip=0.5),
    )
    for seed in range(20):
        torch.manual_seed(seed)
        np.random.seed(seed)
        clip, moved = transform(frames, box)
        x1, y1, x2, y2 = moved[0].tolist()
        white = (clip[0, 0] > 0.5).nonzero()
        assert clip.shape == (3, 4, 32, 32)
        if x2 - x1 < 1:
            assert len(white) == 0
            continue
        (top, left), (bottom, right) = white.amin(0).tolist(), white.amax(0).tolist()
        np.testing.assert_allclose([x1, y1, x2, y2], [left, top, right + 1, bottom + 1], atol=1.01)


def test_a_key_decides_the_crop(data: Path) -> None:
    augmentation = ClipAugmentation(jitter=(36, 44), policy=None, erase_probability=0.0)
    frames = Keyframes(action_files(data), "train", PREPARED, CroppedFrames(PREPARED, augmentation))
    one, again, other = (read(frames, SampleKey(0, seed)) for seed in (1, 1, 2))
    assert torch.equal(one.clip, again.clip)
    assert not torch.equal(one.boxes, other.boxes)


def detector(num_classes: int = 3) -> MViT:
    torch.manual_seed(0)
    return tiny.model(tiny.clip(num_classes=num_classes))


def test_the_scale_is_that_of_the_model() -> None:
    pytest.importorskip("torchvision", reason="RoIAlign comes with the extra 'video'")
    model = detector()
    assert tokens_per_pixel(model) == RoIClassifier(model).scale == 1 / 8
    with pytest.raises(ValueError, match="boxes in clips need a model for clips"):
        tokens_per_pixel(tiny.model(tiny.image()))


def test_boxes_in_training_are_those_of_the_detector() -> None:
    pytest.importorskip("torchvision", reason="RoIAlign comes with the extra 'video'")
    plain = detector()
    trained = ActionMViT(plain.config)
    trained.load_state_dict(plain.state_dict())
    clips, boxes = torch.randn(2, 3, 4, 32, 56), torch.tensor([[0, 3.0, 4.0, 30.0, 28.0], [1, 10.0, 0.0, 50.0, 30.0]])
    with torch.no_grad():
        torch.testing.assert_close(trained.eval()(clips, boxes), RoIClassifier(plain)(clips, boxes))
        torch.testing.assert_close(trained(clips), plain(clips))


def test_evaluation_on_whole_frames(data: Path) -> None:
    """Excluded keyframes do not count; the measure is that of the lines that it writes."""
    pytest.importorskip("torchvision", reason="RoIAlign comes with the extra 'video'")
    files = action_files(data)
    found = evaluate_actions(detector(), keyframes(data), files.names, keep=True)
    assert (found.keyframes, found.boxes, found.detected, found.unreadable) == (2, 3, False, [])
    assert len(found.lines) == 9
    by_hand = BoxAP(3)
    for key, true in (("one", [(0, [0.1, 0.2, 0.5, 0.9]), (2, [0.1, 0.2, 0.5, 0.9]), (1, [0.55, 0.1, 0.95, 0.8])]),
                      ("two", [(1, [0.0, 0.0, 0.4, 0.5])])):  # fmt: skip
        lines = [(np.array(box), action, score) for video, _, box, action, score in found.lines if video == key]
        by_hand.add_lists(lines, [(np.array(box), action) for action, box in true])
    assert found.precision.mean() == pytest.approx(by_hand.mean())


def test_detected_people_stand_for_the_true_boxes(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="RoIAlign comes with the extra 'video'")
    folder = ava(tmp_path)
    (folder / "ava_val_predicted_boxes.csv").write_text(
        "one,0002,0.1,0.2,0.5,0.9,,0.95\none,0002,0.2,0.2,0.9,0.9,,0.3\n"
    )
    dataset = keyframes(folder, detected=True)
    assert [(f.key, len(f.boxes)) for f in dataset.frames] == [("one,0002", 1)]
    found = evaluate_actions(detector(), dataset, {0: "bend", 1: "sit", 2: "run"})
    assert (found.detected, found.boxes) == (True, 1)
    assert found.precision.average_precision(1) == 0.0  # nobody was seen where that happens
