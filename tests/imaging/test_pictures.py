"""Pictures for people: contrast, sizes, and marks where they belong."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from beamside.errors import InputError
from beamside.imaging.charts import Canvas, nice_ticks
from beamside.imaging.pictures import (
    PICK_COLOUR,
    class_montage,
    ctf_picture,
    ctf_plot,
    encode,
    motion_plot,
    picks_overlay,
    reduce_image,
    thumbnail,
    to_bytes,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def coloured(image: Image.Image, colour: tuple[int, int, int], tolerance: int = 60) -> np.ndarray:
    difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - np.array(colour))
    return np.asarray(difference.max(axis=2) <= tolerance)


def test_contrast_uses_the_whole_range_and_ignores_outliers() -> None:
    image = noise(100, 100)
    image[0, 0] = 1e6
    values = to_bytes(image)
    assert values.min() == 0
    assert values.max() == 255
    assert 30 < values.std() < 90


@pytest.mark.parametrize("value", [0.0, -3.0, 1e9])
def test_a_flat_image_becomes_grey(value: float) -> None:
    assert (to_bytes(np.full((8, 8), value)) == 128).all()


def test_values_that_are_not_finite_do_not_spoil_a_picture() -> None:
    image = noise(64, 64)
    image[3, 4], image[5, 6] = np.nan, np.inf
    assert to_bytes(image).std() > 30
    assert np.isfinite(reduce_image(image, 16)).all()
    assert (to_bytes(np.full((4, 4), np.nan)) == 128).all()


@pytest.mark.parametrize(("shape", "size"), [((400, 300), (96, 128)), ((300, 400), (128, 96)), ((40, 30), (30, 40))])
def test_thumbnails_keep_the_shape_and_are_never_enlarged(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert thumbnail(noise(*shape), 128).size == size


def test_reducing_averages_and_keeps_small_contrast_on_a_large_offset() -> None:
    image = 1e5 + 0.01 * noise(128, 128)
    reduced = reduce_image(image.astype(np.float64), 32).astype(np.float64)
    expected = image.astype(np.float64).reshape(32, 4, 32, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(reduced, expected, atol=0.02)


def test_row_zero_is_shown_on_top() -> None:
    image = np.zeros((64, 64), dtype=np.float32)
    image[:16] = 1
    assert np.asarray(thumbnail(image, 32))[:8].min() > np.asarray(thumbnail(image, 32))[8:].max()


def test_picks_are_circles_around_their_coordinates() -> None:
    overlay = picks_overlay(np.zeros((400, 600), np.float32), np.array([[100.0, 450.0]]), 80.0, 1.0, max_size=600)
    rows, columns = np.nonzero(coloured(overlay, PICK_COLOUR))
    assert rows.mean() == pytest.approx(100.5, abs=1)
    assert columns.mean() == pytest.approx(450.5, abs=1)
    assert (rows.max() - rows.min()) / 2 == pytest.approx(40, abs=2)


def test_a_micrograph_without_picks_is_drawn_without_circles() -> None:
    overlay = picks_overlay(noise(200, 200), np.zeros((0, 2)), 80.0, 1.0)
    assert not coloured(overlay, PICK_COLOUR, 30).any()


def test_motion_plots_have_a_panel_for_patches_only_with_patches() -> None:
    track = np.cumsum(noise(20, 2), axis=0)
    assert motion_plot(track, None, 1.0).size == (500, 500)
    assert motion_plot(track, np.broadcast_to(track, (5, 4, 20, 2)), 1.0).size == (960, 500)


def test_a_movie_that_stood_still_can_be_plotted() -> None:
    assert motion_plot(np.zeros((1, 2)), np.zeros((2, 2, 1, 2)), 1.0).size == (960, 500)


def test_motion_plots_refuse_other_shapes() -> None:
    with pytest.raises(InputError, match=r"frames, 2"):
        motion_plot(np.zeros((2, 20)), None, 1.0)


def test_the_ctf_plot_marks_the_resolution_where_it_is() -> None:
    frequency = np.linspace(0, 0.4, 200)
    curve = np.full(200, 0.5)
    green = (42, 157, 74)
    marked = coloured(ctf_plot(frequency, curve, curve, None, 5.0), green, 30)[200:300].all(axis=0).nonzero()[0]
    assert marked.mean() == pytest.approx(70 + 0.2 / 0.4 * 670, abs=2)
    assert not coloured(ctf_plot(frequency, curve, curve, None, None), green, 30).any()
    assert not coloured(ctf_plot(frequency, curve, curve, None, 2.0), green, 30).any()


def test_curves_with_gaps_can_be_plotted() -> None:
    curve = np.linspace(-1, 2, 50)
    curve[10:20] = np.nan
    assert ctf_plot(np.linspace(0, 0.25, 50), curve, curve, curve, 8.0, "Defocus").size == (760, 400)


def test_the_ctf_picture_has_a_ring_at_the_resolution() -> None:
    picture = ctf_picture(noise(128, 128), resolution=8.0, pixel_size=2.0, size=512)
    middle = coloured(picture, PICK_COLOUR, 40)[256]
    assert sorted(np.abs(middle.nonzero()[0] - 256).tolist()) == pytest.approx([128] * int(middle.sum()), abs=3)
    assert middle.any()


def test_the_central_peak_does_not_set_the_contrast() -> None:
    spectrum = noise(128, 128)
    spectrum[64, 64] = 1e6
    assert np.asarray(ctf_picture(spectrum)).std() > 30


def test_a_montage_has_a_tile_and_label_per_class() -> None:
    averages = noise(7, 32, 32)
    averages[3] = 0
    sheet = np.asarray(class_montage(averages, [f"{index + 1}" for index in range(7)], columns=4, tile=64))
    assert sheet.shape == (6 + 2 * 90, 6 + 4 * 70, 3)
    assert sheet[6:70, 6:70].std() > 30
    assert sheet[20:60, 6 + 3 * 70 + 4 : 6 + 3 * 70 + 60].std() < 5


def test_a_montage_wants_a_label_for_every_class_or_none() -> None:
    with pytest.raises(InputError, match="2 labels for 3"):
        class_montage(noise(3, 16, 16), ["1", "2"])


@pytest.mark.parametrize(("kind", "name"), [("png", "PNG"), ("jpeg", "JPEG")])
def test_pictures_are_encoded_as_files(kind: str, name: str) -> None:
    assert Image.open(io.BytesIO(encode(thumbnail(noise(64, 64)), kind))).format == name


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(-0.7, 3.2) == ([0.0, 1.0, 2.0, 3.0], ["0", "1", "2", "3"])
    assert nice_ticks(0, 0.05, 5)[1] == ["0.00", "0.01", "0.02", "0.03", "0.04", "0.05"]
    assert nice_ticks(2, 2) == ([2], ["2"])


def test_angstroms_get_their_ring() -> None:
    def ink(text: str) -> int:
        canvas = Canvas(60, 40)
        canvas.text((30, 20), text, 20, "black", "mm")
        return int((np.asarray(canvas.finish()) < 128).sum())

    assert ink("Å") > ink("A")


def test_chosen_classes_have_a_frame_and_the_others_are_dark() -> None:
    average = np.outer(np.hanning(32), np.hanning(32))
    sheet = np.asarray(class_montage(np.stack([average, average]), framed=[True, False], columns=2, tile=64))
    chosen, other = sheet[6:70, 6:70], sheet[6:70, 76:140]
    assert chosen[32, 32].min() > 2 * other[32, 32].max() > 100
    assert (np.abs(chosen[32, 0].astype(int) - PICK_COLOUR) < 12).all()
    with pytest.raises(InputError, match="1 marks for 2 class averages"):
        class_montage(np.stack([average, average]), framed=[True])
