"""Items of several optics groups: no table lists what was made with other optics than it says, whatever is changed, and when."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from beamside.acquisition.reports import ImportedFile
from beamside.cli.progress import optics_lines
from beamside.flow import control
from beamside.flow.cost import cost_of, results_of
from beamside.flow.dispatch import Dispatcher
from beamside.flow.keys import item_key
from beamside.flow.optics import MANY
from beamside.flow.session import Session
from beamside.flow.settings import OpticsParameters, SessionSettings
from beamside.flow.start import prepare
from beamside.flow.stored_settings import load_settings
from beamside.flow.table import Tables
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.jobs import registry
from beamside.jobs.base import Item, Optics, RelionContext, Result, Row
from beamside.jobs.optics import optics_table
from beamside.monitor.status import read_status
from beamside.project.project import Project
from beamside.project.records import ItemEntry, ItemState

Settings = Callable[..., SessionSettings]
WriteMovie = Callable[..., Path]

TILTED = "tilted: file matches *_tilt*; pixel_size = 0.5, beam_tilt_x = 1.5"
FIELDS = {
    "rlnMicrographOriginalPixelSize": "pixel_size",
    "rlnVoltage": "voltage",
    "rlnSphericalAberration": "spherical_aberration",
    "rlnAmplitudeContrast": "amplitude_contrast",
    "rlnBeamTiltX": "beam_tilt_x",
}


# -- tables of groups ---------------------------------------------------------------------------------------------------

PLAIN = Optics(1.0, 300.0, 2.7, 0.1, 1.0)


def row(optics: Optics | None) -> Row:
    return Row(Item("m"), Result(), optics)


def test_groups_are_numbered_as_they_come_and_have_names_of_their_own() -> None:
    tilted = replace(PLAIN, group="tilted", beam_tilt_x=1.0)
    other = replace(tilted, pixel_size=2.0)
    found = optics_table([row(tilted), row(None), row(other), row(tilted), row(PLAIN)], PLAIN)
    assert found.numbers == (1, 2, 3, 1, 2)
    block = found.block()
    assert block.column("rlnOpticsGroupName") == ["tilted", "opticsGroup1", "tilted_2"]
    assert block.column("rlnBeamTiltX") == [1.0, 0.0, 1.0]
    assert block.column("rlnMicrographOriginalPixelSize") == [1.0, 1.0, 2.0]
    empty = optics_table([], PLAIN).block()
    assert (empty.column("rlnOpticsGroupName"), "rlnBeamTiltX" in empty.columns) == (["opticsGroup1"], False)


@pytest.mark.parametrize("optics", [PLAIN, replace(PLAIN, group="a", beam_tilt_y=-0.25, common_pixel_size=1 / 3)])
def test_optics_are_kept_as_a_line(optics: Optics) -> None:
    assert Optics.from_text(optics.to_text()) == optics


def test_keys_have_optics_that_came_later_only_where_they_are_set() -> None:
    kind = registry.job_types()["extract"]
    plain = item_key(kind, kind.Parameters(), PLAIN, ["input"])
    assert plain == item_key(kind, kind.Parameters(), replace(PLAIN, group="a", beam_tilt_x=2.0), ["input"])
    assert plain != item_key(kind, kind.Parameters(), replace(PLAIN, common_pixel_size=0.5), ["input"])


def test_micrographs_are_imported_in_their_groups() -> None:
    tilted = replace(PLAIN, group="tilted", pixel_size=0.5)
    rows = [
        Row(Item(name), Result(outputs={"micrograph": f"Import/job001/{name}.mrc"}), optics)
        for name, optics in (("a", None), ("b", tilted))
    ]
    kind = registry.job_types()["import_micrographs"]
    found = kind.star_files(rows, kind.Parameters(), PLAIN, "Import/job001", Path())["micrographs.star"]
    assert isinstance(found, list)
    optics, micrographs = found
    assert micrographs.column("rlnOpticsGroup") == [1, 2]
    assert optics.column("rlnMicrographPixelSize") == optics.column("rlnMicrographOriginalPixelSize") == [1.0, 0.5]
    context = RelionContext(kind.Parameters(), PLAIN, rows=rows)
    assert "opticsGroup1 (1 file, 1 Å), tilted (1 file, 0.5 Å)" in kind.relion_differences(context)[-1]
    options = kind.relion_options(RelionContext(kind.Parameters(), PLAIN, rows=[*rows, rows[1]]))
    assert (options["optics_group_name"], options["angpix"]) == ("tilted", "0.5")
    assert kind.relion_options(RelionContext(kind.Parameters(), PLAIN))["optics_group_name"] == "opticsGroup1"


def test_a_rule_that_makes_very_many_groups_is_told() -> None:
    given = OpticsParameters(pixel_size=1.0, voltage=300, optics_group=["file{}: file matches {}.tiff"])
    optics = given.item_optics()
    entries = [
        ItemEntry(f"m{number}", ItemState.DONE, result={"values": {"source": f"/camera/m{number}.tiff"}})
        for number in range(MANY + 1)
    ]
    for number, entry in enumerate(entries):
        assert optics.of(entry).group == f"filem{number}"
        told = [trouble.key for trouble in optics.troubles(final=False)]
        assert told == (["optics:many:file{}"] if number == MANY else [])
    assert sum(optics.counts().values()) == MANY + 1
    entries[0].result = {"values": {"source": "/camera/other.mrc"}}
    assert optics.of(entries[0]).group == ""
    assert (optics.counts()["opticsGroup1"], list(optics.troubles(final=True))) == (1, [])


# -- sessions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files_that_tell(whole_chain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file that a job of the whole chain writes says with which optics it was made, besides its role."""
    import sys

    module = sys.modules["whole_chain"]

    def write(item: Item, workspace: Any, **suffixes: str) -> dict[str, str]:
        found = {}
        for role, suffix in suffixes.items():
            path = workspace.path(item, suffix)
            path.write_text(workspace.optics.to_text())
            found[role] = workspace.relative(path)
        return found

    classify, select = module.classify, module.select

    def gather(items: Sequence[Item], parameters: Any, workspace: Any, *, round_name: str, final: bool) -> Result:
        result = classify(items, parameters, workspace, round_name=round_name, final=final)
        rows = [Row(item, item.inputs["particles"].result, workspace.optics_of(item)) for item in items]
        found = optics_table(rows, workspace.optics)
        lines: list[list[str | int | float]] = [
            [row.result.outputs["particles"], row.item.output("micrograph"), number]
            for row, number in zip(rows, found.numbers, strict=True)
        ]
        block = StarBlock("particles", ["rlnImageName", "rlnMicrographName", "rlnOpticsGroup"], lines)
        write_star(workspace.root / result.outputs["data"], [found.block(), block])
        return result

    def choose(items: Sequence[Item], parameters: Any, workspace: Any, *, round_name: str, final: bool) -> Result:
        result = select(items, parameters, workspace, round_name=round_name, final=final)
        whole, shown = f"{workspace.job}/particles_whole.star", result.outputs["particles_star"]
        for path in (whole, shown):
            (workspace.root / path).write_bytes((workspace.root / items[0].output("data")).read_bytes())
        return replace(result, outputs={**result.outputs, "whole_star": whole})

    monkeypatch.setattr(module, "classify", gather)
    monkeypatch.setattr(module, "select", choose)
    monkeypatch.setattr(module, "write", write)


TABLES = {
    "MotionCorr": "MotionCorr/job*/corrected_micrographs.star",
    "CtfFind": "CtfFind/job*/micrographs_ctf.star",
    "Extract": "Extract/job*/particles.star",
    "Select": "Select/job*/particles.star",
}
USED = {
    "rlnMicrographName": ("pixel_size", "voltage"),
    "rlnCtfImage": ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast"),
    "rlnImageName": ("pixel_size",),
}
"""For each column that names a file, the optics that count for whoever made the file, and are in tables."""


def listed(root: Path, pattern: str) -> Iterator[tuple[dict[str, str], str, dict[str, float]]]:
    """Yield each row of a job's table, the name of its group, and the values of that."""
    (path,) = root.glob(pattern)
    blocks = read_star(path)
    number = blocks["optics"].columns.index("rlnOpticsGroup")
    groups = {line[number]: dict(zip(blocks["optics"].columns, line, strict=True)) for line in blocks["optics"].rows}
    table = next(block for name, block in blocks.items() if name != "optics")
    for line in table.rows:
        row = {label: str(value) for label, value in zip(table.columns, line, strict=True)}
        values = groups[row["rlnOpticsGroup"]]
        given = {name: float(values[label]) for label, name in FIELDS.items() if label in values}
        yield row, str(values["rlnOpticsGroupName"]), given


def check_tables(root: Path) -> dict[str, dict[str, str]]:
    """Check that the files of each row were made with what the table says, and return the group of each micrograph, by table."""
    groups: dict[str, dict[str, str]] = {}
    for job, pattern in TABLES.items():
        for row, group, values in listed(root, pattern) if list(root.glob(pattern)) else ():
            for column in USED.keys() & row.keys():
                made = Optics.from_text((root / row[column].split("@")[-1].removesuffix(":mrc")).read_text())
                wanted = {name: values[name] for name in USED[column]}
                assert {name: getattr(made, name) for name in wanted} == wanted, (row[column], group)
            groups.setdefault(job, {})[Path(row["rlnMicrographName"]).stem.removesuffix("_fractions")] = group
    return groups


def run(settings: SessionSettings) -> Project:
    assert Session(settings, until_empty=True).run() == "finished"
    return Project(settings.root)


def calls(project: Project) -> list[str]:
    path = project.root / "calls.txt"
    found = path.read_text().replace("_fractions", "").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(found)


def keys(project: Project) -> dict[str, dict[str, str]]:
    jobs = [job for job in project.load().jobs.values() if job.type_name not in ("class2d", "select")]
    return {job.type_name: {entry.name: entry.key for entry in job.items.values()} for job in jobs}


@pytest.mark.usefixtures("files_that_tell")
def test_two_groups_are_in_every_table_and_in_keys(session_settings: Settings, write_movie: WriteMovie) -> None:
    for name in ("a", "b_tilt", "c"):
        write_movie(name)
    project = run(session_settings(optics_group=[TILTED]))
    groups = {"a": "opticsGroup1", "b_tilt": "tilted", "c": "opticsGroup1"}
    assert check_tables(project.root) == dict.fromkeys(TABLES, groups)
    imported = {
        Path(row["rlnMicrographMovieName"]).stem: (group, values["pixel_size"], values["beam_tilt_x"])
        for row, group, values in listed(project.root, "Import/job*/movies.star")
    }
    assert imported == {
        "a_fractions": ("opticsGroup1", 1.0, 0.0),
        "b_tilt_fractions": ("tilted", 0.5, 1.5),
        "c_fractions": ("opticsGroup1", 1.0, 0.0),
    }
    plain = keys(run(session_settings(name="plain")))
    differing = {
        job: [name for name in found if found[name] != plain[job][name]] for job, found in keys(project).items()
    }
    tilted = ["raw/b_tilt_fractions"]
    assert differing == {"import": [], **dict.fromkeys(("motion", "ctf", "pick", "extract"), tilted)}
    calls(project)
    run(load_settings(project))
    assert calls(project) == []


@pytest.mark.usefixtures("files_that_tell")
@pytest.mark.parametrize("results", [1, 4, 7])
def test_a_group_that_changes_in_mid_session_costs_what_uses_it_and_no_table_ever_lies(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch, results: int
) -> None:
    for name in ("a", "b_tilt", "c_tilt"):
        write_movie(name)
    settings = session_settings(optics_group=[TILTED])
    prepare(settings)
    project = run(settings)
    calls(project)
    changed = [TILTED.replace("0.5,", "0.6,")]
    control.send(project, "set", {"values": {"optics_group": changed}})

    class Death(BaseException):
        """The process ends at once."""

    seen, done, finished, queued = list[Any](), list[Any](), Dispatcher.finished, Tables.queued

    def look() -> None:
        session.projection.refresh(dict, force=True)
        try:
            seen.append(check_tables(project.root))
        except AssertionError as error:  # the session would take it for a fault of this result, and go on
            seen.append(error)

    def look_before_it_begins(tables: Tables, *given: Any) -> int:
        task = queued(tables, *given)
        look()
        return task

    def die_after_some(dispatcher: Dispatcher, event: Any) -> None:
        look()  # the files are there, and nobody knows
        finished(dispatcher, event)
        look()
        done.append(event)
        if len(done) == results:
            raise Death

    session = Session(settings, until_empty=True)
    with monkeypatch.context() as patched:
        patched.setattr(Dispatcher, "finished", die_after_some)
        patched.setattr(Tables, "queued", look_before_it_begins)
        with pytest.raises(Death):
            session.run()
    assert all(isinstance(one, dict) for one in seen), seen
    check_tables(project.root)
    run(load_settings(project))
    groups = {"a": "opticsGroup1", "b_tilt": "tilted", "c_tilt": "tilted"}
    assert check_tables(project.root) == dict.fromkeys(TABLES, groups)
    assert {call.split()[1] for call in calls(project)} == {"b_tilt", "c_tilt"}
    assert keys(project) == keys(run(session_settings(name="fresh", optics_group=changed)))


@pytest.mark.usefixtures("files_that_tell")
def test_what_no_job_uses_changes_tables_and_computes_nothing(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for name in ("a", "b_tilt"):
        write_movie(name)
    project = run(session_settings())
    calls(project)
    now = session_settings(optics_group=["tilted: file matches *_tilt*; beam_tilt_x = 1.5"], beam_tilt_y=0.5)
    assert results_of(cost_of(now)) == 0
    run(now)
    assert calls(project) == []
    assert check_tables(project.root)["Extract"] == {"a": "opticsGroup1", "b_tilt": "tilted"}
    assert [values["beam_tilt_x"] for _, _, values in listed(project.root, "MotionCorr/job*/*_micrographs.star")] == [
        0,
        1.5,
    ]


@pytest.mark.usefixtures("files_that_tell")
def test_a_record_of_the_microscope_that_comes_late_decides_the_group(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    movie = write_movie("a")
    project = run(session_settings(optics_group=["high: magnification > 100000; amplitude_contrast = 0.07"]))
    assert check_tables(project.root)["CtfFind"] == {"a": "opticsGroup1"}
    calls(project)
    movie.with_suffix(".tiff.mdoc").write_text("Magnification = 130000\n")
    run(load_settings(project))
    assert check_tables(project.root)["CtfFind"] == {"a": "high"}
    assert calls(project) == ["ctf a", "extract a", "pick a"]
    run(load_settings(project))
    assert calls(project) == []


@pytest.mark.usefixtures("files_that_tell")
def test_results_of_a_journal_that_says_no_optics_stay_and_are_listed(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("a")
    settings = session_settings()
    project = run(settings)
    calls(project)
    for journal in project.journals.glob("*.jsonl"):
        lines = (
            journal.read_text()
            .replace('"optics":"- 1 300 2.7 0.1 1",', "")
            .replace(',"optics":"- 1 300 2.7 0.1 1"', "")
        )
        assert '"optics":"' not in lines
        journal.write_text(lines)
    tables = {path: path.read_text() for pattern in TABLES.values() for path in project.root.glob(pattern)}
    run(load_settings(project))
    assert calls(project) == []
    assert {path: path.read_text() for path in tables} == tables
    run(session_settings(amplitude_contrast=0.07))
    assert check_tables(project.root)["CtfFind"] == {"a": "opticsGroup1"}


@pytest.mark.usefixtures("files_that_tell")
def test_counts_overlaps_and_rules_that_never_held_are_told(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for name in ("a", "b_tilt", "c_tilt", "d_shot2", "e_shot1", "f_shot2"):
        write_movie(name)
    groups = [TILTED, "late: file matches c_*", "shot{}: file matches *_shot{}_*", "never: magnification > 1e6"]
    project = run(session_settings(optics_group=groups))
    status = read_status(project)
    assert status.optics == {"opticsGroup1": 1, "tilted": 2, "late": 0, "shot1": 1, "shot2": 2, "never": 0}
    told = {problem.key: (problem.severity, problem.text) for problem in status.problems}
    assert told["optics:overlap:tilted+late"][0] == "info"
    assert "raw/c_tilt_fractions match the optics groups tilted and late" in told["optics:overlap:tilted+late"][1]
    assert "No file matches the optics group never (magnification > 1000000)" in told["optics:unmatched:never"][1]
    assert optics_lines(status.optics) == ["Optics groups: opticsGroup1 1, tilted 2, late 0, shot1 1, shot2 2, never 0"]
    assert set(check_tables(project.root)["Extract"].values()) == {"opticsGroup1", "tilted", "shot1", "shot2"}
    run(session_settings(optics_group=[TILTED]))
    assert not [problem for problem in read_status(project).problems if problem.key.startswith("optics:")]


# -- anything at all ----------------------------------------------------------------------------------------------------


def machine_of(toy: ModuleType) -> type[RuleBasedStateMachine]:
    """The tables of three jobs that use different optics; each worker writes one file, which says with what it was made."""
    names = st.sampled_from(["m1", "m2", "tilt1", "tilt2"])
    rules = st.lists(
        st.sampled_from(
            [
                "tilted: file matches tilt*; pixel_size = 0.5",
                "tilted: file matches tilt*; voltage = 200",
                "shot{}: file matches *{}.tiff; amplitude_contrast = 0.07",
                "high: magnification > 10; pixel_size = 0.5, beam_tilt_x = 1",
            ]
        ),
        max_size=2,
        unique_by=lambda text: text.split(":")[0],
    )

    class Changing(RuleBasedStateMachine):
        """A run whose optics are changed."""

        @initialize()
        def begin(self) -> None:
            self.folder = Path(tempfile.mkdtemp())
            self.toy = toy.Toy(self.folder / "changing")
            self.disk: dict[tuple[str, str], str] = {}
            self.known: dict[str, dict[str, float]] = {}

        def file(self, name: str) -> ImportedFile:
            return replace(toy.taken(name, "a").file, metadata=self.known[name])

        @rule(name=names)
        def a_file_comes(self, name: str) -> None:
            self.known.setdefault(name, {})
            self.toy.tables.intake_done(replace(toy.taken(name, "a"), file=self.file(name)))

        @rule(name=names, magnification=st.sampled_from([5.0, 20.0]))
        def more_is_known_of_a_file(self, name: str, magnification: float) -> None:
            if name in self.known:
                self.known[name] = {"magnification": magnification}
                self.toy.tables.intake_metadata(self.file(name))

        @rule()
        def work_is_given_out(self) -> None:
            self.toy.dispatcher.fill()

        def busy(self) -> bool:
            return bool(self.toy.hands.tasks)

        def write(self, number: int) -> None:
            task, _ = self.toy.hands.tasks[number]
            self.disk[task["label"], task["items"][0][0]] = Optics(**task["optics"]).to_text()

        @precondition(busy)
        @rule(data=st.data())
        def a_worker_writes_and_is_not_done(self, data: st.DataObject) -> None:
            self.write(data.draw(st.integers(0, len(self.toy.hands.tasks) - 1)))

        @precondition(busy)
        @rule(data=st.data())
        def a_worker_is_done(self, data: st.DataObject) -> None:
            number = data.draw(st.integers(0, len(self.toy.hands.tasks) - 1))
            self.write(number)
            self.toy.finish(number)

        @rule(
            groups=rules,
            pixel_size=st.sampled_from([1.0, 2.0]),
            contrast=st.sampled_from([0.1, 0.2]),
            live=st.booleans(),
        )
        def optics_are_changed(self, groups: list[str], pixel_size: float, contrast: float, live: bool) -> None:
            values = {"optics_group": groups, "pixel_size": pixel_size, "amplitude_contrast": contrast}
            new = SessionSettings.from_flat({**self.toy.settings.to_json(), **values})
            if live:
                self.toy.settings.take_over(new)
                self.toy.writer.settings(new.to_json())
                self.toy.tables.take_parameters()
            else:
                self.toy.settings = new
                self.toy.reopen()

        @rule()
        def the_process_is_killed(self) -> None:
            self.toy.reopen()

        @invariant()
        def no_table_lists_what_was_made_with_other_optics(self) -> None:
            for stage in self.toy.tables.stages if hasattr(self, "toy") else ():
                rows = stage.rows()
                names = [group.group for group in optics_table(rows, stage.optics).groups]
                assert len(names) == len(set(names))
                for one in rows:
                    assert one.optics is not None
                    for before in (*stage.before, stage):
                        if not before.is_source:
                            made = Optics.from_text(self.disk[before.label, one.item.name])
                            used = before.job_type.optics_used
                            assert made.used(used) == one.optics.used(used)

        def teardown(self) -> None:
            if not hasattr(self, "toy"):
                return
            self.drain(self.toy)
            fresh = toy.Toy(self.folder / "fresh", **{**self.toy.settings.to_json(), "target": self.folder / "fresh"})
            for name, metadata in self.known.items():
                fresh.tables.intake_done(
                    replace(toy.taken(name, "a"), file=replace(self.file(name), metadata=metadata))
                )
            fresh.work_off()
            assert self.keys(self.toy) == self.keys(fresh)
            for stage in self.toy.tables.stages[:4]:
                assert {one.item.name: one.optics for one in stage.rows()} == {
                    entry.name: stage.optics_of(entry.name) for entry in stage.job.items.values()
                }
            self.toy.writer.close()
            fresh.writer.close()

        def drain(self, toy: Any) -> None:
            toy.dispatcher.fill()
            while toy.hands.tasks:
                self.write(0)
                toy.finish()
                toy.dispatcher.fill()

        def keys(self, toy: Any) -> dict[str, dict[str, str]]:
            stages = toy.tables.stages[:4]
            return {stage.name: {entry.name: entry.key for entry in stage.job.items.values()} for stage in stages}

    return Changing


def test_whatever_changes_no_table_lies_and_the_end_is_that_of_a_fresh_run(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def using(kind: type[Any], *names: str) -> None:
        monkeypatch.setitem(registry.BUILT_IN, kind.name, type(kind.__name__, (kind,), {"optics_used": names}))

    using(toy.Step, "pixel_size", "voltage")
    using(toy.Second, "voltage", "amplitude_contrast")
    using(toy.Third, "pixel_size", "common_pixel_size")
    run_state_machine_as_test(
        machine_of(toy),
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
