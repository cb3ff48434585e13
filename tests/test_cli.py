"""The command line: what goes where, exit codes, one-line mistakes, and work that was stopped and taken up again."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from answering import REGION, drawn_picture
from layouts import write_karpathy
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from openflorence import cli
from openflorence.commands import terminal
from openflorence.contract.tasks import TASKS
from openflorence.model.predict import AskOptions, load
from recipes import nano

ROOT = Path(__file__).resolve().parents[1]
KEYS = ["image", "width", "height", "task", "input", "text", "score", "truncated", "cut", "regions", "seconds"]
ERROR_KEYS = ["image", "error", "message"]


@pytest.fixture
def ask(call, answering_folder):
    """`openflorence run ... --model` the tiny checkpoint."""
    return lambda *words: call("run", "--model", answering_folder, "--max-tokens", 24, *words)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder of its own, and something else."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for seed, name in enumerate(["a.png", "b.jpg", "deep/c.PNG"], start=1):
        drawn_picture(seed, (47 + seed, 32)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


@pytest.fixture
def broken(folder: Path) -> Path:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    return folder / "broken.jpg"


@pytest.fixture
def site(folder: Path) -> Iterator[str]:
    """The folder on a web server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


# ---- run: what is printed


def test_an_answer_is_one_line_of_json(ask, folder, answering_folder):
    done = ask(folder / "a.png", "--task", "detect", "--json", "--beams", 1, "--max-tokens", 96)
    assert (done.code, done.err) == (0, "cut by a limit (truncated: true): 1 of 1\n")  # a drawn network goes on and on
    (row,) = done.rows
    assert list(row) == KEYS
    answer = load(answering_folder).predict(folder / "a.png", "detect", options=AskOptions(beams=1))
    assert row == {"image": str(folder / "a.png"), **answer.as_row(), "seconds": row["seconds"]}
    assert 0 < row["seconds"] < 60
    assert list(row["regions"][0]) == ["label", "score", "label_score", "place_score", "box", "quad", "polygons"]


def test_every_task_is_a_line_of_json(ask, folder):
    tasks = [word for task in TASKS for word in ("--task", task.token)]
    region = ",".join(map(str, REGION))
    done = ask(folder / "a.png", *tasks, "--text", "red car", "--region", region, "--json")
    assert done.code == 0
    assert [row["task"] for row in done.rows] == [task.name for task in TASKS]
    assert [row["input"] is None for row in done.rows] == [task.input == "none" for task in TASKS]
    assert all(list(row) == KEYS for row in done.rows)


def test_an_image_that_failed_is_a_line_of_json_too(ask, folder, broken):
    done = ask(folder / "a.png", broken, "--task", "caption", "--json")
    good, bad = done.rows
    assert (list(good), list(bad)) == (KEYS, ERROR_KEYS)
    assert (bad["image"], bad["error"]) == (str(broken), "BadImage")
    assert "broken.jpg" in bad["message"]
    assert done.code == 1
    assert done.err.splitlines()[-1] == "1 of 2 could not be answered"


def test_the_task_that_failed_is_named_when_there_are_several(ask, broken):
    done = ask(broken, "--task", "caption", "--task", "detect", "--json")
    assert [(list(row), row["task"]) for row in done.rows] == [
        (["image", "task", "error", "message"], task) for task in ("caption", "detect")
    ]


def test_people_get_words_and_notes_stay_out_of_them(ask, folder, broken):
    done = ask(folder / "a.png", "-t", "caption", "--max-tokens", 96)
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    done = ask(folder / "a.png", broken, "-t", "caption", "-t", "detect")
    assert done.out.startswith(f"{folder / 'a.png'} caption: ")
    assert f"{folder / 'a.png'} detect: " in done.out
    assert "broken" not in done.out
    assert done.err.count("BadImage: ") == 2
    assert done.code == 1


def test_an_answer_that_was_cut_is_noted(ask, folder):
    done = ask(folder / "a.png", "-t", "caption", "--max-tokens", 3, "--json")
    assert done.rows[0]["truncated"] is True
    assert "cut by a limit (truncated: true): 1 of 1" in done.err


def test_text_goes_to_the_tasks_that_take_text(ask, folder):
    done = ask(folder / "a.png", "-t", "detect", "-t", "find", "-t", "answer", "--text", "car<and>bus", "--json")
    assert [row["input"] for row in done.rows] == [None, "car<and>bus", "car<and>bus"]


def test_options_reach_the_search(call, folder, answering_folder):
    model = load(answering_folder)
    for words, options in (
        ([], AskOptions()),
        (["--beams", "1"], AskOptions(beams=1)),
        (["--decoding", "published", "--max-tokens", "9"], AskOptions(decoding="published", max_tokens=9)),
    ):
        done = call("run", folder / "b.jpg", "-t", "caption", "--model", answering_folder, "--json", *words)
        assert done.rows[0]["text"] == model.predict(folder / "b.jpg", "caption", options=options).text
    assert call("run", folder / "b.jpg", "-t", "detect", "-m", answering_folder, "--dtype", "bfloat16").code == 0


def test_the_bar_does_not_swallow_the_data(ask, folder, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "notes", Console(file=screen, force_terminal=True, markup=False))
    done = ask(folder, "-t", "caption", "--json")  # answers to a file, the bar to a terminal
    assert len(done.rows) == 3
    assert "answers" in screen.getvalue()
    assert "{" not in screen.getvalue()


def test_names_that_are_no_text_are_printed(ask, folder, tmp_path):
    odd = os.fsdecode(bytes(folder) + b"/caf\xe9.png")  # Latin-1, where names are UTF-8
    os.rename(folder / "a.png", odd)
    done = ask(odd, odd + "x", "-t", "caption", "--json", "--out", tmp_path / "out")
    assert [row["image"] for row in done.rows] == [odd, odd + "x"]
    assert done.code == 1
    assert ask(odd, odd, "-t", "caption").code == 0
    assert r"caf\udce9.pngx" in ask(odd + "x", "-t", "caption").err.replace("\\\\", "\\")
    assert "1 of 2 answered before" in ask(odd, odd + "x", "-t", "caption", "--out", tmp_path / "out", "--resume").err


def test_names_are_printed_as_they_are(ask, folder):
    # To rich, these are a colour, the end of one, and a picture of a cat.
    assert "[red]a:cat:[/bold].png" in ask(folder / "[red]a:cat:[/bold].png", "-t", "caption").err
    os.rename(folder / "a.png", folder / "[red]a:cat:.png")
    assert ask(folder / "[red]a:cat:.png", "b.png", "-t", "caption").out.startswith(f"{folder}/[red]a:cat:.png: ")


# ---- run: where images come from


def test_a_folder_is_all_its_images_by_name(ask, folder):
    done = ask(folder, "-t", "caption", "--json")
    assert [row["image"] for row in done.rows] == [str(folder / name) for name in ("a.png", "b.jpg", "deep/c.PNG")]
    assert [row["width"] for row in done.rows] == [48, 49, 50]


def test_a_glob_is_what_it_matches_and_nothing_twice(ask, folder):
    done = ask(folder / "*.png", folder / "a.png", folder / "**" / "*.PNG", "-t", "caption", "--json")
    assert [Path(row["image"]).name for row in done.rows] == ["a.png", "c.PNG"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(folder):
    drawn_picture().save(folder / "[a].png")
    assert cli.expand([str(folder / "[a].png")]) == [str(folder / "[a].png")]
    assert cli.expand(["~nobody-of-this-name/a.png", "x" * 5000, "a\0b"]) == [
        "~nobody-of-this-name/a.png",
        "x" * 5000,
        "a\0b",
    ]


def test_a_url_is_fetched(ask, site):
    done = ask(f"{site}/a.png", f"{site}/none.png", "-t", "caption", "--json")
    assert (done.rows[0]["image"], done.rows[0]["width"]) == (f"{site}/a.png", 48)
    assert (done.rows[1]["error"], done.code) == ("BadImage", 1)
    assert "404" in done.rows[1]["message"]


# ---- run: mistakes

MISTAKES = {
    "unknown task": (["-t", "detekt"], "BadPrompt: no task 'detekt'; the tasks are caption,"),
    "no task": ([], "Missing option '--task'"),
    "missing text": (["-t", "ground"], "BadPrompt: task 'ground' needs text="),
    "superfluous text": (["-t", "detect", "--text", "car"], "leave text out"),
    "missing region": (["-t", "read_region"], "needs region="),
    "superfluous region": (["-t", "caption", "--region", "1,2,3,4"], "leave region out"),
    "three numbers": (["-t", "read_region", "--region", "1,2,3"], "give four numbers in pixels: x0,y0,x1,y1"),
    "no numbers": (["-t", "read_region", "--region", "a,b,c,d"], "give four numbers in pixels"),
    "empty region": (["-t", "read_region", "--region", "5,5,5,9"], "BadRegion: "),
    "unknown option": (["-t", "caption", "--tsak", "x"], "No such option: --tsak"),
    "unknown decoding": (["-t", "caption", "--decoding", "fast"], "allowed: default, published"),
    "unknown type": (["-t", "caption", "--dtype", "int8"], "allowed: float32, float16, bfloat16"),
    "no beams": (["-t", "caption", "--beams", "0"], "'--beams'"),
    "no batch": (["-t", "caption", "--batch", "-3"], "'--batch'"),
    "resume without out": (["-t", "caption", "--resume"], "--resume needs --out"),
    "unknown device": (["-t", "caption", "--device", "gpu"], "--device gpu cannot be used here"),
    "no device": (["-t", "caption", "--device", "meta"], "--device meta cannot be used here"),
    "missing model": (["-t", "caption", "--model", "runs/none/of/them"], "BadCheckpoint: no checkpoint 'runs/none"),
    "not on the hub": (["-t", "caption", "--model", "nobody/nothing"], "BadCheckpoint: nobody/nothing is not in"),
    "too many tokens": (["-t", "caption", "--max-tokens", "97"], "has 96 positions"),
    "no grid of tiles": (["-t", "detect", "--tiles", "2by2"], "--tiles 2by2"),
    "no label": (["-t", "detect", "--labels", " , "], "one label or more"),
    "unknown way on": (["-t", "detect", "--more", "again"], "allowed: never, continue, tiles"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(call, folder, answering_folder, name):
    words, message = MISTAKES[name]
    if "--model" not in words:
        words = [*words, "--model", str(answering_folder)]
    done = call("run", folder / "a.png", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1, done.err


def test_folders_and_globs_without_an_image_are_told(ask, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for word, message in ((tmp_path / "empty", "holds no image (.png"), (folder / "*.xyz", "nothing matches")):
        done = ask(word, "-t", "caption")
        assert (done.code, done.out) == (2, "")
        assert message in done.err


def test_a_region_outside_one_of_the_images_fails_only_there(ask, folder):
    drawn_picture(5, (200, 32)).save(folder / "wide.png")
    done = ask(folder / "a.png", folder / "wide.png", "-t", "read_region", "--region", "100,0,120,9", "--json")
    assert [row.get("error") for row in done.rows] == ["BadRegion", None]
    assert done.code == 1


def test_a_folder_that_cannot_be_written_is_one_line(ask, folder):
    done = ask(folder / "a.png", "-t", "caption", "--out", folder / "notes.txt")
    assert (done.code, done.out) == (2, "")
    assert "notes.txt" in done.err
    assert done.err.count("\n") == 1


# ---- run: into a folder, and on from there


def test_out_holds_pictures_and_answers(ask, folder, broken, tmp_path):
    out = tmp_path / "out"
    done = ask(folder, "-t", "caption", "-t", "detect", "--out", out, "--json")
    assert done.code == 1
    assert {path.name for path in out.iterdir()} == {
        "answers.jsonl",
        *(f"{stem}-{task}.png" for stem in "abc" for task in ("caption", "detect")),
    }
    assert Image.open(out / "a-detect.png").size[0] >= 480
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert [{key: line[key] for key in row} for row, line in zip(done.rows, lines, strict=True)] == done.rows


def test_images_of_one_name_keep_apart_also_on_the_way_on(ask, folder, tmp_path):
    (folder / "deep" / "a.png").write_bytes((folder / "b.jpg").read_bytes())
    drawn_picture(7).save(folder / "a-2.png")
    names, out = [folder / "a.png", folder / "a-2.png", folder / "deep" / "a.png"], tmp_path / "out"
    ask(names[0], "-t", "caption", "--out", out)
    first = (out / "a-caption.png").read_bytes()
    ask(*names, "-t", "caption", "--out", out, "--resume")
    assert {path.name for path in out.glob("*.png")} == {"a-caption.png", "a-2-caption.png", "a-3-caption.png"}
    assert (out / "a-caption.png").read_bytes() == first


def answered(out: Path) -> list[tuple[str, bool]]:
    """Which image each line is about, and whether it was answered."""
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    return [(Path(row["image"]).name, "error" not in row) for row in rows]


def test_what_was_answered_is_not_asked_again(ask, folder, broken, tmp_path):
    out = tmp_path / "out"
    ask(folder / "a.png", broken, "-t", "caption", "--out", out)
    assert answered(out) == [("a.png", True), ("broken.jpg", False)]
    drawn_picture().save(broken, "PNG")  # mended
    done = ask(folder, "-t", "caption", "--out", out, "--resume", "--json")
    assert done.code == 0
    assert "1 of 4 answered before" in done.err
    assert [Path(row["image"]).name for row in done.rows] == ["b.jpg", "broken.jpg", "c.PNG"]
    assert sorted(answered(out)) == [(name, True) for name in ("a.png", "b.jpg", "broken.jpg", "c.PNG")]
    done = ask(folder, "-t", "caption", "--out", out, "--resume")
    assert (done.code, done.out, done.err) == (0, "", "4 of 4 answered before\n")


def test_another_question_is_asked(ask, folder, tmp_path):
    for text in ("car", "bus"):
        done = ask(folder / "a.png", "-t", "find", "--text", text, "--out", tmp_path, "--resume", "--json")
        assert done.rows[0]["input"] == text
    assert len(answered(tmp_path)) == 2


def test_a_run_that_starts_over_writes_no_line_twice(ask, folder, tmp_path):
    ask(folder, "-t", "caption", "--out", tmp_path / "out")
    ask(folder / "a.png", "-t", "caption", "--out", tmp_path / "out")
    assert [name for name, _ in answered(tmp_path / "out")] == ["b.jpg", "c.PNG", "a.png"]


@pytest.mark.parametrize("cut", [1, 2, 30, 60], ids="{} bytes lost".format)
def test_a_kill_in_the_middle_of_a_line_costs_that_line(ask, folder, tmp_path, cut):
    out = tmp_path / "out"
    os.rename(folder / "b.jpg", folder / "bé\u2028.jpg")
    ask(folder, "-t", "caption", "--out", out)
    whole = (out / "answers.jsonl").read_bytes()
    before, last = whole[:-1].rsplit(b"\n", 1)
    (out / "answers.jsonl").write_bytes(before + b"\n" + last[: len(last) + 1 - cut])
    done = ask(folder, "-t", "caption", "--out", out, "--resume", "--json")
    assert len(done.rows) == (cut > 1)  # with only the line feed lost, the line is whole
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_bytes().rstrip(b"\n").split(b"\n")]
    assert [Path(row["image"]).name for row in rows] == ["a.png", "bé\u2028.jpg", "c.PNG"]


def test_a_strange_answers_file_is_no_crash(ask, folder, tmp_path):
    (tmp_path / "answers.jsonl").write_bytes(
        b'7\n[]\n{"image": 3}\n\xff\xfe\n\n{"image": [1], "task": {}, "asked": 0}\n'
    )
    done = ask(folder / "a.png", "-t", "caption", "--out", tmp_path, "--resume", "--json")
    assert (done.code, len(done.rows)) == (0, 1)
    assert answered(tmp_path) == [("a.png", True)]


# ---- the other commands


def test_every_command_says_what_it_does(call):
    done = call("--help")
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
    assert names == ["run", "demo", "draw", "convert", "train", "evaluate", "calibrate", "doctor"]
    assert done.code == 0
    for command in cli.app.registered_commands:
        name = command.callback.__name__
        assert name in done.out
        shown = call(name, "--help")
        assert shown.code == 0
        assert command.callback.__doc__.splitlines()[0][:40] in " ".join(shown.out.split())
    for word in ("--task", "--region", "--json", "--resume", "x0,y0,x1,y1"):
        assert word in call("run", "--help").out


def test_an_unknown_command_is_one_line(call):
    done = call("detect", "a.png")
    assert (done.code, done.out) == (2, "")
    assert "No such command 'detect'" in done.err


@pytest.mark.parametrize("layout", ["microsoft", "transformers", "openflorence"])
def test_a_checkpoint_goes_into_another_layout_and_back(call, answering_folder, tmp_path, layout):
    assert call("convert", answering_folder, tmp_path / "there", "--layout", layout).code == 0
    done = call("convert", tmp_path / "there", tmp_path / "back", "--layout", "openflorence")
    assert (done.code, done.out) == (0, "")
    before, after = (load_file(place / "model.safetensors") for place in (answering_folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    healthy = call("doctor", tmp_path / "there")
    assert healthy.code == 0
    assert f"layout: {layout}" in healthy.out


def test_convert_tells_what_it_cannot_do(call, answering_folder, tmp_path):
    done = call("convert", answering_folder, tmp_path / "a", "--layout", "google")
    assert "allowed: microsoft, transformers, openflorence" in done.err
    assert done.code == 2
    assert "itself" in call("convert", answering_folder, answering_folder, "--layout", "microsoft").err
    assert call("convert", answering_folder, tmp_path / "b", "--layout", "microsoft", "--dtype", "float16").code == 0
    assert "BadCheckpoint" in call("convert", tmp_path / "none", tmp_path / "c", "--layout", "microsoft").err


def test_the_doctor_names_what_is_missing(call, answering_folder, tmp_path):
    done = call("doctor", answering_folder)
    assert (done.code, done.err) == (0, "")
    for words in ("openflorence 0.", "torch ", "devices: cpu", "tokenizers ", "loads: yes", "17 image tokens"):
        assert words in done.out
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        sick = tmp_path / name
        assert call("convert", answering_folder, sick, "--layout", "openflorence").code == 0
        (sick / name).unlink()
        done = call("doctor", sick)
        assert done.code == 1
        assert any(line.startswith("problem: ") and name in line for line in done.out.splitlines())
        assert call("run", "a.png", "-t", "caption", "-m", sick).code == 2
    done = call("doctor", tmp_path / "none")
    assert done.code == 1
    assert "problem: no checkpoint" in done.out


def test_draw_writes_scenes_and_their_truth(call, tmp_path):
    done = call("draw", 2, tmp_path, "--seed", 5, "--side", 64)
    assert (done.code, done.out) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {
        "000000.png",
        "000001.png",
        "records.jsonl",
        "scenes.jsonl",
    }
    assert [json.loads(line)["seed"] for line in (tmp_path / "scenes.jsonl").read_text().splitlines()] == [5, 6]
    assert "BadConfig" in call("draw", 0, tmp_path).err


def test_demo_asks_and_draws(call, answering_folder, tmp_path, monkeypatch):
    examples = tmp_path / "examples"
    examples.mkdir()
    drawn_picture(1).save(examples / "scene.png")
    monkeypatch.setattr(cli, "EXAMPLES", examples)
    done = call("demo", "--model", answering_folder, "--out", tmp_path / "out")
    drawn = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert {"scene-caption.png", "scene-detect.png", "scene-answer.png", "scene-describe_region.png"} <= drawn
    assert done.out.count("scene") >= len(drawn)
    assert done.code in (0, 1)  # the caption of drawn weights may be longer than a prompt may be
    monkeypatch.setattr(cli, "EXAMPLES", tmp_path / "none")  # an installed copy has no examples: it draws them
    monkeypatch.setattr(cli, "_tour", lambda *_: iter(()))
    assert call("demo", "--model", answering_folder, "--out", tmp_path / "drawn").code == 0
    assert len(list((tmp_path / "drawn" / "examples").glob("*.png"))) == 6


def test_evaluate_scores_a_checkpoint(call, answering_folder, tmp_path):
    done = call(
        "evaluate", "world", "--model", answering_folder, "--limit", 2, "--beams", 1, "--out", tmp_path / "s.json"
    )
    assert done.code == 0
    assert all(f"| {task.name} " in done.out for task in TASKS)
    assert json.loads((tmp_path / "s.json").read_text())["model"] == str(answering_folder)
    assert "allowed: world" in call("evaluate", "coco", "--model", answering_folder).err


def test_evaluate_asks_an_official_benchmark_and_scores_answers(call, answering_folder, tmp_path):
    write_karpathy(tmp_path / "data")
    words = ("coco-caption", "--data", tmp_path / "data", "--limit", 2)
    done = call("evaluate", *words, "--model", answering_folder, "--beams", 1, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "| cider_d " in done.out
    assert "1 x no annotation" in done.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "about.json",
        "answers.jsonl",
        "report.html",
        "report.md",
        "scores.json",
    }
    answers = tmp_path / "out" / "answers.jsonl"
    again = call("evaluate", *words, "--answers", answers)
    assert (again.code, done.out.splitlines()[2:]) == (0, again.out.splitlines()[2:])
    assert again.out.startswith("coco-caption: answers.jsonl, ")
    assert "--device none cannot be used" in call("evaluate", *words, "--device", "none").err


def test_evaluate_scores_a_data_set(call, answering_folder, tmp_path):
    drawn_picture(1).save(tmp_path / "a.png")
    box = {"box": [1, 1, 30, 30], "label": "fish"}
    row = {"image": "a.png", "image_wh": list(drawn_picture(1).size), "regions": [box], "whole": ["objects"]}
    lines = [json.dumps(row), json.dumps(row | {"image": "gone.png"})]
    data = tmp_path / "val.jsonl"
    data.write_text("\n".join(lines))
    words = ("--model", answering_folder, "--data", data, "--task", "detect", "--task", "<REGION_TO_CATEGORY>")
    done = call("evaluate", "data", *words, "--beams", 1, "--out", tmp_path / "scores.json")
    assert done.code == 0, done.err
    assert "1 x image missing: the image is left out" in done.err
    assert [line.split("|")[1].strip() for line in done.out.splitlines() if "|" in line][2:4] == [
        "detect",
        "classify_region",
    ]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["data"], scores["images"], scores["model"]) == ("val val", 1, str(answering_folder))
    assert scores["tasks"]["detect"]["figures"]["map"]["n"] == 1
    assert "--data" in call("evaluate", "data", "--model", answering_folder).err
    assert "is not there" in call("evaluate", "data", "--data", tmp_path / "none", "--model", answering_folder).err


def test_a_recipe_runs_with_its_fields_set(call, tmp_path):
    small = asdict(nano.smoke(tmp_path)) | {"threads": 1}
    done = call("train", "nano", *(word for name in small for word in ("--set", f"{name}={small[name]}")))
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'checkpoint'}\n"
    assert call("doctor", tmp_path / "checkpoint").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["micro"], "recipe is 'micro'; allowed: finetune_caption, finetune_detection, "),
        (["nano", "--set", "steps"], "give field=value, with one of out, "),
        (["nano", "--set", "colour=red"], "give field=value, with one of out, "),
        (["nano", "--set", "targets=few"], "targets is of type int"),
        (["finetune_vqa", "--set", "recompute=perhaps"], "recompute is of type bool, one of true, yes, 1, false"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(call, words, message):
    done = call("train", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_labels_tiles_and_presence_reach_the_answer(ask, folder):
    done = ask(folder / "a.png", "-t", "detect", "--labels", "car,bus", "--max-tokens", 40, "--tiles", "1x2", "--json")
    assert {region["label"] for region in done.rows[0]["regions"]} <= {"car", "bus"}
    assert done.rows[0]["regions"]
    found = ask(folder / "a.png", "-t", "find", "--text", "bus", "--min-presence", 0.0, "--max-tokens", 20, "--json")
    assert list(found.rows[0]["presence"]) == ["bus"]
