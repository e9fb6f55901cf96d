from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from beamside.acquisition.kinds import BUILT_IN, MICROGRAPH, MOVIE, SourceKind, without_pixels
from beamside.acquisition.settings import AcquisitionSettings
from beamside.camera.preparing import MicrographPreparation, MoviePreparation
from beamside.errors import ConfigError
from beamside.flow.checks import NoCheck
from beamside.flow.settings import OpticsParameters
from beamside.flow.sources import accounts, check, check_given, comparison, has_changed, preparation
from beamside.formats.mrc import read_header, write_mrc
from beamside.jobs.registry import job_types

TEXT = SourceKind("text", (".txt",), "text", lambda path: without_pixels(), role="text")


def settings() -> Any:
    return SimpleNamespace(
        acquisition=AcquisitionSettings(data=("x",)), optics=OpticsParameters(pixel_size=1.5, voltage=300)
    )


def test_a_kind_that_names_nothing_is_used_as_it_is_and_compared_with_nothing(tmp_path: Path) -> None:
    taken: Any = SimpleNamespace(path="raw/a.txt", metadata={"lines": 4})
    prepare = preparation(TEXT, tmp_path, "Texts/job001", settings(), ())
    assert prepare(taken) == ({"text": "raw/a.txt"}, {"lines": 4})
    prepare.retry()
    prepare.take_settings(settings())
    assert list(comparison(TEXT)(settings(), taken)) == []


def test_the_kinds_of_microscopy_name_what_makes_them_ready(tmp_path: Path) -> None:
    movies = preparation(MOVIE, tmp_path, "Import/job001", settings(), ())
    micrographs = preparation(MICROGRAPH, tmp_path, "Import/job001", settings(), ())
    assert isinstance(movies, MoviePreparation)
    assert isinstance(micrographs, MicrographPreparation)
    other = settings()
    group = {"name": "fine", "when": "file matches f*", "pixel_size": 0.5}
    other.optics = OpticsParameters(pixel_size=2.0, voltage=300, optics_group=[group])
    micrographs.take_settings(other)
    for name, pixel_size in (("a", 2.0), ("f", 0.5)):
        taken: Any = SimpleNamespace(path=f"raw/{name}.mrc", source=f"/camera/{name}.mrc", metadata={}, shape=(8, 8))
        (tmp_path / "raw").mkdir(exist_ok=True)
        write_mrc(tmp_path / taken.path, np.ones((8, 8), np.float32), 9.0)
        outputs, _ = micrographs(taken)
        assert read_header(tmp_path / outputs["micrograph"]).pixel_size == pytest.approx(pixel_size)
    assert all(callable(comparison(kind)) for kind in BUILT_IN.values())


@pytest.mark.parametrize("field", ["prepare", "compare"])
def test_what_a_kind_names_and_is_not_there_is_told_with_the_kind(tmp_path: Path, field: str) -> None:
    named: dict[str, Any] = {field: "texts.that_are_missing:make"}
    kind = replace(TEXT, **named)
    with pytest.raises(ConfigError, match=r"kind of source 'text' names 'texts.that_are_missing:make'"):
        _ = preparation(kind, tmp_path, "Texts/job001", settings(), ()) and comparison(kind)


def test_the_items_of_every_shipped_source_have_a_kind_with_their_role() -> None:
    sources = [one for one in job_types().values() if not one.inputs]
    assert sources
    for source in sources:
        given = source.outputs[0].kind
        assert BUILT_IN[given.name].role in given.files


def test_files_that_are_no_images_have_no_pixels() -> None:
    info = without_pixels({"lines": 2})
    assert (info.frames, info.shape, info.metadata) == (1, (0, 0), {"lines": 2})


def with_kind(kind: SourceKind, **values: Any) -> Any:
    return SimpleNamespace(source_kind=kind, to_json=lambda: values)


def test_of_a_kind_that_names_no_check_nothing_is_to_be_settled() -> None:
    around: Any = SimpleNamespace(tables=None)
    assert isinstance(check(TEXT, around), NoCheck)
    assert accounts(TEXT, [{"sentence": "?"}], {}) == ()
    assert check_given(with_kind(TEXT)) == []


def test_a_setting_that_decides_what_items_are_changes_all_that_was_made_of_them() -> None:
    kind = replace(TEXT, decisive=("language",))
    before: Any = SimpleNamespace(settings={"language": "en", "lines": 3})
    assert not has_changed(with_kind(kind, language="en", lines=4), before)
    assert has_changed(with_kind(kind, language="de", lines=3), before)
    unknown: Any = SimpleNamespace(settings={})
    assert not has_changed(with_kind(kind, language="de"), unknown), (
        "what an earlier version did not have did not change"
    )


@pytest.mark.parametrize("field", ["check", "account", "given", "changed"])
def test_what_a_kind_names_for_a_session_and_is_not_there_is_told_with_the_kind(field: str) -> None:
    kind = replace(TEXT, **{field: "texts.that_are_missing:make"})  # type: ignore[arg-type]
    around: Any = SimpleNamespace(tables=None)
    with pytest.raises(ConfigError, match=r"kind of source 'text' names 'texts.that_are_missing:make'"):
        _ = (
            check(kind, around),
            accounts(kind, (), {}),
            check_given(with_kind(kind)),
            has_changed(with_kind(kind), around),
        )
