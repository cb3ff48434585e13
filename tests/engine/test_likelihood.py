"""Regions measured by a network, as a stage."""

import pytest
from answering import drawn_picture
from rows import row_of

from openflorence.contract.records import RegionNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes
from openflorence.engine.agree import likelihoods
from openflorence.engine.likelihood import Likelihood
from openflorence.engine.stages import Context
from openflorence.errors import BadConfig
from openflorence.model.predict import load

REGIONS = tuple(
    RegionNote(box=Box(1, 1, 30, 20), label=label, score=score)
    for label, score in (("red fish", 0.2), ("blue house", 0.9), ("", 0.8), ("sign", None))
)


@pytest.fixture(scope="module")
def folder(answering_folder):
    return str(answering_folder)


def measured(folder: str, **settings) -> dict[str, float | None]:
    stage = Likelihood(of="fuse", model=folder, **settings)
    assert stage.needs == ("fuse",)
    stage.setup(Context())
    ((notes, verdicts, measures),) = stage.process([row_of(drawn_picture(1), fuse=Notes(regions=REGIONS))])
    assert (notes, verdicts) == (Notes(), ())
    assert {one.name for one in measures} <= {"likelihood"}
    return {one.note_id: one.value for one in measures}


def test_every_region_that_says_something_is_measured(folder):
    named = {f"fuse/region{place}": note for place, note in enumerate(REGIONS)}
    found = measured(folder)
    assert set(found) == {"fuse/region0", "fuse/region1", "fuse/region3"}
    assert found == pytest.approx(likelihoods(load(folder), drawn_picture(1), named), abs=1e-4)


def test_the_surest_regions_are_measured_where_there_are_too_many(folder):
    assert set(measured(folder, most=2)) == {"fuse/region1", "fuse/region3"}  # no score is certain
    with pytest.raises(BadConfig, match="most is 0"):
        Likelihood(of="fuse", most=0)


def test_an_image_without_regions_has_no_measures(folder):
    stage = Likelihood(of="fuse", model=folder)
    stage.setup(Context())
    assert stage.process([row_of(drawn_picture(1), fuse=Notes())]) == [(Notes(), (), ())]
