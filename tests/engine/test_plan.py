"""Plans as files, sources of images, and a round from end to end."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from openflorence.contract.records import RegionNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes
from openflorence.errors import BadConfig

pytest.importorskip("lance")

from openflorence.data.store import Store
from openflorence.engine.inputs import open_source
from openflorence.engine.plan import FUSED, Plan, Specialist, judge_settings, read_plan, run_round
from openflorence.engine.stages import Row


def look(rows: list[Row]) -> list[Notes]:
    """A specialist: one box that fills most of the image, and one of no size worth noting."""
    notes = []
    for row in rows:
        width, height = row.image.image_wh
        large = RegionNote(box=Box(5, 5, width - 5, height - 5), label="car", score=0.9)
        small = RegionNote(box=Box(20, 20, 21, 21), label="bus", score=0.9)
        notes.append(Notes(regions=(large, small)))
    return notes


OWN = Specialist(name="own", settings={"function": f"{__name__}:look", "says": ["object"]})


def png(shade: int, wh: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", wh, (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def write_photos(folder: Path) -> Path:
    """Five pictures, and a file that is none."""
    folder.mkdir()
    for shade in range(5):
        (folder / f"{shade}.png").write_bytes(png(40 * shade))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    return folder


def test_a_round_is_made_once_and_found_again(photos: Path, tmp_path: Path):
    plan, folder = Plan(specialists=(OWN,)), tmp_path / "fld"
    done = run_round(str(photos), folder, plan)
    assert (done.ingested.stored, done.ingested.failed, done.round.number) == (5, 1, 0)
    store = Store.open(folder)
    assert [[region.label for region in record.regions] for record in store.records()] == [["car"]] * 5
    assert "broken.jpg" in store.failures()[0]["uri"]
    again = run_round(str(photos), folder, plan)
    assert (again.ingested.stored, again.ingested.known, again.round.number) == (0, 6, 0)
    assert dict(again.progress.runs) == dict(done.progress.runs)


def test_another_threshold_brings_back_what_was_dropped_without_annotating_again(photos: Path, tmp_path: Path):
    folder = tmp_path / "fld"
    first = run_round(str(photos), folder, Plan(specialists=(OWN,)))
    loose = run_round(None, folder, Plan(specialists=(OWN,), filter={"sizes": False}))
    assert loose.round.number == 1
    assert loose.progress.runs["own"] == first.progress.runs["own"]
    store = Store.open(folder)
    labels = [[sorted(region.label for region in record.regions) for record in store.records(n)] for n in (0, 1)]
    assert labels == [[["car"]] * 5, [["bus", "car"]] * 5]
    change = store.diff(0, 1).kinds["regions"]
    assert (change.same, change.added, change.removed) == (5, 5, 0)


def test_images_come_from_lists_tars_and_parquet(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "list.txt").write_text("# two\nhttp://x/a.png\n\nb.png\n")
    assert [one.uri for one in open_source(str(tmp_path / "list.txt")).images] == ["http://x/a.png", "b.png"]
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "a.tar", "w") as tar:
        for name, data in (("1.png", png(1)), ("1.json", b"{}"), ("2.png", png(2))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    parquet.write_table(pyarrow.table({"image": [{"bytes": png(3), "path": None}]}), packed / "b.parquet")
    both = open_source(str(packed))
    assert both.told == "WebDataset; not read: .json\nParquet: images are taken from it, other columns are not read"
    found = [(one.uri, one.data) for one in both.images]
    assert found == [("a.tar#1.png", png(1)), ("a.tar#2.png", png(2)), ("b.parquet#0", png(3))]
    parquet.write_table(pyarrow.table({"text": ["no image"]}), tmp_path / "c.parquet")
    with pytest.raises(BadConfig, match="one of image, bytes"):
        list(open_source(str(tmp_path / "c.parquet")).images)


def test_a_plan_reads_as_written(tmp_path: Path):
    path = tmp_path / "plan.toml"
    path.write_text(
        '[[specialist]]\nname = "florence"\ntasks = ["detect"]\n[fuse]\nleast = 0.6\n'
        "[filter]\nnms = false\n[filter.scores]\nobjects = 0.4\n"
    )
    plan = read_plan(path)
    assert plan.specialists == (Specialist(name="florence", settings={"tasks": ["detect"]}),)
    assert plan.fuse == {"least": 0.6}
    settings = judge_settings(plan.filter)
    assert settings.nms is None
    assert settings.scores is not None
    assert settings.scores.objects == 0.4
    assert settings.sizes is not None
    assert FUSED == "fuse"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "one \\[\\[specialist\\]\\] or more"),
        ('[[specialist]]\nmodel = "x"\n', "has a name"),
        ("[filters]\n", "a plan has"),
        ('[[specialist]]\nname = "rapidocr"\n[filter.score]\n', "allowed are .*scores"),
        ("[[specialist\n", "cannot read the plan"),
    ],
    ids=["empty", "no name", "table", "rule", "toml"],
)
def test_a_plan_that_is_none_is_told(tmp_path: Path, text: str, told: str):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(BadConfig, match=told):
        read_plan(path)
