"""What is drawn on pictures: lines where the boxes are, masks that show through, words that stay inside."""

import numpy as np
import pytest
from PIL import Image

from mvitv2.data.drawing import PALETTE, Mark, colour_of, drawn, label_text


def gray(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def test_lines_lie_on_the_box():
    pixels = np.asarray(drawn(gray(100, 80), [Mark((20, 10, 60, 50), colour=5)]))
    colour = PALETTE[5]
    for x, y in ((20, 10), (59, 10), (20, 49), (59, 49), (40, 10), (59, 30)):
        assert tuple(pixels[y, x]) == colour
    assert (pixels[9, 20:60] < 30).all() and (pixels[50, 20:60] < 30).all()  # dark outside
    assert (pixels[30, 30:50] == 128).all() and (pixels[:8] == 128).all()


def test_masks_show_through_and_have_a_border():
    mask = np.zeros((80, 100), bool)
    mask[20:40, 30:50] = True
    image = gray(100, 80)
    pixels = np.asarray(drawn(image, [Mark((0, 0, 100, 80), mask=mask)]), np.float32)
    assert tuple(pixels[20, 30]) == PALETTE[0] == tuple(pixels[39, 49])
    inside = 0.55 * 128 + 0.45 * np.asarray(PALETTE[0])
    assert np.abs(pixels[30, 40] - inside).max() <= 0.5 and (pixels[60, 60] == 128).all()
    assert (np.asarray(image) == 128).all()  # left as it was
    with pytest.raises(ValueError, match=r"mask of \(8, 8\) does not fit"):
        drawn(image, [Mark((0, 0, 9, 9), mask=np.zeros((8, 8), bool))])


@pytest.mark.parametrize("size", [(1, 1), (8, 6), (40, 400), (1600, 1200)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (-50, -50, 1e4, 1e4), (3, 3, 3, 3), (0, 5, 900, 6)])
def test_any_box_in_any_picture(size, box):
    image = drawn(gray(*size), [Mark(box, "a very long name of a class 100 %", 3), Mark(box, "ünï 猫", 12)])
    assert image.size == size and image.mode == "RGB"


def test_small_objects_are_drawn_over_large_ones_and_words_do_not_cover_each_other():
    small, large = Mark((10, 40, 30, 60), colour=1), Mark((8, 38, 190, 140), colour=0)
    assert np.array_equal(
        np.asarray(drawn(gray(200, 150), [small, large])), np.asarray(drawn(gray(200, 150), [large, small]))
    )
    one, other = Mark((50, 50, 90, 90), "one", 1), Mark((50, 50, 91, 91), "other", 2)
    pixels = np.asarray(drawn(gray(200, 150), [one, other]))
    filled = {colour: int((pixels == PALETTE[colour]).all(axis=2).sum()) for colour in (1, 2)}
    assert min(filled.values()) > 150  # both have the ground of their words


def test_words():
    assert label_text("dog") == "dog" and label_text("dog", 0.8749) == "dog 87 %"
    assert len({colour_of(number) for number in range(7)}) == 7 and colour_of(7) == colour_of(0)
    plain, named = (np.asarray(drawn(gray(300, 200), [Mark((50, 80, 200, 150), text)])) for text in ("", "cat"))
    changed = np.argwhere((plain != named).any(axis=2))
    assert changed[:, 1].min() >= 50 and changed[:, 0].max() < 82 and len(changed) > 100  # above the box
