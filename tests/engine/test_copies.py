"""Near copies: which images are left out, why, and that more images change nothing."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rows import encoded

from openflorence.engine.copies import COPIES, PRINTS, Prints, mark_copies
from openflorence.engine.runners import run_stages
from openflorence.engine.stages import Factory, StageSpec
from openflorence.errors import BadConfig

pytest.importorskip("lance")

from openflorence.data.store import Store
from openflorence.data.store_ingest import ImageIn


def picture(seed: int, side: int = 64) -> Image.Image:
    """Noise in large squares: no two seeds look alike."""
    squares = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(squares).resize((side, side), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def marked(store: Store, near: int = 8) -> dict[str, str]:
    """Uri and reason of what is left out."""
    prints = StageSpec(Factory(f"{Prints.__module__}:Prints"))
    done = run_stages([prints], Factory("openflorence.data.store:Store", {"folder": str(store.folder)}))
    run = store.layer(COPIES, mark_copies(store, done.runs[PRINTS], near))
    assert run.is_sealed
    return {
        image.uri: row.error.message
        for unit in store.units()
        for image, row in zip(store.images(unit, data=False), run.read(unit), strict=True)
        if row.status == "filtered" and row.error is not None and row.error.kind == "near copy"
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three pictures in units of two; the second is the first, smaller and worse."""
    made = Store.create(tmp_path / "fld", unit_images=2)
    first = picture(1)
    pictures = {
        "a.png": encoded(first),
        "a small.jpg": as_jpeg(first.resize((32, 32)), 60),
        "b.png": encoded(picture(2)),
    }
    made.ingest(ImageIn(uri=name, data=data) for name, data in pictures.items())
    return made


def test_a_smaller_worse_copy_is_left_out_and_its_original_named(store):
    found = marked(store)
    assert list(found) == ["a small.jpg"]
    assert found["a small.jpg"].endswith("of 128 bits differ from a.png")


def test_more_images_change_no_row_that_is_there(store):
    first = marked(store)
    later = {
        "b worse.jpg": as_jpeg(picture(2), 40),
        "c.png": encoded(picture(3)),
        "a again.jpg": as_jpeg(picture(1), 40),
    }
    store.ingest(ImageIn(uri=name, data=data) for name, data in later.items())
    found = marked(store)
    assert found.items() > first.items()
    assert {name: reason.rpartition(" ")[2] for name, reason in found.items()} == {
        "a small.jpg": "a.png",
        "b worse.jpg": "b.png",
        "a again.jpg": "a.png",
    }
    fresh = Store.create(store.folder.with_name("fresh"), unit_images=2)  # all at once gives the same
    fresh.ingest(ImageIn(uri=row.uri, data=row.data) for unit in store.units() for row in store.images(unit))
    assert marked(fresh) == found


def test_plain_images_are_not_told_apart_and_stay(tmp_path):
    store = Store.create(tmp_path / "fld")
    pages = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (250, 251, 252)]
    store.ingest(ImageIn(uri=f"{at}.png", data=encoded(page)) for at, page in enumerate(pages))
    assert marked(store) == {}


def test_what_copies_are_is_a_setting(store):
    assert marked(store, near=0) == {}  # JPEG and half the size turn some bit
    with pytest.raises(BadConfig, match="near is 99"):
        marked(store, near=99)
