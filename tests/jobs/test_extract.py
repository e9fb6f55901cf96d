"""The table of all particles, and what is written again from it."""

from dataclasses import replace
from pathlib import Path

import pytest

from beamside.errors import InputError, ProcessingError
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.formats.star_parts import PartsWriter, StarParts
from beamside.jobs.base import Item, Optics, RelionContext, Result, Row
from beamside.jobs.ctf import CtfParameters
from beamside.jobs.extract import Extraction, ExtractParameters, particle_sizes, particles_block

JOB = "Extract/job005"
OPTICS = Optics(1.0, 300.0, 2.7, 0.1, 1.0)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Two micrographs of two and three particles, and the table of all."""
    found = []
    for name, count in (("a", 2), ("b", 3)):
        stack, star = f"{JOB}/raw/{name}.mrcs", f"{JOB}/raw/{name}_extract.star"
        (tmp_path / stack).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stack).write_bytes(b"images")
        lines: list[list[str | int | float]] = [
            [1.25, 2.0, 0.5, 0, 0.0, f"{number:06d}@{stack}", f"MotionCorr/job002/raw/{name}.mrc", 1, *[1.0] * 8]
            for number in range(1, count + 1)
        ]
        write_star(tmp_path / star, [particles_block(lines)])
        outputs = {"particles": stack, "particles_star": star}
        values = {"image_pixel_size": 4.0, "image_size": 64, "box": 256}
        found.append(Row(Item(f"raw/{name}", {}), Result({"extracted": float(count)}, outputs, values)))
    write_table(tmp_path, found)
    return found


def write_table(root: Path, rows: list[Row]) -> int:
    content = Extraction().star_files(rows, ExtractParameters(), OPTICS, JOB, root)["particles.star"]
    assert isinstance(content, StarParts)
    PartsWriter().write(root / JOB / "particles.star", content)
    return len(read_star(root / JOB / "particles.star")["particles"])


def test_files_that_were_cleaned_are_written_again_from_the_table(tmp_path: Path, rows: list[Row]) -> None:
    stars = [tmp_path / row.result.outputs["particles_star"] for row in rows]
    before = [read_star(star)["images"].rows for star in stars]
    for star in stars:
        star.unlink()
    assert Extraction().restore([row.result for row in rows], JOB, tmp_path) == 2
    assert [read_star(star)["images"].rows for star in stars] == before
    assert Extraction().restore([row.result for row in rows], JOB, tmp_path) == 0


def test_nothing_is_written_for_particles_that_are_gone_or_not_all_in_the_table(
    tmp_path: Path, rows: list[Row]
) -> None:
    for row in rows:
        (tmp_path / row.result.outputs["particles_star"]).unlink()
    (tmp_path / rows[0].result.outputs["particles"]).unlink()
    table = read_star(tmp_path / JOB / "particles.star")
    table["particles"].rows.pop()
    write_star(tmp_path / JOB / "particles.star", table.values())
    assert Extraction().restore([row.result for row in rows], JOB, tmp_path) == 0


@pytest.mark.parametrize("content", [None, "no STAR file {", "data_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n"])
def test_a_table_that_is_gone_or_not_ours_gives_nothing(tmp_path: Path, rows: list[Row], content: str | None) -> None:
    (tmp_path / rows[0].result.outputs["particles_star"]).unlink()
    (tmp_path / JOB / "particles.star").unlink()
    if content is not None:
        (tmp_path / JOB / "particles.star").write_text(content)
    assert Extraction().restore([row.result for row in rows], JOB, tmp_path) == 0
    assert write_table(tmp_path, rows) == 3


def test_the_table_keeps_the_particles_of_files_that_were_cleaned(tmp_path: Path, rows: list[Row]) -> None:
    for path in rows[0].result.outputs.values():
        (tmp_path / path).unlink()
    assert write_table(tmp_path, rows) == 5
    assert write_table(tmp_path, rows) == 5


def test_the_table_has_the_rows_of_all_micrographs_also_of_those_that_are_written_otherwise(
    tmp_path: Path, rows: list[Row]
) -> None:
    star = tmp_path / rows[0].result.outputs["particles_star"]
    before = read_star(tmp_path / JOB / "particles.star")["particles"].records()
    block = read_star(star)["images"]
    turned = StarBlock("images", block.columns, block.rows, version=30000)  # as an earlier program may have written it
    write_star(star, [turned], comments=["by hand"])
    assert write_table(tmp_path, rows) == 5
    assert read_star(tmp_path / JOB / "particles.star")["particles"].records() == before


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"data_images\n\nloop_\n_rlnImageName #1\n1 2 3\n"])
def test_a_micrographs_damaged_file_raises_instead_of_going_into_the_table(
    tmp_path: Path, rows: list[Row], content: bytes
) -> None:
    before = (tmp_path / JOB / "particles.star").read_bytes()
    (tmp_path / rows[1].result.outputs["particles_star"]).write_bytes(content)
    with pytest.raises(InputError):
        write_table(tmp_path, rows)
    assert (tmp_path / JOB / "particles.star").read_bytes() == before


@pytest.mark.parametrize("quoted", [False, True])
def test_each_micrograph_has_the_number_of_its_optics_group(tmp_path: Path, rows: list[Row], quoted: bool) -> None:
    if quoted:  # a name that cannot stand in a table without quotes
        star = tmp_path / rows[1].result.outputs["particles_star"]
        lines = read_star(star)["images"].rows
        write_star(star, [particles_block([[*row[:6], "MotionCorr/my grid/b.mrc", *row[7:]] for row in lines])])
    tilted = replace(OPTICS, group="tilted", pixel_size=0.5, beam_tilt_x=1.0)
    before = (tmp_path / JOB / "particles.star").read_text()
    assert write_table(tmp_path, [rows[0], replace(rows[1], optics=tilted)]) == 5
    blocks = read_star(tmp_path / JOB / "particles.star")
    assert blocks["particles"].integers("rlnOpticsGroup").tolist() == [1, 1, 2, 2, 2]
    assert blocks["optics"].texts("rlnOpticsGroupName") == ["opticsGroup1", "tilted"]
    assert blocks["optics"].floats("rlnMicrographOriginalPixelSize").tolist() == [1.0, 0.5]
    assert blocks["optics"].floats("rlnBeamTiltX").tolist() == [0.0, 1.0]
    assert blocks["optics"].floats("rlnImagePixelSize").tolist() == [4.0, 4.0]
    others = [[*row[:7], *row[8:]] for row in blocks["particles"].rows]
    if not quoted:
        head = before.index("000001@")
        assert [line.split()[:7] for line in before[head - 70 :].splitlines() if "@" in line] == [
            row[:7] for row in others
        ]
    for (
        row
    ) in rows:  # the files of each have no optics table, and say 1; also when they are written again from the table
        (tmp_path / row.result.outputs["particles_star"]).unlink()
    assert Extraction().restore([row.result for row in rows], JOB, tmp_path) == 2
    again = [read_star(tmp_path / row.result.outputs["particles_star"])["images"] for row in rows]
    assert [block.integers("rlnOpticsGroup").tolist() for block in again] == [[1, 1], [1, 1, 1]]


def test_particles_of_all_groups_get_pixels_of_one_size() -> None:
    parameters = ExtractParameters(class_box=64)
    own = particle_sizes(parameters, OPTICS, 2.0, 200.0)
    assert (own.box, own.size, own.pixel_size, own.resampled) == (150, 64, 4.6875, False)
    fine = replace(OPTICS, pixel_size=0.85, common_pixel_size=1.0)
    other = particle_sizes(parameters, fine, 1.7, 200.0)
    assert (other.box, other.size, other.resampled) == (180, 64, True)
    assert other.pixel_size == pytest.approx(own.pixel_size)
    assert other.box * 1.7 >= 64 * other.pixel_size
    coarse = replace(OPTICS, pixel_size=4.0, common_pixel_size=1.0)
    with pytest.raises(ProcessingError, match=r"pixels of 1.5 Å in all optics groups, and this micrograph's are 4 Å"):
        particle_sizes(ExtractParameters(class_box=200), coarse, 4.0, 200.0)


def test_relion_is_told_of_a_tilt_and_of_pixels_that_it_does_not_bring_to_one_size(rows: list[Row]) -> None:
    kind = Extraction()
    plain = RelionContext(ExtractParameters(), OPTICS, rows=rows, before=[CtfParameters()])
    assert len(kind.relion_differences(plain)) == 1
    tilted = replace(plain, before=[CtfParameters(ctf_tilt=True)])
    assert "whatever the tilt of the specimen" in kind.relion_differences(tilted)[1]
    fine = replace(rows[1], optics=replace(OPTICS, pixel_size=0.5, common_pixel_size=1.0))
    assert "pixels of one size" in kind.relion_differences(replace(plain, rows=[rows[0], fine]))[1]
