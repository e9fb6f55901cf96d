"""RELION's pipeline as data: read from any version, written for all of them, put together again when torn."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import CorruptFileError, ProjectError
from beamside.formats.star import format_star, parse_star
from beamside.project.relion import Pipeline, RelionJob, RelionNode, job_directory, number_of_job, read_pipeline
from beamside.project.relion_pipeline import format_pipeline, parse_pipeline
from beamside.project.relion_types import (
    JOB_LABELS,
    STATUSES,
    job_label,
    job_number,
    node_label,
    node_number,
    node_number_from_file,
    relion4_label,
)

DATA = Path(os.environ.get("BEAMSIDE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = DATA.parent / "golden" / "relion313" / "mini"
RELION_5 = DATA / "em/star/pipelines/relion5_sppractice_default_pipeline.star"
RELION_4 = DATA / "em/star/pipelines/relion4_em-testdata_default_pipeline.star"
RELION_31 = DATA / "em/star/pipelines/relion31_starfile_default_pipeline.star"

needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not there")
needs_data = pytest.mark.skipif(not RELION_5.exists(), reason=f"{RELION_5} is not there (set BEAMSIDE_TEST_DATA)")

SMALL = b"""
# version 30001

data_pipeline_general

_rlnPipeLineJobCounter                       3


# version 30001

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessType #3
_rlnPipeLineProcessStatus #4
Import/job001/ Import/mymovies/            0            2
MotionCorr/job002/       None            1            0


# version 30001

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeType #2
Import/job001/movies.star            0
MotionCorr/job002/corrected_micrographs.star            1
masks/mask.mrc            7


# version 30001

data_pipeline_input_edges

loop_
_rlnPipeLineEdgeFromNode #1
_rlnPipeLineEdgeProcess #2
Import/job001/movies.star MotionCorr/job002/
gone.star MotionCorr/job002/


# version 30001

data_pipeline_output_edges

loop_
_rlnPipeLineEdgeProcess #1
_rlnPipeLineEdgeToNode #2
Import/job001/ Import/job001/movies.star
MotionCorr/job002/ MotionCorr/job002/corrected_micrographs.star

"""


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    jobs: list[RelionJob] = []
    names: list[str] = []
    for number in range(1, draw(st.integers(0, 6)) + 1):
        kind = draw(st.sampled_from(sorted(JOB_LABELS)))
        name = f"Type{kind}/{job_directory(number)}"
        outputs = tuple(
            RelionNode(f"{name}/out{i}.star", node, node_label(kind, node))
            for i, node in enumerate(draw(st.lists(st.integers(0, 3), max_size=3)))
        )
        inputs = tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=2))) if names else ()
        alias = draw(st.sampled_from([None, f"Type{kind}/alias{number}"]))
        jobs.append(RelionJob(name, kind, job_label(kind), alias, draw(st.sampled_from(STATUSES)), inputs, outputs))
        names += [node.name for node in outputs]
    return Pipeline(tuple(jobs), len(jobs) + 1)


class TestFile:
    def test_what_relion_31_wrote_is_understood(self) -> None:
        pipeline = parse_pipeline(SMALL)
        movies = RelionNode("Import/job001/movies.star", 0, "MicrographMoviesData.star.relion")
        corrected = RelionNode(
            "MotionCorr/job002/corrected_micrographs.star", 1, "MicrographsData.star.relion.motioncorr"
        )
        assert pipeline.jobs == (
            RelionJob("Import/job001", 0, "relion.import", "Import/mymovies", "Succeeded", (), (movies,)),
            RelionJob("MotionCorr/job002", 1, "relion.motioncorr", None, "Running", (movies.name,), (corrected,)),
        )
        assert pipeline.counter == 3
        assert pipeline.loose_nodes == (RelionNode("masks/mask.mrc", 7, "Mask3D.mrc"),)

    @given(pipelines())
    def test_what_is_written_is_read_back_the_same(self, pipeline: Pipeline) -> None:
        assert parse_pipeline(format_star(format_pipeline(pipeline)).encode()) == pipeline

    def test_numbers_and_labels_are_written_under_version_30001(self) -> None:
        blocks = parse_star(format_star(format_pipeline(parse_pipeline(SMALL))))
        assert {block.version for block in blocks.values()} == {30001}
        processes, nodes = blocks["pipeline_processes"], blocks["pipeline_nodes"]
        assert processes.texts("rlnPipeLineProcessStatus") == ["2", "0"]
        assert processes.texts("rlnPipeLineProcessStatusLabel") == ["Succeeded", "Running"]
        assert processes.texts("rlnPipeLineProcessTypeLabel") == ["relion.import", "relion.motioncorr"]
        assert nodes.texts("rlnPipeLineNodeType") == ["0", "1", "7"] or sorted(nodes.texts("rlnPipeLineNodeType")) == [
            "0",
            "1",
            "7",
        ]

    @pytest.mark.data
    @needs_data
    @pytest.mark.parametrize(("path", "jobs"), [(RELION_31, 31), (RELION_4, 8), (RELION_5, 8)], ids=["3.1", "4", "5"])
    def test_pipelines_of_every_version_are_read_and_written_for_all(self, path: Path, jobs: int) -> None:
        pipeline = parse_pipeline(path.read_bytes())
        assert len(pipeline.jobs) == jobs
        assert parse_pipeline(format_star(format_pipeline(pipeline)).encode()) == pipeline

    @pytest.mark.data
    @needs_data
    def test_relion_5_names_are_never_written_under_version_30001(self) -> None:
        assert b"MicrographGroupMetadata" in RELION_5.read_bytes()
        written = format_star(format_pipeline(parse_pipeline(RELION_5.read_bytes())))
        assert "MicrographsData.star.relion.motioncorr" in written
        assert "GroupMetadata" not in written

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (SMALL.replace(b"pipeline_general", b"general"), "no table data_pipeline_general"),
            (SMALL.replace(b"JobCounter                       3", b"JobCounter -1"), "job counter -1"),
            (SMALL.replace(b"0            2\n", b"0            9\n"), "status '9'"),
            (SMALL[: SMALL.index(b"    None") + 3], "has 1 values for 4 columns"),
        ],
    )
    def test_a_damaged_file_is_an_error(self, content: bytes, message: str) -> None:
        with pytest.raises(CorruptFileError, match=message):
            parse_pipeline(content)


class TestTypes:
    @pytest.mark.parametrize("number", sorted(JOB_LABELS))
    def test_job_numbers_and_labels_are_one_to_one(self, number: int) -> None:
        assert job_number(job_label(number)) == number

    def test_labels_with_more_fields_belong_to_their_type(self) -> None:
        assert (job_number("relion.import.movies"), job_number("someone.elses")) == (0, 99)

    @pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 7, 10, 12, 13, 14, 15])
    @pytest.mark.parametrize("job", [None, 1, 2, 8, 10, 16])
    def test_node_labels_mean_their_number(self, job: int | None, number: int) -> None:
        assert node_number(node_label(job, number)) == number

    @pytest.mark.parametrize(
        ("new", "old"),
        [
            ("MicrographMovieGroupMetadata.star.relion", "MicrographMoviesData.star.relion"),
            ("MicrographGroupMetadata.star.relion.ctf", "MicrographsData.star.relion.ctf"),
            ("ParticleGroupMetadata.star.relion.class2d", "ParticlesData.star.relion.class2d"),
            ("TomoOptimisationSet.star.relion.tomo.extract", "OptimisationSet.star.relion.tomo.extract"),
            ("OptimiserData.star.relion.class2d", "OptimiserData.star.relion.class2d"),
            ("DensityMap.mrc.relion.class3d", "DensityMap.mrc.relion.class3d"),
        ],
    )
    def test_relion_5_names_are_turned_back(self, new: str, old: str) -> None:
        assert relion4_label(new) == old
        assert relion4_label(old) == old

    @pytest.mark.parametrize(
        ("name", "number"),
        [
            ("a/movies.star", 0),
            ("micrographs_ctf.star", 1),
            ("x/particles.star", 3),
            ("m/mask.mrc", 7),
            ("h/half1.mrc", 10),
            ("a.mrc", 6),
        ],
    )
    def test_types_of_unknown_files_follow_their_names(self, name: str, number: int) -> None:
        assert node_number_from_file(name) == number

    def test_job_directories_have_three_digits_below_a_thousand(self) -> None:
        assert [job_directory(n) for n in (7, 999, 1000)] == ["job007", "job999", "job1000"]
        assert [number_of_job(name) for name in ("MotionCorr/job007", "Class2D/job1000/")] == [7, 1000]
        with pytest.raises(ProjectError, match="not a RELION job"):
            number_of_job("MotionCorr/first")


@pytest.mark.data
@needs_golden
class TestRecovery:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return Path(shutil.copytree(GOLDEN, tmp_path / "project"))

    def test_a_missing_pipeline_is_put_together_from_the_job_directories(self, root: Path) -> None:
        whole = read_pipeline(root)
        (root / "default_pipeline.star").unlink()
        assert read_pipeline(root) == whole

    @pytest.mark.parametrize("part", [0.0, 0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99])
    def test_a_pipeline_torn_anywhere_is_completed(self, root: Path, part: float) -> None:
        whole = read_pipeline(root)
        path = root / "default_pipeline.star"
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        found = read_pipeline(root)
        assert {job.name: job for job in found.jobs} == {job.name: job for job in whole.jobs}
        assert (found.counter, set(found.loose_nodes)) == (whole.counter, set(whole.loose_nodes))

    def test_a_pipeline_torn_between_rows_or_tables_is_completed(self, root: Path) -> None:
        whole = read_pipeline(root)
        path = root / "default_pipeline.star"
        lines = path.read_bytes().splitlines(keepends=True)
        for length in range(20, len(lines) - 2):
            path.write_bytes(b"".join(lines[:length]))
            assert set(read_pipeline(root).nodes()) == set(whole.nodes()), f"cut behind line {length}"

    def test_jobs_that_were_deleted_since_do_not_come_back(self, root: Path) -> None:
        (root / "default_pipeline.star").unlink()
        shutil.rmtree(root / "Select")
        assert [job.name for job in read_pipeline(root).jobs if job.name.startswith("Select")] == []
        assert read_pipeline(root).counter == 10

    def test_a_job_newer_than_every_copy_is_found_by_its_own_pipeline(self, root: Path) -> None:
        whole = read_pipeline(root)
        (root / "default_pipeline.star").unlink()
        (root / "External/job009/default_pipeline.star").unlink()
        found = read_pipeline(root)
        assert found.job("External/job009") == replace(whole.jobs[-1], alias=None)

    def test_an_alias_is_found_by_its_link(self, root: Path) -> None:
        (root / "default_pipeline.star").unlink()
        (root / "MotionCorr/good_one").symlink_to("../MotionCorr/job002/")
        job = read_pipeline(root).job("MotionCorr/job002")
        assert job is not None
        assert job.alias == "MotionCorr/good_one"

    def test_a_project_without_anything_is_empty(self, tmp_path: Path) -> None:
        assert read_pipeline(tmp_path) == Pipeline()
