import base64
import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from beamside.errors import ProjectError
from beamside.jobs import registry
from beamside.jobs.base import Metric
from beamside.jobs.motion import MotionCorrection
from beamside.monitor import report_series as series
from beamside.monitor.report import collect, render, script_safe_json, write_report
from beamside.monitor.report_curves import Step, backlog_of
from beamside.monitor.report_items import group_problems
from beamside.monitor.report_numbers import HistoryRow, present_warnings
from beamside.monitor.report_pictures import SHOWN_ITEMS, SIZES, PictureStore, choose_items, reduced_jpeg
from beamside.monitor.report_text import duration, metric_text, setting_text, volume
from beamside.monitor.status import read_status
from beamside.project.project import Project, ProjectWriter


def load_made_up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_project", Path(__file__).with_name("report_project.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MADE_UP = load_made_up()


class Page(HTMLParser):
    """What a browser would see: elements by name, and the text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style" and data.strip():
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return MADE_UP.make_session(tmp_path_factory.mktemp("lab") / "run1")


@pytest.fixture(scope="module")
def page(project: Project) -> Page:
    return Page(write_report(project).read_text(encoding="utf-8"))


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    made = []

    def make(mode: str = "movies") -> Any:
        made.append(MADE_UP.MadeUpSession(tmp_path / "lab" / "run1", mode))
        made[-1].open_jobs()
        return made[-1]

    yield make
    for each in made:
        each.writer.close()


# -- the page as a whole ------------------------------------------------------------------------------------------------


def test_the_report_is_one_file_that_asks_for_nothing(page: Page) -> None:
    sources = [attributes["src"] or "" for attributes in page.named("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not [attributes for attributes in page.named("script") if "src" in attributes]
    assert all((attributes["href"] or "").startswith("data:") for attributes in page.named("link"))
    assert all((attributes["href"] or "").startswith("#") for attributes in page.named("a"))


def test_links_inside_the_page_have_a_target(page: Page) -> None:
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {(attributes["href"] or "")[1:] for attributes in page.named("a")} <= targets


def test_names_and_reasons_of_files_are_text_and_never_markup(page: Page) -> None:
    assert len(page.scripts) == 2
    assert not page.named("b")
    assert "<script>alert(1)<img src=x>&\"'" in page.text
    assert "<b>not</b> a movie & </script><script>alert(2)</script>" in page.text
    assert "<script>alert(1)<img src=x>&\"'" in page.data["names"]


def test_only_the_pages_own_script_may_run(page: Page) -> None:
    policy = next(m["content"] or "" for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


@given(st.text())
def test_json_cannot_leave_its_script_element(text: str) -> None:
    made = script_safe_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(made)
    assert json.loads(made) == {text: [text]}


def test_every_file_is_accounted_for_by_what_became_of_it(page: Page) -> None:
    assert "2 files are not finished: 2 still to be processed. 60 files = 46 done + 5 rejected + 7 failed" in page.text


def test_tiles_count_failures_and_turn_red(project: Project) -> None:
    tiles = {tile.label: tile for tile in collect(project)["tiles"]}
    assert (tiles["Failed"].value, tiles["Failed"].tone) == ("7", "bad")
    assert (tiles["Rejected"].value, tiles["Rejected"].tone) == ("5", "bad")
    assert tiles["Files taken in"].value == "59"
    assert tiles["Particles classified"].value == "2\N{NARROW NO-BREAK SPACE}400"


def test_problems_are_grouped_by_the_kind_of_reason(project: Project) -> None:
    groups = collect(project)["problems"]
    assert [(group.stage, group.state, len(group.items)) for group in groups] == [
        ("Motion correction", "failed", 6),
        ("CTF estimation", "rejected", 5),
        ("Import", "failed", 1),
    ]
    assert groups[0].items[1] == ("raw/FoilHole_0014_Fractions", "raw/FoilHole_0014_Fractions has 14 frames only.")


def test_reasons_that_say_something_else_are_not_put_together() -> None:
    many = [
        ("A", "failed", f"raw/{name}", f"{name}.tiff is a hard case: {len(name)} times")
        for name in ("movie_1", "movie_22")
    ]
    many += [("A", "failed", f"raw/{name}", "no rings stand out at all") for name in ("a", "rings_1", "o")]
    assert sorted(len(group.items) for group in group_problems(many)) == [2, 3], "a name may be a part of a word"
    groups = group_problems([("A", "failed", "x", "too thick"), ("A", "failed", "y", "too dark")])
    assert len(groups) == 2


def test_warnings_and_the_sessions_history_are_shown(page: Page) -> None:
    assert "The gain reference <gain.mrc> has 3 zeros." in page.text
    assert "The session: finished." in page.text


def test_a_warning_of_before_the_last_start_is_only_in_the_history() -> None:
    rows = [
        HistoryRow("10:00", "session", "The session: started."),
        HistoryRow("10:01", "warning", "The pixel size differs."),
        HistoryRow("11:00", "session", "The session: started."),
        HistoryRow("11:01", "warning", "The dose differs."),
    ]
    assert present_warnings(rows) == rows[3:]
    assert present_warnings(rows[1:2]) == rows[1:2]


def test_without_scripts_the_numbers_pictures_and_parameters_are_there(page: Page) -> None:
    for text in (
        "Defocus (µm)",
        "Total motion",
        "round002",
        "Share",
        "pixel_size",
        "1.1 Å",
        "300 kV",
        "torch",
    ):
        assert text in page.text
    assert re.search(r"Defocus 1\.\d\d µm", page.text)


def test_settings_that_differ_from_the_defaults_are_marked(project: Project) -> None:
    rows = {row.name: row for section in collect(project)["sections"] for row in section.rows}
    assert (rows["classes"].value, rows["classes"].default, rows["classes"].changed) == ("20", "default: 50", True)
    assert not rows["cs"].changed
    assert rows["cs"].value == "2.7 mm"


def test_what_was_left_to_the_program_is_shown_as_it_was_resolved(project: Project) -> None:
    rows = {row.name: row for section in collect(project)["sections"] for row in section.rows}
    resolved = {name: (rows[name].value, rows[name].automatic) for name in rows if rows[name].automatic}
    assert resolved == {
        "pick_border": ("60 Å", True),
        "box_size": ("180 px", True),
        "background_diameter": ("148.5 Å", True),
        "class_increment": ("1000", True),
        "class_mask": ("198 Å", True),
    }
    assert not any(rows[name].changed for name in resolved)


def test_settings_of_an_earlier_version_may_lack_parameters(session: Callable[..., Any]) -> None:
    made = session()
    made.writer.settings({"mode": "movies"})
    made.item(1)
    rows = [row.name for section in collect(made.writer.project)["sections"] for row in section.rows]
    assert rows == []


def test_the_gain_references_way_is_shown_as_the_movies_decided_it(session: Callable[..., Any]) -> None:
    made = session()
    made.writer.settings(
        {**made.writer.state.settings, "gain": "/camera/gain.mrc", "gain_flip": "none", "gain_rotate": 0}
    )
    decided = {
        "reference": "/camera/gain.mrc",
        "shape": [64, 64],
        "state": "decided",
        "sentence": "It is turned.",
        "by": "movies",
    }

    def rows() -> dict[str, Any]:
        sections = collect(made.writer.project)["sections"]
        return {row.name: (row.value, row.automatic) for section in sections for row in section.rows}

    assert rows()["gain_mode"] == ("auto", False)
    with made.now():
        made.writer.finding("key", {**decided, "rotate": 0, "flip": "none", "use": "divide"})
    shown = rows()
    assert shown["gain_rotate"] == ("0 °", False)
    assert shown["gain_mode"] == ("divide", True)
    assert shown["gain_flip"] == ("none", False)


def test_a_value_that_was_given_is_shown_as_it_was_given(session: Callable[..., Any]) -> None:
    made = session()
    settings = made.writer.state.settings
    made.writer.settings({**settings, "box_size": 200, "pick_border": 25.0})
    made.item(1)
    rows = {row.name: row for section in collect(made.writer.project)["sections"] for row in section.rows}
    assert (rows["box_size"].value, rows["box_size"].automatic) == ("200 px", False)
    assert (rows["pick_border"].value, rows["pick_border"].automatic) == ("25 Å", False)


@pytest.mark.parametrize("mode", ["movies", "micrographs"])
def test_a_rejected_exposure_shows_its_micrograph_first(session: Callable[..., Any], mode: str) -> None:
    made = session(mode)
    made.item(1, stop="ctf", state="rejected", reason="no rings")
    (card,) = collect(made.writer.project)["gallery"].cards
    assert card.item.state == "rejected"
    assert card.pictures[0].micrograph
    assert "icrograph" in card.pictures[0].caption


def test_pictures_of_micrographs_are_larger_than_others(session: Callable[..., Any]) -> None:
    made = session()
    made.size = 1200
    made.item(1, stop="pick", state="waiting")
    (card,) = collect(made.writer.project)["gallery"].cards
    widths = {picture.caption: picture.width for picture in card.pictures}
    assert widths == {
        "Corrected micrograph": 1024,
        "Motion track": 720,
        "CTF fit, 1-D": 720,
        "CTF fit, 2-D: spectrum and model": 720,
    }


def test_open_problems_come_before_what_failed(session: Callable[..., Any]) -> None:
    made = session()
    made.item(1, stop="motion", reason="a frame is missing")
    with made.now():
        made.writer.problem(
            {
                "key": "disk",
                "state": "open",
                "sentence": "The disk of the target is full.",
                "severity": "error",
                "count": 2,
            }
        )
    text = Page(render(collect(made.writer.project))).text
    section = text[text.index("Problems", text.index("Measurements")) :]
    assert section.index("The disk of the target is full. (for the 2nd time)") < section.index("a frame is missing")


def test_every_table_of_the_pages_width_can_be_scrolled(project: Project) -> None:
    content = collect(project)
    html = render(content)
    in_columns = len(content["gallery"].cards) + len(content["sections"])  # these are narrow, and wrap
    assert html.count("<table") - in_columns == len(re.findall(r'<div class="scroll[^"]*"><table', html))


def test_classes_are_listed_by_size_and_empty_ones_left_out(project: Project) -> None:
    (view,) = collect(project)["aggregates"]
    assert view.part_headings == ("Class", "Particles", "Share", "Resolution")
    assert [row[:3] for row in view.parts] == [("2", "960", "40.0 %"), ("4", "840", "35.0 %"), ("3", "600", "25.0 %")]
    assert [row[0] for row in view.rounds] == ["round002", "round001"]
    assert len(view.pictures) == 1


def test_selected_classes_are_listed_by_score(session: Callable[..., Any]) -> None:
    made = session()
    made.item(1)
    made.selection([(100, 0.31, False), (0, 0.0, False), (80, 0.92, True)])
    (view,) = collect(made.writer.project)["aggregates"]
    assert view.title == "Class selection"
    assert view.part_headings == ("Class", "Particles", "Resolution", "Class score (0 to 1)", "Selected", "Long axis")
    assert view.parts == (
        ("3", "80", "12.0 Å", "0.92", "yes", "150 Å"),
        ("1", "100", "12.0 Å", "0.31", "no", "150 Å"),
    )


def test_what_results_were_computed_on_is_told_by_job(session: Callable[..., Any]) -> None:
    made = session()
    for number, device in enumerate(("", "cpu", "cuda:0", "cuda:0")):
        made.item(number, device=device)
    rows = {row.status.name: row.devices for row in collect(made.close())["stages"]}
    assert (rows["motion"], rows["ctf"]) == ("2 on cuda:0, 1 on cpu", "")


def test_where_all_results_were_computed_on_one_device_it_is_named_alone(session: Callable[..., Any]) -> None:
    made = session()
    made.item(1, device="cuda:1")
    assert "<td>cuda:1</td>" in render(collect(made.close()))


def test_the_plots_have_every_measured_value_in_shown_units(page: Page) -> None:
    metrics = {metric["key"]: metric for metric in page.data["metrics"]}
    defocus = metrics["ctf.defocus"]
    assert len(defocus["items"]) == len(defocus["values"]) == 53
    assert defocus["unit"] == "µm"
    assert all(0.3 < value < 3 for value in defocus["values"])
    assert len(page.data["names"]) == len(page.data["taken"]) == len(page.data["states"]) == 60
    assert page.data["states"].count("r") == 5


def test_curves_end_at_what_the_tables_say(page: Page) -> None:
    assert {curve["name"]: curve["points"][-1][1] for curve in page.data["progress"]}["Extraction"] == 46
    assert page.data["backlog"][-1][1] == 2


def test_what_is_computed_again_does_not_change_the_past(session: Callable[..., Any]) -> None:
    """Hours later all is computed again: there was no backlog in between, the first results were work as well, and no file came twice."""
    made = session()
    names = [made.item(number) for number in range(6)]
    project = made.writer.project
    before = collect(project)["plots"]
    arrivals = read_status(project).stages[0].per_hour
    made.clock += 7200
    made.again(names, "import")  # as when the gain reference has another content
    after = collect(project)["plots"]
    assert read_status(project).stages[0].per_hour == arrivals > 0

    def upto(points: list[list[float]], moment: float) -> list[list[float]]:
        return [point for point in points if point[0] <= moment]

    end = before["backlog"][-1][0]
    assert upto(after["backlog"], end) == before["backlog"]
    assert upto(after["backlog"], 7200)[-1][1] == 0
    assert [max(level for _, level in after["backlog"]), after["backlog"][-1][1]] == [6, 0]
    for curve, was in zip(after["progress"], before["progress"], strict=True):
        assert upto(curve["points"], end) == was["points"][:-1]  # the last one only draws the line to the end
        assert curve["points"][-1][1] == 6
    done = {
        curve["name"]: sum(rate * (later[0] - at) / 3600 for (at, rate), later in pairwise(curve["points"]))
        for curve in after["rates"]
    }
    assert {name: round(number) for name, number in done.items()} == {
        "Import": 6,
        "Motion correction": 12,
        "CTF estimation": 12,
        "Picking": 12,
        "Extraction": 12,
    }


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from("abc"),
            st.integers(0, 50),
            st.sampled_from(["waiting", "done", "rejected", "failed"]),
        )
    )
)
def test_the_backlog_ends_with_what_is_in_work_whatever_the_clock_did(
    records: list[tuple[int, str, int, str]],
) -> None:
    chain = [
        [(item, float(moment), state) for job, item, moment, state in records if job == wanted] for wanted in range(3)
    ]
    work = backlog_of([Step(passages, range(number)) for number, passages in enumerate(chain)])
    states = {item: [{i: s for i, _, s in passages}.get(item, "") for passages in chain] for _, item, _, _ in records}
    ended = [next((s for s in now if s != "done"), "done") in ("done", "rejected", "failed") for now in states.values()]
    assert len(work.opened) - len(work.closed) == ended.count(False)
    assert all(level >= 0 for _, level in series.backlog(work.opened, work.closed))


def test_the_backlog_of_a_graph_is_what_some_job_has_to_do() -> None:
    steps = [
        Step([(item, 0.0, "done") for item in "abcd"]),
        Step([("a", 1.0, "done"), ("b", 2.0, "failed"), ("c", 2.0, "done"), ("d", 4.0, "failed")], [0]),
        Step([("a", 3.0, "done"), ("b", 4.0, "done"), ("c", 3.0, "waiting"), ("d", 5.0, "rejected")], [0]),
        Step([("c", 3.0, "done"), ("a", 6.0, "done"), ("b", 7.0, "done")], one_of=[1, 2]),
    ]
    work = backlog_of(steps)
    assert work.opened == (0.0,) * 4
    assert work.closed == (5.0, 6.0, 7.0), "what one picker gave up is in work until the other is done, and c still is"
    assert backlog_of(steps, over={"c"}).closed == (5.0, 6.0, 7.0, 4.0), "nothing more comes of c"


def test_a_new_measurement_or_job_type_needs_no_change_here(
    session: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = session()
    made.item(1)

    class Extended(MotionCorrection):
        title = "Better motion correction"
        metrics = (Metric("motion_total", "Wobble", "Å", digits=3, good="low"),)

    monkeypatch.setitem(registry.BUILT_IN, "motion", Extended)
    text = Page(render(collect(made.writer.project))).text
    assert "Better motion correction" in text
    assert "Wobble (Å)" in text
    assert "Early motion" not in text


# -- sessions that are not finished --------------------------------------------------------------------------------------


def test_a_project_without_anything_has_a_report(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path / "lab" / "run1")) as writer:
        page = Page(write_report(writer.project).read_text(encoding="utf-8"))
    assert "No file has been taken in yet." in page.text
    assert page.data["metrics"] == []


def test_a_session_that_has_just_begun_has_a_report(session: Callable[..., Any]) -> None:
    page = Page(render(collect(session().writer.project)))
    assert "Nothing has been measured yet." in page.text
    assert "Nothing failed and nothing was rejected." in page.text


def test_one_item_is_enough(session: Callable[..., Any]) -> None:
    made = session()
    made.item(1)
    page = Page(render(collect(made.writer.project)))
    assert "1 file = 1 done" in page.text
    assert len(page.named("article")) == 1


def test_a_session_with_nothing_but_failures_has_a_report(session: Callable[..., Any]) -> None:
    made = session()
    for number in range(3):
        made.item(number, stop="import", reason="the file is truncated")
    page = Page(render(collect(made.writer.project)))
    assert "3 files = 0 done + 3 failed" in page.text
    assert "no pictures" in page.text


def test_micrographs_have_no_motion(session: Callable[..., Any]) -> None:
    made = session("micrographs")
    for number in range(4):
        made.item(number)
    text = Page(render(collect(made.writer.project))).text
    assert "Every file is accounted for: 4 files = 4 done." in text
    assert "Motion correction" not in text


def test_a_killed_session_is_said_to_be_so(session: Callable[..., Any]) -> None:
    made = session()
    made.item(1, stop="ctf", state="waiting")
    text = Page(render(collect(made.close("")))).text
    assert "beamside session resume" in text
    assert "1 file is not finished" in text


def test_a_later_job_does_not_count_a_failed_item_again(session: Callable[..., Any]) -> None:
    made = session()
    name = made.item(1, stop="motion", reason="no frames")
    with made.now():
        made.writer.item(made.jobs["ctf"], name, MADE_UP.ItemState.WAITING)
        made.writer.item(made.jobs["ctf"], name, MADE_UP.ItemState.FAILED, reason="Motion correction was failed")
    (group,) = collect(made.writer.project)["problems"]
    assert (group.stage, group.reason) == ("Motion correction", "no frames")


def test_values_that_are_no_numbers_are_left_out(session: Callable[..., Any]) -> None:
    made = session()
    job, state = made.jobs["import"], MADE_UP.ItemState
    with made.now():
        made.writer.item(job, "raw/a", state.WAITING)
        made.writer.item(job, "raw/a", state.QUEUED)
        metrics = {"gigabytes": float("nan"), "megabytes_per_second": float("inf")}
        made.writer.item(job, "raw/a", state.DONE, result={"metrics": metrics})
    assert Page(render(collect(made.writer.project))).data["metrics"] == []


def test_a_damaged_or_missing_picture_is_left_out(session: Callable[..., Any]) -> None:
    made = session()
    name = made.item(1)
    root = made.root
    (root / f"{made.jobs['motion']}/{name}_thumbnail.png").unlink()
    (root / f"{made.jobs['pick']}/{name}_picks_image.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (card,) = collect(made.writer.project)["gallery"].cards
    captions = [picture.caption for picture in card.pictures]
    assert "Motion track" in captions
    assert not {"Corrected micrograph", "Picked particles"} & set(captions)


def test_no_project_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="is not a Beamside project"):
        write_report(Project(tmp_path / "nothing"))


def test_a_report_that_cannot_be_written_names_the_file(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProjectError, match=r"report\.html cannot be written"):
        write_report(project, tmp_path / "file" / "report.html")


def test_the_report_goes_where_it_is_wanted_and_leaves_nothing_else(project: Project, tmp_path: Path) -> None:
    target = tmp_path / "new" / "today.html"
    assert write_report(project, target) == target
    assert [path.name for path in target.parent.iterdir()] == ["today.html"]


# -- pictures -------------------------------------------------------------------------------------------------------------


def test_small_copies_are_kept_for_the_next_report_and_unused_ones_removed(project: Project) -> None:
    write_report(project)
    cache = project.private / "report-cache"
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    (cache / "old.jpg").write_bytes(b"x")
    write_report(project)
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def test_a_picture_that_was_made_again_is_copied_again(session: Callable[..., Any]) -> None:
    made = session()
    name = made.item(1)
    store = PictureStore(made.writer.project)
    relative = f"{made.jobs['motion']}/{name}_thumbnail.png"
    (first,) = store.embed([("a", relative, SIZES[0])])
    Image.new("L", (30, 40)).save(made.root / relative)
    (second,) = store.embed([("a", relative, SIZES[0])])
    assert first is not None
    assert second is not None
    assert (second.width, second.height) == (30, 40)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_copies_are_no_larger_than_wanted(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (1000, 500)).save(tmp_path / "a.png")
    with Image.open(io.BytesIO(reduced_jpeg(tmp_path / "a.png", SIZES[0]))) as copy:
        assert copy.format == "JPEG"
        assert copy.size == (SIZES[0].pixels, SIZES[0].pixels // 2)


def test_drawings_on_white_are_told_from_photographs(session: Callable[..., Any]) -> None:
    made = session()
    Image.new("RGB", (40, 40), "white").save(made.root / "drawing.png")
    Image.new("RGB", (40, 40), "grey").save(made.root / "photograph.png")
    store = PictureStore(made.writer.project)
    found = store.embed([("", "drawing.png", SIZES[0]), ("", "photograph.png", SIZES[0])])
    assert [picture.drawing for picture in found if picture] == [True, False]


def test_many_pictures_are_made_smaller_so_that_all_of_them_fit(project: Project) -> None:
    store = PictureStore(project)
    paths = [path.relative_to(project.root).as_posix() for path in sorted(project.root.glob("MotionCorr/*/raw/*.png"))]
    assert store.fitting_size(paths, budget=10**9) == SIZES[0]
    assert store.fitting_size(paths, budget=1) == SIZES[-1]
    assert store.fitting_size([]) == SIZES[0]


def test_all_items_are_shown_when_there_are_few() -> None:
    assert choose_items(["a", "b"], [], []) == {"a", "b"}


def test_of_many_items_the_newest_the_bad_and_the_worst_are_shown() -> None:
    order = [f"i{number}" for number in range(5000)]
    values = [(name, float(number % 1000)) for number, name in enumerate(order[:3000])]
    metric = Metric("m", "M", "Å", good="low")
    shown = choose_items(order, ["i17", "i900"], [(metric, values), (replace(metric, good="high"), values)])
    assert len(shown) == SHOWN_ITEMS
    assert set(order[-60:]) <= shown
    assert {"i17", "i900", "i2999", "i1999", "i0", "i1000"} <= shown
    rest = sorted(int(name[1:]) for name in shown if int(name[1:]) < 4940)
    assert max(b - a for a, b in pairwise(rest)) < 250


# -- numbers ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_quartiles_are_in_order(values: list[float]) -> None:
    found = series.spread(values)
    assert found.lowest == min(values)
    assert found.highest == max(values)
    assert found.lowest <= found.lower_quartile + 1e-6 <= found.median + 2e-6 <= found.upper_quartile + 3e-6


def test_the_median_of_an_even_number_is_between_the_two() -> None:
    assert series.spread([1.0, 2.0, 3.0, 10.0]).median == 2.5


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=300), st.integers(1, 400))
def test_rates_add_up_to_the_number_of_items(times: list[float], items: int) -> None:
    start, end = min(times), max(times) + 1.0
    points = series.hourly_rate(times, start, end, series.bin_width(end - start, items))
    total = sum(rate * (after[0] - at) / 3600 for (at, rate), after in pairwise(points))
    assert total == pytest.approx(len(times))


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e5)), max_size=1500))
def test_the_backlog_never_is_negative_and_ends_with_what_is_left(stays: list[tuple[float, float]]) -> None:
    arrivals, ends = [a for a, _ in stays], [a + length for a, length in stays if length > 10]
    points = series.backlog(arrivals, ends)
    assert all(level >= 0 for _, level in points)
    if points:
        assert points[-1][1] == len(arrivals) - len(ends)
    assert len(points) <= series.CURVE_POINTS + 2


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    points = series.level([(float(second), 1) for second in range(10_000)], 20_000.0)
    assert len(points) <= series.CURVE_POINTS + 2
    assert (points[0], points[-2:]) == ((0.0, 0.0), [(9999.0, 10_000.0), (20_000.0, 10_000.0)])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.24, "4.2 s"),
        (59.99, "1 min 0 s"),
        (61, "1 min 1 s"),
        (8040, "2 h 14 min"),
        (200_000, "2 d 7 h"),
        (-1, "0.0 s"),
    ],
)
def test_durations_have_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_have_their_units() -> None:
    assert metric_text(Metric("d", "Defocus", "µm", scale=1e-4), 15234.0) == "1.52 µm"
    assert volume(0.238) == "238 MB"
    assert volume(1530) == "1.53 TB"
    assert setting_text([130.0, 190.0], "Å") == "130 to 190 Å"
    assert setting_text(False) == "no"
    assert setting_text("") == "none"
