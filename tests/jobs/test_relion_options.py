"""Each job type tells RELION 3.1, 4 and 5 to do what it does, in options that they know and do not refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.flow.workflow import SHIPPED, ancestors, find_workflow
from beamside.formats.mrc import write_mrc
from beamside.jobs.base import Item, JobType, Optics, RelionContext, Result, Row
from beamside.jobs.ports import Given

OPTICS = Optics(1.08, 300.0, 2.7, 0.1, 1.0)
VERSIONS = ("3.1", "4.0", "5.0")
OF_THE_SITE = frozenset(
    ["scratch_dir", "fn_motioncor2_exe", "fn_ctffind_exe", "fn_gctf_exe", "fn_topaz_exe", "fn_topaz_exec", "python_exe"]
)
"""Options whose default a site sets by the environment: writing them would undo that."""


def known_options() -> dict[tuple[str, str], set[str]]:
    """Return the names of RELION's options by version and job type."""
    lines = (Path(__file__).with_name("relion_options.txt")).read_text().splitlines()[1:]
    return {(version, kind): set(names) for version, kind, *names in (line.split() for line in lines)}


KNOWN = known_options()


def context(
    kind: JobType, mode: str = "movies", root: Path = Path(), rows: tuple[Row, ...] = (), **given: Any
) -> RelionContext:
    """Return what the options of a job are made from, with some parameters of it given."""
    workflow = find_workflow(mode)
    label = next(job.label for job in workflow.jobs if job.type.name == kind.name)
    before = [workflow.job(other).type for other in ancestors(workflow, label)][::-1]
    connected = workflow.job(label).inputs
    ports = [port.name for port in kind.inputs if port.name in connected]
    inputs = {port: f"{port}/job00{number}/a.star" for number, port in enumerate(ports)}
    return RelionContext(
        kind.Parameters(**given),
        OPTICS,
        inputs,
        rows,
        [other.Parameters() for other in before],
        frozenset(output.kind.name for other in before for output in other.outputs),
        f"{kind.directory}/job009",
        root,
    )


def cases() -> Iterator[Any]:
    """Yield job types with parameters that lead RELION another way."""
    ways: dict[str, list[dict[str, Any]]] = {
        "pick": [
            {"pick_method": "blob"},
            {"pick_method": "topaz"},
            {"pick_method": "template", "pick_references": "References/a.mrcs"},
        ],
        "select": [{}, {"select_classes": "1,3"}, {"select_recentre": False}],
        "motion": [{}, {"float16": True}, {"even_odd": True, "patches_x": 1, "patches_y": 1}],
    }
    for mode in SHIPPED:
        for kind in (job.type for job in find_workflow(mode).jobs):
            for given in ways.get(kind.name, [{}]):
                yield pytest.param(kind, mode, given, id=f"{mode}-{kind.name}-{'-'.join(map(str, given.values()))}")


Options = Mapping[str, str]


def count(options: Options, *names: str) -> int:
    """Return how many of the switches are on."""
    return sum(options.get(name) == "Yes" for name in names)


LATER = VERSIONS[1:]
REFUSALS: tuple[tuple[tuple[str, ...], str, str, Callable[[Options], bool]], ...] = (
    (VERSIONS, "import", "nothing, or both", lambda o: count(o, "do_raw", "do_other") != 1),
    (VERSIONS, "import", "outside", lambda o: o["fn_in_raw"].startswith("/") or "../" in o["fn_in_raw"]),
    (VERSIONS, "motion", "spectra without a dose", lambda o: count(o, "do_save_ps") > 0 >= float(o["dose_per_frame"])),
    (VERSIONS, "motion", "spectra of another program", lambda o: count(o, "do_save_ps") > count(o, "do_own_motioncor")),
    (LATER, "motion", "16 bits without spectra", lambda o: count(o, "do_float16") > count(o, "do_save_ps")),
    (("3.1", "4.0"), "ctf", "no program", lambda o: not count(o, "use_ctffind4", "use_gctf")),
    (
        ("3.1",),
        "pick",
        "no references",
        lambda o: not (count(o, "do_log") or o["fn_refs_autopick"] or o["fn_ref3d_autopick"]),
    ),
    (LATER, "pick", "not one method", lambda o: count(o, "do_log", "do_topaz", "do_refs") != 1),
    (
        LATER,
        "pick",
        "not one of training and picking",
        lambda o: count(o, "do_topaz") > 0 and count(o, "do_topaz_train", "do_topaz_pick") != 1,
    ),
    (LATER, "pick", "no references", lambda o: count(o, "do_refs") > 0 and not o["fn_refs_autopick"]),
    (LATER, "class2d", "not one algorithm", lambda o: count(o, "do_em", "do_grad") != 1),
    (
        VERSIONS,
        "select",
        "many tasks",
        lambda o: count(o, "do_select_values", "do_discard", "do_split", "do_remove_duplicates", "do_filaments") > 1,
    ),
    (
        LATER,
        "select",
        "ranking with regrouping or re-centring",
        lambda o: count(o, "do_class_ranker") > 0 and count(o, "do_regroup", "do_recenter") > 0,
    ),
)
"""Versions, job type, reason, and what of the options makes RELION's window refuse to run the job, as its public sources have it."""


def refusals(version: str, kind: str, options: Options) -> list[str]:
    """Return why a version of RELION would not run a job with these options."""
    return [why for versions, name, why, holds in REFUSALS if version in versions and name == kind and holds(options)]


@pytest.mark.parametrize(("kind", "mode", "given"), list(cases()))
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_told_all_that_it_asks_and_does_not_refuse(
    version: str, kind: JobType, mode: str, given: dict[str, Any]
) -> None:
    """An option that is not in the file stays as it was for the job that RELION's window showed before."""
    options = kind.relion_options(context(kind, mode, **given))
    assert not KNOWN[version, kind.name.removesuffix("_micrographs")] - set(options) - OF_THE_SITE
    assert (
        not set(options)
        - set.union(*(KNOWN[other, kind.name.removesuffix("_micrographs")] for other in VERSIONS))
        - {"other_args"}
    )
    assert all(isinstance(value, str) for value in options.values())
    without_topaz = version == "3.1" and given.get("pick_method") == "topaz"
    assert refusals(version, kind.name, options) == (["no references"] if without_topaz else [])
    if without_topaz:
        assert "RELION 3.1 has no Topaz" in kind.relion_differences(context(kind, mode, **given))[0]


@pytest.mark.parametrize(("kind", "mode", "given"), list(cases()))
def test_inputs_are_named_and_differences_are_sentences(kind: JobType, mode: str, given: dict[str, Any]) -> None:
    seen = context(kind, mode, **given)
    options = kind.relion_options(seen)
    assert [options[port.relion_option] for port in kind.inputs if port.relion_option] == list(seen.inputs.values())
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in kind.relion_differences(seen))


def test_movies_with_different_gain_references_are_told_where_relion_has_one() -> None:
    rows = tuple(
        Row(Item(f"raw/m{index}", {"movies": Given(Result(values={"gain": gain} if gain else {}))}), Result())
        for index, gain in enumerate(["Import/job001/gain_a.mrc", "Import/job001/gain_a.mrc", ""])
    )
    kind = kind_of("motion")
    assert "one gain reference" not in " ".join(kind.relion_differences(context(kind, rows=rows[:2])))
    told = " ".join(kind.relion_differences(context(kind, rows=rows)))
    assert "corrected 2 with Import/job001/gain_a.mrc, 1 with none" in told


def kind_of(name: str, mode: str = "movies") -> JobType:
    return next(job.type for job in find_workflow(mode).jobs if job.label == name)


def row(name: str, values: dict[str, Any], **before: dict[str, Any]) -> Row:
    """Return a finished item: the values of its job, and of the jobs before, the nearest first."""
    inputs: dict[str, Given] = {}
    for kind, found in reversed(before.items()):
        inputs = {kind: Given(Result(values=found), inputs)}
    return Row(Item(name, inputs), Result(values=values))


class TestAutomaticValues:
    def test_a_box_is_written_as_it_was_found(self) -> None:
        kind = kind_of("extract")
        found = row("raw/a", {"box": 300, "image_size": 60, "image_pixel_size": 5.4})
        options = kind.relion_options(context(kind, rows=(found,)))
        assert (options["extract_size"], options["rescale"], options["bg_diameter"]) == ("300", "60", "225")

    def test_a_box_that_is_not_known_yet_is_what_it_will_be(self) -> None:
        kind = kind_of("extract")
        options = kind.relion_options(context(kind))  # 180 Å, 1.08 Å per pixel
        assert (options["extract_size"], options["rescale"], options["do_rescale"]) == ("250", "64", "Yes")
        options = kind.relion_options(context(kind, box_size=64, class_box=64))
        assert (options["extract_size"], options["do_rescale"]) == ("64", "No")

    def test_a_background_given_in_angstrom_is_in_pixels_of_the_micrograph(self) -> None:
        kind = kind_of("extract")
        options = kind.relion_options(context(kind, box_size=200, background_diameter=162.0))
        assert options["bg_diameter"] == "150"

    def test_the_mask_of_classes_is_written_as_it_was_used(self) -> None:
        kind = kind_of("class2d")
        assert kind.relion_options(context(kind))["particle_diameter"] == "198", "1.1 times 180 Å"
        assert kind.relion_options(context(kind, class_mask=150.0))["particle_diameter"] == "150"
        files = {role: f"Class2D/job009/run_it030_{role}.star" for role in ("data", "model", "optimiser")}
        done = Row(Item("round001", {}), Result({"iterations": 30}, files, {"mask_diameter": 170.0}))
        options = kind.relion_options(context(kind, rows=(done,)))
        assert (options["particle_diameter"], options["fn_cont"]) == ("170", files["optimiser"])
        assert (options["nr_iter"], options["nr_iter_em"]) == ("25", "25")
        assert "more iterations than the 30" in " ".join(kind.relion_differences(context(kind, rows=(done,))))

    def test_the_resolution_of_a_fit_ends_where_the_spectrum_does(self) -> None:
        kind = kind_of("ctf")
        found = row("raw/a", {"micrograph_pixel_size": 2.0}, motion={"spectrum_pixel_size": 2.5})
        assert kind.relion_options(context(kind, rows=(found,)))["resmax"] == "5.25"
        assert kind.relion_options(context(kind))["resmax"] == "4"

    def test_power_spectra_of_movies_are_there_only_for_movies(self) -> None:
        assert [
            kind_of("ctf", mode).relion_options(context(kind_of("ctf", mode), mode))["use_given_ps"]
            for mode in ("movies", "micrographs")
        ] == ["Yes", "No"]

    def test_references_have_their_pixel_size(self, tmp_path: Path) -> None:
        (tmp_path / "References").mkdir()
        write_mrc(tmp_path / "References/a.mrcs", np.zeros((2, 8, 8), np.float32), 3.5)
        kind = kind_of("pick")
        seen = context(kind, root=tmp_path, pick_method="template", pick_references="References/a.mrcs")
        options = kind.relion_options(seen)
        assert (options["angpix_ref"], options["particle_diameter"], options["mindist_autopick"]) == (
            "3.5",
            "180",
            "112.5",
        )
        assert (options["do_invert_refs"], options["do_ctf_autopick"]) == ("Yes", "Yes")

    def test_picks_are_shown_at_a_size_that_fits_a_screen(self) -> None:
        kind = kind_of("pick")
        found = row("raw/a", {}, ctf={"micrograph_pixel_size": 1.1}, motion={"shape": [4000, 5000]})
        viewer = kind.relion_viewer(context(kind, rows=(found,)))
        assert viewer is not None
        wanted = {"diameter": "150", "micscale": "0.2", "lowpass": "20", "angpix": "1.1", "sigma_contrast": "3"}
        assert {name: viewer.options[name] for name in wanted} == wanted


class TestImport:
    def options(self, root: Path, movies: list[str], others: list[str]) -> tuple[str, str]:
        """Return the pattern and what is said of it, for movies and other files in a project."""
        for name in (*movies, *others):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        kind = kind_of("import")
        rows = tuple(Row(Item(name, {}), Result(outputs={"movie": name})) for name in movies)
        seen = context(kind, root=root, rows=rows)
        return kind.relion_options(seen)["fn_in_raw"], " ".join(kind.relion_differences(seen))

    @pytest.mark.parametrize(
        ("movies", "others", "pattern"),
        [
            (["raw/a.tiff", "raw/b.tiff"], ["raw/a.xml", "raw/b.jpg"], "raw/*.tiff"),
            (["raw/a.tif", "raw/b.tiff"], ["raw/a.xml"], "raw/*.tif*"),
            (["raw/a_Fractions.mrc", "raw/b_Fractions.mrc"], ["raw/gain.mrc"], "raw/*_Fractions.mrc"),
            (["raw/x_1_f.mrc", "raw/x_2_f.mrc"], ["raw/gain_f.mrc"], "raw/x_*_f.mrc"),
            (["raw/one [a]*.eer"], ["raw/one.eer"], "raw/one ?a??.eer"),
        ],
    )
    def test_the_pattern_takes_the_movies_and_nothing_else(
        self, tmp_path: Path, movies: list[str], others: list[str], pattern: str
    ) -> None:
        assert self.options(tmp_path, movies, others) == (pattern, "")

    def test_what_one_pattern_cannot_say_is_told(self, tmp_path: Path) -> None:
        pattern, said = self.options(tmp_path, ["raw/a.mrc", "raw/b.mrc", "raw/c.eer"], ["raw/d.xml"])
        assert pattern == "raw/*.mrc"
        assert "leaves out 1 file that Beamside imported" in said
        pattern, said = self.options(tmp_path / "two", ["raw/a1.mrc", "raw/c1.mrc"], ["raw/b1.mrc"])
        assert "also takes 1 file that Beamside did not import, such as b1.mrc" in said
