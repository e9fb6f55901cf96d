"""Selecting from odd rounds: of RELION, of one class, with classes that are empty, the same one twice, files that are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from beamside.errors import CorruptFileError, InputError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import read_star, write_star
from beamside.imaging.classes.shape import Shape
from beamside.jobs.base import Item, Optics, RelionContext, Result, Workspace
from beamside.jobs.class2d_files import Round, write_round
from beamside.jobs.optics import optics_table
from beamside.jobs.ports import Given
from beamside.jobs.select import Selection, SelectParameters, class_numbers
from beamside.jobs.select_worker import choose, diameters, read_round, select_classes

BOX, PIXEL, JOB = 32, 4.0, "Class2D/job006"
OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)
Y, X = np.mgrid[:BOX, :BOX] - BOX // 2


def made(small: Any, counts: list[int], images: np.ndarray | None = None, mask: float = 100.0) -> Item:
    """A round with a disc and noise of its own in each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    number, classes = len(labels), len(counts)
    disc = (X**2 + Y**2 < 60) * 3.0
    (small.root / JOB).mkdir(parents=True, exist_ok=True)
    found = Round(
        iteration=25,
        pixel_size=PIXEL,
        mask_diameter=mask,
        tau2_fudge=2.0,
        seed=1,
        last_iteration=25,
        shift_sd=4.0,
        resolution=12.0,
        references=images if images is not None else (disc + 0.1 * small.noise(classes, BOX, BOX)).astype(np.float32),
        weights=np.array(counts) / max(1, number),
        resolutions=np.full(classes, 12.0),
        noise=np.ones((1, BOX // 2 + 1)),
        signal=np.ones(BOX // 2 + 1),
        groups=np.zeros(number, dtype=np.int64),
        labels=labels,
        psi=np.zeros(number),
        shifts=np.zeros((number, 2)),
        pmax=np.full(number, 0.7),
        evidence=np.full(number, 90.0),
    )
    rows = [small.particle(f"{n + 1}@s.mrcs", 100.0 * (n % 9), 100.0 * (n // 9), "m.mrc") for n in range(number)]
    outputs = write_round(small.root, JOB, found, rows, optics_table([], OPTICS))
    return Item("round001", {"classes": Given(Result(outputs=outputs, values={"micrograph_pixel_size": 2.0}))})


def select(root: Path, item: Item, **parameters: Any) -> Result:
    workspace = Workspace(root, "Select/job007", OPTICS)
    return select_classes([item], SelectParameters(**parameters), workspace, round_name=item.name, final=True)


def outputs_of(item: Item) -> dict[str, str]:
    return dict(item.inputs["classes"].result.outputs)


def test_one_class_is_a_round_too(small: Any) -> None:
    result = select(small.root, made(small, [12]), select_score=0.0)
    assert (result.metrics["selected"], result.metrics["selected_classes"]) == (12, 1)
    assert np.asarray(read_mrc(small.root / result.outputs["averages"])).reshape(-1, BOX, BOX).shape == (1, BOX, BOX)
    assert read_star(small.root / result.outputs["selection"])[""].integers("rlnSelected").tolist() == [1]


def test_an_empty_class_is_never_kept_by_its_score_but_may_be_by_hand(small: Any) -> None:
    item = made(small, [9, 0, 6])
    result = select(small.root, item, select_score=0.0, select_min_share=0.0)
    assert [entry["kept"] for entry in result.values["class_table"]] == [True, False, True]
    assert result.values["class_table"][1]["score"] == 0
    by_hand = select(small.root, item, select_classes="2")
    assert (by_hand.metrics["selected"], by_hand.metrics["selected_classes"]) == (0, 1)


def test_the_same_round_again_gives_the_same_files(small: Any) -> None:
    item = made(small, [9, 6])
    first = select(small.root, item, select_score=0.0)
    written = Selection().written_by_work(first.outputs)
    before = {path: (small.root / path).read_bytes() for path in written.values()}
    assert select(small.root, item, select_score=0.0) == first
    assert {path: (small.root / path).read_bytes() for path in before} == before
    assert set(first.outputs) - set(written) == {"particles_star"}, "which the session makes of the whole one"


def test_a_selection_of_nothing_after_one_of_something_names_no_averages(small: Any) -> None:
    item = made(small, [9, 6])
    assert "averages" in select(small.root, item, select_score=0.0).outputs
    result = select(small.root, item, select_score=1.0)
    assert "averages" not in result.outputs
    assert len(read_star(small.root / result.outputs["averages_star"])[""]) == 0
    assert len(read_star(small.root / result.outputs["whole_star"])["particles"]) == 0
    assert result.metrics["selected_share"] == 0


def relions(root: Path, item: Item) -> Item:
    """Write the files as RELION does when it classifies: other columns in another order, numbers as it formats them, no optimiser in the model."""
    outputs = outputs_of(item)
    data, model = read_star(root / outputs["data"]), read_star(root / outputs["model"])
    particles = data["particles"]
    particles.columns = [*reversed(particles.columns), "rlnGroupName"]
    particles.rows = [[*reversed(row), "raw/m"] for row in particles.rows]
    write_star(root / outputs["data"], [particles, data["optics"]])
    write_star(root / outputs["model"], [block for name, block in model.items() if name != "optimiser_general"])
    return item


def test_a_round_that_relion_went_on_with_is_selected_from_in_the_same_way(small: Any) -> None:
    item = made(small, [9, 6])
    ours = select(small.root, item, select_score=0.0)
    theirs = select(small.root, relions(small.root, item), select_score=0.0)
    assert theirs.metrics == ours.metrics
    assert theirs.values == ours.values
    table = read_star(small.root / theirs.outputs["whole_star"])["particles"]
    assert table.columns[-1] == "rlnGroupName", "their groups of micrographs stay"
    assert len(table) == 15


@pytest.mark.parametrize("keep", [("optimiser", "model"), ("model",), ()])
def test_the_mask_is_found_where_it_is_told(small: Any, keep: tuple[str, ...]) -> None:
    item = made(small, [9])
    outputs = outputs_of(item)
    if "model" not in keep:
        relions(small.root, item)
    if "optimiser" not in keep:
        del outputs["optimiser"]
    assert read_round(small.root, outputs).mask_diameter == (100.0 if keep else BOX * PIXEL)


@pytest.mark.parametrize("role", ["data", "model", "optimiser", "classes"])
def test_a_file_that_is_gone_or_empty_is_named(small: Any, role: str) -> None:
    outputs = outputs_of(made(small, [9]))
    path = small.root / outputs[role]
    path.write_bytes(b"")
    with pytest.raises(InputError, match=path.name):
        read_round(small.root, outputs)
    path.unlink()
    with pytest.raises((InputError, OSError), match=path.name):
        read_round(small.root, outputs)


@pytest.mark.parametrize(
    ("block", "column"),
    [("particles", "rlnClassNumber"), ("particles", "rlnOriginXAngst"), ("particles", "rlnLogLikeliContribution")],
)
def test_a_table_without_a_column_is_not_the_right_file(small: Any, block: str, column: str) -> None:
    outputs = outputs_of(made(small, [9]))
    blocks = read_star(small.root / outputs["data"])
    place = blocks[block].index(column)
    del blocks[block].columns[place]
    for row in blocks[block].rows:
        del row[place]
    write_star(small.root / outputs["data"], blocks.values())
    with pytest.raises(CorruptFileError, match=column):
        read_round(small.root, outputs)


def test_averages_of_another_round_are_refused(small: Any) -> None:
    outputs = outputs_of(made(small, [9, 3]))
    write_mrc(small.root / outputs["classes"], small.noise(3, BOX, BOX), PIXEL)
    with pytest.raises(CorruptFileError, match="classify again"):
        read_round(small.root, outputs)


def test_a_box_that_is_small_for_the_particles_is_told(small: Any) -> None:
    bar = ((np.abs(Y) < 4) & (np.abs(X) < 14)) * 3.0
    images = np.stack([bar + 0.05 * small.noise(BOX, BOX, seed=seed) for seed in (1, 2)]).astype(np.float32)
    item = made(small, [80, 60], images, mask=122.0)
    warnings = select(small.root, item, select_score=0.0).values["warnings"]
    assert "box" in warnings
    assert "take a larger --box-size" in warnings["box"]
    few = made(small, [9, 6], images)
    assert select(small.root, few, select_score=0.0).values["warnings"] == {}, "too few to say"


numbers = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@given(numbers, st.sampled_from([",", " ", ", "]))
def test_class_numbers_are_those_that_are_written(wanted: list[int], between: str) -> None:
    assert class_numbers(between.join(map(str, wanted))) == sorted(set(wanted))
    low, high = min(wanted), max(wanted)
    assert class_numbers(f"{low}-{high}") == list(range(low, high + 1))


classes = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 200)), min_size=1, max_size=8)


@given(classes, st.floats(0, 1), st.floats(0, 3), st.integers(0, 4))
def test_the_rule_keeps_the_best_that_pass_and_nothing_else(
    found: list[tuple[float, int]], score: float, share: float, top: int
) -> None:
    scores, counts = np.array([one[0] for one in found]), np.array([float(one[1]) for one in found])
    given = SelectParameters(select_score=score, select_min_share=share, select_top=top)
    kept = choose(scores, counts, given)
    assert [scores[k] for k in kept] == sorted((scores[k] for k in kept), reverse=True)
    passing = {k for k in range(len(found)) if scores[k] >= score and counts[k] >= max(1, share * counts.mean())}
    assert set(kept) <= passing
    assert len(kept) == len(passing) if not top else len(kept) == min(top, len(passing))
    assert all(scores[k] <= scores[kept[-1]] for k in passing - set(kept))


@given(st.lists(st.tuples(st.floats(50, 500), st.floats(10, 50), st.integers(1, 99)), min_size=1, max_size=6))
def test_diameters_are_those_of_some_class_and_the_long_one_is_longer(found: list[tuple[float, float, int]]) -> None:
    shapes = [Shape((0, 0), long, short) for long, short, _ in found]
    counts = np.array([float(count) for *_, count in found])
    assume(counts.sum() > 0)
    long, short = diameters(shapes, counts, list(range(len(found))))
    assert long in {shape.long for shape in shapes}
    assert short in {shape.short for shape in shapes}
    assert long >= short


@pytest.mark.parametrize(
    ("given", "ranks", "recentres", "says"),
    [
        ({}, "Yes", "No", ["scored 0.4 or better", "does not re-centre", "good classes with few", "within 30 Å"]),
        ({"select_classes": "1,3"}, "No", "Yes", ["kept those numbered 1,3", "within 30 Å"]),
        ({"select_classes": "1", "select_recentre": False}, "No", "No", ["numbered 1", "within"]),
        (
            {"select_top": 5, "select_min_share": 0, "select_recentre": False, "select_duplicate_distance": 0},
            "Yes",
            "No",
            ["scored", "not the best 5"],
        ),
    ],
)
def test_relion_is_asked_for_what_it_can_do_and_told_the_rest(
    given: dict[str, Any], ranks: str, recentres: str, says: list[str]
) -> None:
    context = RelionContext(SelectParameters(**given), OPTICS)
    options = Selection().relion_options(context)
    assert (options["do_class_ranker"], options["do_recenter"]) == (ranks, recentres)
    said = Selection().relion_differences(context)
    assert len(said) == len(says)
    assert all(words in sentence for words, sentence in zip(says, said, strict=True))


def test_what_a_job_after_it_is_given_depends_on_the_output() -> None:
    kind = Selection()
    found = [kind.output_node(output, []) for output in ("particles", "classes")]
    assert [node.file for node in found if node is not None] == ["particles.star", "class_averages.star"]
