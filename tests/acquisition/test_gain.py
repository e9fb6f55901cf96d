"""The gain reference comes to fit the movies, or a sentence says why not."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from beamside.acquisition.gain import check_fit, prepare_defects, prepare_gain
from beamside.errors import GainError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.orientation import Orientation
from beamside.formats.tiff import write_tiff


def reference(shape: tuple[int, int] = (6, 8)) -> np.ndarray:
    return np.random.default_rng(4).uniform(0.8, 1.2, shape).astype(np.float32)


@pytest.mark.parametrize("name", ["g.mrc", "g.tif", "g.gain"])
def test_every_format_gives_the_same_gain(tmp_path: Path, name: str) -> None:
    gain = reference()
    if name == "g.mrc":
        write_mrc(tmp_path / name, gain)
    else:
        tifffile.imwrite(tmp_path / name, gain[::-1])
    prepared = prepare_gain(tmp_path / name, (6, 8), output=tmp_path / "out" / "gain.mrc")
    assert np.array_equal(read_mrc(prepared.path), gain)
    assert (prepared.shape, prepared.defects, prepared.ratio, prepared.warnings) == ((6, 8), 0, 1.0, ())


def test_orientations_are_rotation_clockwise_then_flip() -> None:
    image = np.array([[1, 2], [3, 4]])
    assert Orientation(90, "none").apply(image).tolist() == [[3, 1], [4, 2]]
    assert Orientation(180, "none").apply(image).tolist() == [[4, 3], [2, 1]]
    assert Orientation(270, "none").apply(image).tolist() == [[2, 4], [1, 3]]
    assert Orientation(0, "up-down").apply(image).tolist() == [[3, 4], [1, 2]]
    assert Orientation(90, "left-right").apply(image).tolist() == [[1, 3], [2, 4]]


@pytest.mark.peer
@pytest.mark.parametrize(("rotate", "flip"), [(0, "up-down"), (90, "none"), (90, "left-right"), (270, "up-down")])
def test_orientations_are_those_of_relion(tmp_path: Path, rotate: int, flip: str) -> None:
    """A flat movie times the gain is the gain: where the four corners of RELION's sum come from tells its orientation."""
    program = shutil.which("relion_run_motioncorr")
    assert program, "relion_run_motioncorr is not installed"
    gain = np.ones((256, 256), np.float32)
    gain[:128, :128], gain[:128, 128:], gain[128:, :128] = 2, 3, 4
    write_mrc(tmp_path / "gain.mrc", gain)
    write_tiff(tmp_path / "m.tiff", np.random.default_rng(0).poisson(20, (3, 256, 256)).astype(np.uint8))
    optics = (
        "data_optics\n\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnMicrographOriginalPixelSize\n_rlnVoltage\n"
    )
    optics += "_rlnSphericalAberration\n_rlnAmplitudeContrast\nog1 1 1.0 300 2.7 0.1\n\n"
    (tmp_path / "in.star").write_text(
        f"\n{optics}data_movies\n\nloop_\n_rlnMicrographMovieName\n_rlnOpticsGroup\nm.tiff 1\n"
    )
    flips = {"none": "0", "up-down": "1", "left-right": "2"}
    options = "--use_own --i in.star --o out/ --j 1 --patch_x 1 --patch_y 1 --gainref gain.mrc --bfactor 150 --dose_per_frame 1"
    turn = ["--gain_rot", str(rotate // 90), "--gain_flip", flips[flip]]
    subprocess.run([program, *options.split(), *turn], cwd=tmp_path, check=True, capture_output=True)
    theirs = read_mrc(next((tmp_path / "out").rglob("*.mrc")))
    ours = read_mrc(
        prepare_gain(tmp_path / "gain.mrc", (256, 256), flip=flip, rotate=rotate, output=tmp_path / "o.mrc").path
    )
    inner = np.s_[20:108], np.s_[148:236]
    corners = [(float(theirs[y, x].mean()), float(ours[y, x].mean())) for y in inner for x in inner]
    assert np.argsort([a for a, _ in corners]).tolist() == np.argsort([b for _, b in corners]).tolist()


def test_larger_references_are_averaged_and_smaller_ones_repeated(tmp_path: Path) -> None:
    gain = reference((6, 8))
    write_mrc(tmp_path / "g.mrc", gain)
    binned = prepare_gain(tmp_path / "g.mrc", (3, 4), output=tmp_path / "o.mrc")
    assert binned.ratio == 2
    assert np.allclose(read_mrc(binned.path)[1, 2], gain[2:4, 4:6].mean())
    spread = prepare_gain(tmp_path / "g.mrc", (24, 32), output=tmp_path / "o.mrc")
    assert spread.ratio == 0.25
    assert np.array_equal(read_mrc(spread.path)[::4, 3::4], gain)


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_a_reference_that_divides_becomes_one_that_multiplies(tmp_path: Path, ratio: int) -> None:
    """Dividing by the average of the counts is what is meant, whatever their unit and the size of the pixels."""
    flat = 1000 * reference((24, 32))
    flat[3, 5] = 0
    write_mrc(tmp_path / "flat.mrc", flat)
    prepared = prepare_gain(tmp_path / "flat.mrc", (24 // ratio, 32 // ratio), divide=True, output=tmp_path / "o.mrc")
    written = read_mrc(prepared.path)
    blocks = flat.reshape(24 // ratio, ratio, 32 // ratio, ratio)
    binned = np.where((blocks > 0).all(axis=(1, 3)), blocks.mean(axis=(1, 3)), 0)
    good = binned > 0
    assert np.allclose(written[good] * binned[good], binned[good].mean(), rtol=1e-5)
    assert (written[~good] == 0).all()
    assert (prepared.defects, prepared.ratio) == (1, ratio)
    assert not any("mean" in sentence for sentence in prepared.warnings)


def test_whether_shapes_fit_is_known_before_the_orientation_is() -> None:
    check_fit((6, 8), (8, 6), "g.mrc")
    check_fit((6, 8), (4, 3), "g.mrc", rotate=90)
    with pytest.raises(GainError, match=r"g\.mrc has 8 x 6 .* 7 x 6, and neither is 1, 2 or 4 times"):
        check_fit((6, 8), (6, 7), "g.mrc")
    with pytest.raises(GainError, match="--gain-rotate"):
        check_fit((6, 8), (8, 6), "g.mrc", rotate=0)


def test_pixels_without_gain_become_defects(tmp_path: Path) -> None:
    gain = reference((20, 20))
    gain[0, :6] = [0, np.nan, np.inf, -1, -np.inf, 1]
    write_mrc(tmp_path / "g.mrc", gain)
    prepared = prepare_gain(tmp_path / "g.mrc", (20, 20), output=tmp_path / "o.mrc")
    assert prepared.defects == 5
    assert read_mrc(prepared.path)[0, :6].tolist() == [0, 0, 0, 0, 0, 1]
    assert "1.2%" in prepared.warnings[0]
    halved = prepare_gain(tmp_path / "g.mrc", (10, 10), output=tmp_path / "o.mrc")
    assert halved.defects == 3


def test_what_does_not_fit_names_both_shapes_and_what_to_do(tmp_path: Path) -> None:
    write_mrc(tmp_path / "g.mrc", reference((6, 8)))
    with pytest.raises(GainError, match=r"8 x 6 pixels and the movies 10 x 7"):
        prepare_gain(tmp_path / "g.mrc", (7, 10), output=tmp_path / "o.mrc")
    with pytest.raises(GainError, match=r"turned by 90 degrees.*--gain-rotate"):
        prepare_gain(tmp_path / "g.mrc", (8, 6), output=tmp_path / "o.mrc")
    assert not (tmp_path / "o.mrc").exists()
    turned = prepare_gain(tmp_path / "g.mrc", (8, 6), rotate=90, output=tmp_path / "o.mrc")
    assert turned.shape == (8, 6)


def test_missing_foreign_and_empty_references_get_a_sentence(tmp_path: Path) -> None:
    for name, content, told in (
        ("none.mrc", None, "does not exist"),
        ("g.hdf", b"dm4", "MRC, TIFF"),
        ("g.mrc", b"short", "less than"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(GainError, match=told):
            prepare_gain(tmp_path / name, (4, 4), output=tmp_path / "o.mrc")
    write_mrc(tmp_path / "zero.mrc", np.zeros((4, 4), np.float32))
    with pytest.raises(GainError, match="100%"):
        prepare_gain(tmp_path / "zero.mrc", (4, 4), output=tmp_path / "o.mrc")


def test_a_reference_or_a_mask_whose_header_claims_more_than_its_file_holds_gets_a_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "g.tif", reference(), metadata=None)
    for name, ending in (("g.mrc", ".mrc"), ("g.tif", ".tif"), ("g.tif", ".gain")):
        write_mrc(tmp_path / "g.mrc", reference())
        data = bytearray((tmp_path / name).read_bytes())
        if ending == ".mrc":
            struct.pack_into("<2i", data, 0, 1 << 20, 1 << 20)
        else:
            for tag, side in ((256, 8), (257, 6)):
                before, after = (struct.pack("<HHII", tag, 4, 1, value) for value in (side, 1 << 17))
                assert before in data
                data = data.replace(before, after)
        bad = tmp_path / f"bad{ending}"
        bad.write_bytes(data)
        with pytest.raises(GainError, match="bad"):
            prepare_gain(bad, (6, 8), output=tmp_path / "o.mrc")
        if ending != ".gain":
            with pytest.raises(GainError, match="bad"):
                prepare_defects(bad, (6, 8), output=tmp_path / "o.mrc")
    (tmp_path / "huge.txt").write_text("CameraSizeX 100000\nCameraSizeY 100000\n")
    with pytest.raises(GainError, match="100000 x 100000"):
        prepare_defects(tmp_path / "huge.txt", (6, 8), output=tmp_path / "o.mrc")


def test_an_unusual_mean_is_told(tmp_path: Path) -> None:
    write_mrc(tmp_path / "g.mrc", np.full((4, 4), 5000, np.float32))
    assert "mean of 5e+03" in prepare_gain(tmp_path / "g.mrc", (4, 4), output=tmp_path / "o.mrc").warnings[0]


@pytest.mark.parametrize("divide", [False, True])
def test_references_of_eer_movies_have_the_scale_that_relion_gives_their_reciprocal(
    tmp_path: Path, divide: bool
) -> None:
    reference = np.random.default_rng(2).uniform(3, 9, (4, 6)).astype(np.float32)
    reference[1, 2] = 0
    write_mrc(tmp_path / "g.mrc", reference)
    files = {"output": tmp_path / "o.mrc", "reciprocal": tmp_path / "r.mrc"}
    prepared = prepare_gain(tmp_path / "g.mrc", (4, 6), divide=divide, **files)
    ours, relions = read_mrc(prepared.path), read_mrc(tmp_path / "r.mrc")
    good = reference > 0
    assert ours[1, 2] == relions[1, 2] == 0
    assert np.allclose(ours[good], relions.mean() / relions[good])
    assert np.allclose(np.ptp(ours[good] * reference[good] if divide else ours[good] / reference[good]), 0, atol=1e-5)
    assert (prepared.defects, prepared.warnings[1:]) == (1, ())


def test_defects_come_from_masks_and_lists(tmp_path: Path) -> None:
    wanted = np.zeros((10, 12), bool)
    wanted[2:4, 5:8] = True
    (tmp_path / "d.txt").write_text("# x y w h\n5 2 3 2\n\n")
    write_mrc(tmp_path / "d.mrc", wanted)
    for name in ("d.txt", "d.mrc"):
        assert prepare_defects(tmp_path / name, (10, 12), output=tmp_path / "o.mrc") == 6
        assert np.array_equal(read_mrc(tmp_path / "o.mrc") != 0, wanted)


def test_masks_of_super_resolution_and_physical_pixels_serve_each_other(tmp_path: Path) -> None:
    mask = np.zeros((8, 12), np.uint8)
    mask[4:6, 5] = 1
    write_mrc(tmp_path / "d.mrc", mask)
    assert prepare_defects(tmp_path / "d.mrc", (4, 6), output=tmp_path / "o.mrc") == 1
    assert np.argwhere(read_mrc(tmp_path / "o.mrc")).tolist() == [[2, 2]]
    assert prepare_defects(tmp_path / "d.mrc", (16, 24), output=tmp_path / "o.mrc") == 8
    assert (read_mrc(tmp_path / "o.mrc")[8:12, 10:12] == 1).all()


@pytest.mark.parametrize(
    ("text", "told"), [("1 2 3", "Line 1"), ("1 2 x 3", "Line 1"), ("\n11 0 5 1", "Line 2"), ("0 0 12 10", "100%")]
)
def test_bad_lists_of_defects_get_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "d.txt").write_text(text)
    with pytest.raises(GainError, match=told):
        prepare_defects(tmp_path / "d.txt", (10, 12), output=tmp_path / "o.mrc")


def test_bad_masks_get_a_sentence(tmp_path: Path) -> None:
    write_mrc(tmp_path / "d.mrc", np.zeros((3, 3), np.int8))
    with pytest.raises(GainError, match="3 x 3 pixels and the movies have 12 x 10"):
        prepare_defects(tmp_path / "d.mrc", (10, 12), output=tmp_path / "o.mrc")
    for name in ("none.txt", "none.mrc"):
        with pytest.raises(GainError, match="does not exist"):
            prepare_defects(tmp_path / name, (10, 12), output=tmp_path / "o.mrc")
