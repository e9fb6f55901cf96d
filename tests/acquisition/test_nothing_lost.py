"""Whatever a camera, a network and a person do, a source that is gone is in the project with every frame that was ever written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest, verify_manifest
from beamside.acquisition.settings import AcquisitionSettings
from beamside.formats.movies import open_movie
from beamside.formats.mrc import make_header

FRAMES, SHAPE = 5, (8, 12)


class Camera(RuleBasedStateMachine):
    """A camera that writes one movie after the other, frame by frame, and stops for any time at any point; a session that removes sources."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        (self.root / "camera").mkdir()
        self.now, self.movies, self.written = 0.0, list[np.ndarray](), 0

    @initialize()
    def the_first_session(self) -> None:
        self.a_session_starts()

    @rule()
    def a_session_starts(self) -> None:
        chosen = AcquisitionSettings(data=(str(self.root / "camera"),), remove_source=True, compress=False)
        manifest = Manifest(self.root / "project")
        self.intake = Intake(chosen, self.root / "project/raw", manifest, clock=lambda: self.now)

    def source(self, number: int) -> Path:
        return self.root / f"camera/m{number}.mrc"

    @precondition(lambda self: not self.movies or self.written == FRAMES)
    @rule()
    def a_movie_begins(self) -> None:
        seed, self.written = len(self.movies), 0
        self.movies.append(np.random.default_rng(seed).integers(1, 9, (FRAMES, *SHAPE)).astype("<i2"))
        self.frames_are_written(1)

    @precondition(lambda self: self.movies and self.written < FRAMES)
    @rule(count=st.integers(1, 2), seconds=st.sampled_from([3.0, 100.0]), looks=st.integers(0, 6))
    def frames_are_written(self, count: int, seconds: float = 3.0, looks: int = 0) -> None:
        self.written = min(FRAMES, self.written + count)
        frames, path = self.movies[-1][: self.written], self.source(len(self.movies) - 1)
        assert len(frames) == count or path.exists(), "the camera still wrote to it"
        path.write_bytes(make_header(frames, 1.0, volume=False) + frames.tobytes())
        self.the_session_looks(seconds, looks)

    @precondition(lambda self: self.movies and self.written < FRAMES)
    @rule(part=st.integers(1, 191))
    def part_of_a_frame_is_written(self, part: int) -> None:
        with open(self.source(len(self.movies) - 1), "ab") as file:
            file.write(b"\1" * part)

    @precondition(lambda self: self.movies)
    @rule(number=st.integers(0, 50))
    def what_was_recorded_comes(self, number: int) -> None:
        path = self.root / f"camera/m{number % len(self.movies)}.mrc.mdoc"
        path.write_text(f"[FrameSet = 0]\nNumSubFrames = {FRAMES}\n")

    @rule(seconds=st.sampled_from([1.0, 3.0, 100.0, 100_000.0]), count=st.integers(1, 5))
    def the_session_looks(self, seconds: float, count: int) -> None:
        for _ in range(count):
            self.now += seconds
            for arrival in self.intake.look().new:
                self.intake.take(arrival)

    def is_in_the_project(self, number: int) -> bool:
        newest = {taken.source: taken.path for taken in self.intake.taken()}
        path = newest.get(str(self.source(number)))
        if path is None:
            return False
        with open_movie(self.root / "project" / path) as movie:
            return np.array_equal(movie.read(), self.movies[number])

    @invariant()
    def what_is_gone_is_in_the_project(self) -> None:
        for number in range(len(self.movies)):
            assert self.source(number).exists() or self.is_in_the_project(number)

    def teardown(self) -> None:
        with self.folder:
            self.all_is_written_and_recorded()

    def all_is_written_and_recorded(self) -> None:
        if self.movies and self.written < FRAMES:
            self.frames_are_written(FRAMES - self.written)
        for number in range(len(self.movies)):
            self.what_was_recorded_comes(number)
        self.the_session_looks(1000.0, 12)
        self.what_is_gone_is_in_the_project()
        assert all(self.is_in_the_project(number) for number in range(len(self.movies)))
        assert not [path for path in (self.root / "camera").iterdir() if path.suffix == ".mrc"]
        assert not self.movies or verify_manifest(self.root / "project") == []


Camera.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestNothingIsLost = Camera.TestCase
