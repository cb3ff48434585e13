"""The house rules, checked: who may import whom, how long things may be, what is never written.

Every check is a function from parsed files to a list of complaints, and is shown a planted violation below, so that a
check that has gone blind fails too.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import openflorence

ROOT = Path(__file__).resolve().parents[1]

# A file imports only what stands before it: rooms above its own, and files before it in its own room.
# Put a new file where it belongs; a file that is not here fails.
HOUSE = {
    "contract": "tasks shapes overlaps locations drawing regions published prompts answers spelling grammar lines "
    "rings merging records",
    "model": "config tokenizer sources images listing files linear davit seq2seq florence fast settings layouts "
    "calibration checkpoint hub doctor adapter_files adapters search decode presence asking runner tiles longer flow "
    "streaming predict answer_folder",
    "data": "words chance glyphs shapes painting printed world sentences questions truth album problems entries "
    "cleaning pairs coco yolo voc labelme plain_pickle refer flickr vqa ocr folders formats notes store_rows "
    "store_place store_lease store_files store_corpus store_seen store_ingest store_layers store_text store_rounds "
    "store_records store_diff store_sql store opened order prefixes targets budget wording augment mixture",
    "pages": "look pieces charts pictures",
    "engine": "stages jobs trail work schedule driver process_crew ray_crew runners lexicon syntax parse duplicates "
    "overlaps filters agree judge votes fuse server language specialists copies likelihood network pipelines "
    "endpoints writing compose annotate inputs plan reconcile refine tallies outcomes stats tables panels report "
    "show unsaid chosen shards export",
    "training": "objectives processes progress states train tower_file adapt tower masked contrast",
    "evaluation": "metrics treebank results captions places judged detection coco_results phrases reading figures "
    "scoring heldout drawn absent transcript official official_regions marking marking_regions benchmarks "
    "drawn_file paper compare reliability gallery report calibrate runs",
    "serving": "",
    "export": "",
    "experiments": "settings pretrain finetune",
    "commands": "terminal engine",
    "cli": "",
}
STRANGERS = {"engine", "training", "evaluation", "serving", "export"}  # do not import one another


def in_order(house: dict[str, str]) -> list[str]:
    """Every module of the package; the front door opens once there is a model, and the command line is one file."""
    names = ["openflorence.errors"]
    for room, files in house.items():
        names += [f"openflorence.{room}.{file}" for file in files.split()]
        names += {"model": ["openflorence"], "cli": ["openflorence.cli"]}.get(room, [])
    return names


ORDER = in_order(HOUSE)

FUNCTION_LINES, FILE_LINES, ARGUMENTS = 60, 600, 8
# What may be larger, and why: "path" for a file, "path:name" for a function.
LARGER: dict[str, str] = {
    "openflorence/cli.py:run": "a command's options are its arguments",
    "openflorence/cli.py:evaluate": "a command's options are its arguments",
    "openflorence/cli.py:calibrate": "a command's options are its arguments",
    "openflorence/commands/engine.py:export": "a command's options are its arguments",
}

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: str  # from the root, with forward slashes
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def in_package(self) -> bool:
        return self.path.startswith("openflorence/")

    @property
    def in_cli(self) -> bool:
        return self.path == "openflorence/cli.py" or self.path.startswith("openflorence/commands/")


@dataclass(frozen=True)
class Import:
    """One imported module: where, and whether it happens inside a function or only for type checkers."""

    module: str
    line: int
    hidden: bool
    for_types: bool


def sources(*folders: str) -> list[Source]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in found]


PACKAGE = sources("openflorence")
EVERYTHING = sources("openflorence", "recipes", "benchmarks", "tests")


# ---- reading a file -------------------------------------------------------------------------------------------------


def walk(node: ast.AST, owners: tuple[ast.AST, ...] = ()) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    """Every node with what it stands in, outermost first."""
    for child in ast.iter_child_nodes(node):
        yield child, owners
        yield from walk(child, (*owners, child))


def imports(source: Source, modules: set[str]) -> list[Import]:
    """Everything a file imports; `modules` tell `from room import file` from `from file import name`."""
    found = []
    for node, owners in walk(source.tree):
        names = imported_names(node, source, modules)
        hidden = any(isinstance(owner, (*Function.__args__, ast.Lambda)) for owner in owners)
        for_types = any(isinstance(owner, ast.If) and "TYPE_CHECKING" in ast.dump(owner.test) for owner in owners)
        found += [Import(name, getattr(node, "lineno", 0), hidden, for_types) for name in names]
    return found


def imported_names(node: ast.AST, source: Source, modules: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = source.module.split(".")
            here = parts[: len(parts) - node.level + source.path.endswith("/__init__.py")]
            base = ".".join([*here, *filter(None, [base])])
        return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names]
    if isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
        name = node.args[0]
        return [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
    return []


def called(node: ast.Call) -> str:
    """The last word of what is called: `load` for torch.load(...)."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def room(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "openflorence"


def functions(source: Source) -> Iterator[tuple[Function, str, bool]]:
    """Every function with its full name and whether it is public: no part of its name is private, nor is it nested."""
    for node, owners in walk(source.tree):
        if isinstance(node, Function):
            named = [owner for owner in owners if isinstance(owner, (*Function.__args__, ast.ClassDef))]
            names = [*(owner.name for owner in named), node.name]
            nested = any(isinstance(owner, Function) for owner in named)
            yield node, ".".join(names), not nested and not any(name.startswith("_") for name in names)


# ---- the checks -----------------------------------------------------------------------------------------------------


def check_order(files: list[Source], order: list[str] = ORDER) -> list[str]:
    complaints = []
    modules = {source.module for source in files} | set(order)
    for source in files:
        if source.path == "openflorence/__init__.py" or source.path.endswith("/__init__.py"):
            continue  # the front door reaches down on purpose; the others are empty
        if source.module not in order:
            complaints.append(f"{source.path} is not in ORDER of tests/test_house.py")
            continue
        for found in imports(source, modules):
            if not is_ours(found.module):
                continue
            where = f"{source.path}:{found.line} imports {found.module}"
            if found.hidden:
                complaints.append(f"{where} inside a function")
            if found.module not in order:
                complaints.append(f"{where}, which is no file in ORDER")
            elif order.index(found.module) >= order.index(source.module):
                complaints.append(f"{where}, which stands below it")
            if room(source.module) != room(found.module) and {room(source.module), room(found.module)} <= STRANGERS:
                complaints.append(f"{where}: {room(source.module)} does not know {room(found.module)}")
    return complaints


def check_contract(files: list[Source]) -> list[str]:
    complaints = []
    for source in files:
        if not source.path.startswith("openflorence/contract/"):
            continue
        for found in imports(source, set()):
            top = found.module.split(".")[0]
            ours = found.module == "openflorence.errors" or found.module.startswith("openflorence.contract")
            if not (found.hidden or found.for_types or ours or top == "numpy" or top in sys.stdlib_module_names):
                complaints.append(f"{source.path}:{found.line} imports {found.module}: standard library and numpy only")
    return complaints


def check_dependencies(files: list[Source], promised: set[str]) -> list[str]:
    """What is imported when a file is, must come with a plain install; extras may only be imported late."""
    complaints = []
    for source in files:
        for found in imports(source, set()):
            top = found.module.split(".")[0]
            known = top in promised or top in sys.stdlib_module_names or is_ours(top)
            if not (known or found.hidden or found.for_types):
                complaints.append(f"{source.path}:{found.line} imports {top}, no dependency in pyproject.toml")
    return complaints


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def promised_modules() -> set[str]:
    """The modules of a plain install, by the name they are imported under."""
    imported_as = {"pillow": "PIL", "opencv-python-headless": "cv2"}
    names = [re.split(r"[^\w.-]", line)[0] for line in project()["dependencies"]]
    return {imported_as.get(name, name) for name in names}


def check_transformers(files: list[Source]) -> list[str]:
    """Only a specialist of the engine may use transformers, and only when it is called."""
    return [
        f"{source.path}:{found.line} imports {found.module}"
        for source in files
        for found in imports(source, set())
        if source.in_package and found.module.split(".")[0] == "transformers"
        if not (source.path.startswith("openflorence/engine/") and found.hidden)
    ]


def check_sizes(files: list[Source], larger: dict[str, str] = LARGER) -> list[str]:
    too_large: dict[str, str] = {}
    for source in files:
        lines = source.text.count("\n")
        if lines > FILE_LINES:
            too_large[source.path] = f"{lines} lines, {FILE_LINES} are allowed"
        for node, name, _ in functions(source):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > FUNCTION_LINES:
                too_large[f"{source.path}:{name}"] = f"{lines} lines, {FUNCTION_LINES} are allowed"
            if count_arguments(node) > ARGUMENTS:
                too_large[f"{source.path}:{name}"] = f"{count_arguments(node)} arguments, {ARGUMENTS} are allowed"
    unknown = [f"{place} {what}" for place, what in too_large.items() if place not in larger]
    return unknown + [f"{place} is no longer larger: take it from LARGER" for place in larger if place not in too_large]


def count_arguments(node: Function) -> int:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    extra = (node.args.vararg is not None) + (node.args.kwarg is not None)
    return len(names) - (names[:1] in (["self"], ["cls"])) + extra


def check_docstrings(files: list[Source]) -> list[str]:
    """`forward` is what its class says; `_`, and overloads, need no words."""
    missing = []
    for source in files:
        if source.text.strip() and not ast.get_docstring(source.tree):
            missing.append(f"{source.path} has no docstring")
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                missing.append(f"{source.path}:{node.lineno} class {node.name} has no docstring")
        for node, name, public in functions(source):
            marks = ast.dump(ast.List(node.decorator_list))
            exempt = node.name == "forward" or "overload" in marks or "'setter'" in marks
            if public and not exempt and not ast.get_docstring(node):
                missing.append(f"{source.path}:{node.lineno} {name} has no docstring")
    return missing


def check_inits(files: list[Source]) -> list[str]:
    inits = [source for source in files if source.path.endswith("/__init__.py")]
    return [f"{s.path} is not empty" for s in inits if s.text.strip() and s.path != "openflorence/__init__.py"]


def check_banned(files: list[Source]) -> list[str]:
    complaints = []
    for source in files:
        if re.search(r"(^|/)(utils?|helpers?|misc)(\.py|/)", source.path):
            complaints.append(f"{source.path}: name the file after what is in it")
        for number, line in enumerate(source.text.splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX)\b", line):
                complaints.append(f"{source.path}:{number} leaves something to do")
        for node, name, public in functions(source):
            if public and node.args.kwarg is not None:
                complaints.append(f"{source.path}:{node.lineno} {name} takes **{node.args.kwarg.arg}")
        for node, _ in walk(source.tree):
            what = banned_node(node, source)
            if what:
                complaints.append(f"{source.path}:{getattr(node, 'lineno', 0)} {what}")
    return complaints


def banned_node(node: ast.AST, source: Source) -> str:
    """Say what is wrong with one node; "" when nothing is."""
    pickles = [name for name in imported_names(node, source, set()) if name.split(".")[0] in PICKLES]
    # The errors alone may be imported, by whom they are caught.
    if pickles and not (isinstance(node, ast.ImportFrom) and all(name.name.endswith("Error") for name in node.names)):
        return f"imports {pickles[0]}"
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("eval", "exec") or (name == "print" and not source.in_cli):
            return f"calls {name}"
        safe = any(word.arg == "weights_only" and getattr(word.value, "value", 0) is True for word in node.keywords)
        if ast.unparse(node.func) == "torch.load" and not safe:
            return "calls torch.load without weights_only=True"
    if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
        return "names trust_remote_code"
    if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
        return "names trust_remote_code"
    if isinstance(node, ast.Name) and node.id in ("NotImplementedError", "trust_remote_code"):
        return f"names {node.id}"
    return ""


def check_places(texts: dict[str, str]) -> list[str]:
    """No file may name the folder of one machine."""
    needle = "/".join(["", "work", ""])
    return [f"{path} names {needle}" for path, text in texts.items() if needle in text]


def tracked_texts() -> dict[str, str]:
    """Every text file under version control; every text file there is, in a copy without version control."""
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z"]
    try:
        names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    data = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    return {path: text.decode("utf-8", "replace") for path, text in data.items() if b"\0" not in text}


# ---- the house ------------------------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[], list[str]]] = {
    "files import only files above them": lambda: check_order(PACKAGE),
    "the contract needs numpy and no more": lambda: check_contract(PACKAGE),
    "a plain install has what is imported": lambda: check_dependencies(PACKAGE, promised_modules()),
    "transformers is never imported": lambda: check_transformers(PACKAGE),
    "nothing is too large": lambda: check_sizes(EVERYTHING),
    "everything public says what it gives": lambda: check_docstrings(PACKAGE),
    "rooms have no doors of their own": lambda: check_inits(PACKAGE),
    "nothing banned is written": lambda: check_banned(PACKAGE),
    "no file names a folder of one machine": lambda: check_places(tracked_texts()),
}


@pytest.mark.parametrize("rule", CHECKS)
def test_the_house_rule_holds(rule):
    complaints = CHECKS[rule]()
    assert not complaints, "\n".join(["", *complaints])


def test_the_sweep_saw_the_house():
    assert len(CHECKS) == 9
    assert len(PACKAGE) > 30
    assert {"openflorence/errors.py", "tests/test_house.py"} <= {source.path for source in EVERYTHING}
    assert {"pyproject.toml", "tests/test_house.py"} <= set(tracked_texts())


# ---- every check is seen to fail ------------------------------------------------------------------------------------

PLANTED_IMPORTS = {
    "from openflorence.model.predict import load": "stands below it",
    "import openflorence.model.predict": "stands below it",
    "from openflorence.model import predict": "stands below it",
    "from . import predict": "stands below it",
    "from .predict import load": "stands below it",
    "from ..data.world import Scene": "stands below it",
    "from openflorence import load": "stands below it",
    "def f():\n    from openflorence.errors import BadImage": "inside a function",
    "def f():\n    import importlib\n    importlib.import_module('openflorence.errors')": "inside a function",
    "f = lambda: __import__('openflorence.errors')": "inside a function",
    "from openflorence.model.nowhere import f": "no file in ORDER",
    "from openflorence.cli import main": "stands below it",
}


@pytest.mark.parametrize("text", PLANTED_IMPORTS)
def test_an_import_against_the_order_is_seen(text):
    complaints = check_order([Source("openflorence/model/images.py", text)])
    assert [complaint for complaint in complaints if PLANTED_IMPORTS[text] in complaint], complaints


def test_a_file_outside_the_order_and_a_stranger_are_seen():
    assert "not in ORDER" in check_order([Source("openflorence/model/new.py", "")])[0]
    text = "from openflorence.training.train import train"
    complaints = check_order([Source("openflorence/evaluation/metrics.py", text)])
    assert "evaluation does not know training" in complaints[0]


def test_the_list_of_files_has_no_doubles():
    assert len(set(ORDER)) == len(ORDER)
    assert set(HOUSE) >= STRANGERS


def test_what_is_allowed_is_not_seen():
    text = "from openflorence.errors import BadImage\nimport torch\nfrom openflorence.model import config, sources"
    assert check_order([Source("openflorence/model/images.py", text)]) == []
    late = (
        "import numpy\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import PIL"
    )
    assert check_contract([Source("openflorence/contract/regions.py", late)]) == []
    specialist = Source("openflorence/engine/look.py", "def f():\n    import transformers")
    assert check_transformers([specialist]) == []
    safe = "print(1)\nmodel.eval()\ntorch.load(f, weights_only=True)\nfrom pickle import UnpicklingError"
    assert check_banned([Source("openflorence/cli.py", safe)]) == []
    fine = '"""D."""\nclass A:\n    """D."""\n    def forward(self): ...\n    def _f(self): ...'
    fine += '\ndef g():\n    """D."""\n    def h(): ...'
    assert check_docstrings([Source("openflorence/a.py", fine)]) == []


@pytest.mark.parametrize("text", ["import torch", "import PIL.Image", "from openflorence.model.config import BASE"])
def test_a_heavy_contract_is_seen(text):
    assert check_contract([Source("openflorence/contract/regions.py", text)])
    assert check_contract([Source("openflorence/contract/regions.py", f"try:\n    {text}\nexcept ImportError: ...")])


def test_a_dependency_that_was_not_promised_is_seen():
    def check(text: str) -> list[str]:
        return check_dependencies([Source("openflorence/a.py", text)], {"torch"})

    assert check("import peft")
    assert check("try:\n    from peft import tuners\nexcept ImportError: ...")
    assert check("import torch.nn\nimport os\ndef f():\n    import peft") == []
    assert {"torch", "PIL", "cv2", "numpy"} <= promised_modules()


@pytest.mark.parametrize("path", ["openflorence/model/a.py", "openflorence/engine/a.py", "openflorence/cli.py"])
@pytest.mark.parametrize("text", ["import transformers", "from transformers.models import clip"])
def test_transformers_is_seen(path, text):
    assert check_transformers([Source(path, text)])


def test_large_things_are_seen():
    body = "\n".join(["    pass"] * FUNCTION_LINES)
    assert "61 lines" in check_sizes([Source("a.py", f"class A:\n  def f():\n{body}")], {})[0]
    assert check_sizes([Source("a.py", "\n" * (FILE_LINES + 1))], {})
    assert check_sizes([Source("a.py", "\n" * (FILE_LINES + 1))], {"a.py": "a table"}) == []
    assert check_sizes([Source("a.py", "def f(self, a, b, c, d, e, f, *, g, h): ...")], {}) == []
    assert check_sizes([Source("a.py", "def f(a, b, c, d, e, f, g, h, *i): ...")], {})
    assert check_sizes([Source("a.py", "")], {"a.py": "it was large once"})


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        '"""D."""\ndef f(): ...',
        '"""D."""\nclass A: ...',
        '"""D."""\nclass A:\n    """D."""\n    def f(self): ...',
        '"""D."""\nclass A:\n    """D."""\n    @property\n    def f(self): ...',
        '"""D."""\nasync def f(): ...',
    ],
)
def test_a_missing_docstring_is_seen(text):
    assert len(check_docstrings([Source("openflorence/a.py", text)])) == 1


def test_a_full_init_is_seen():
    assert check_inits([Source("openflorence/model/__init__.py", "import os")])


@pytest.mark.parametrize(
    "text",
    [
        "# TO" + "DO: finish",
        "def f(**kwargs): ...",
        "class A:\n    def f(self, **options): ...",
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill",
        "f(trust_remote_code=True)",
        'f(**{"trust_remote_code": True})',
        "eval('1')",
        "exec('1')",
        "print(1)",
        "def f():\n    raise NotImplementedError",
        "raise NotImplementedError('later')",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
    ],
)
def test_what_is_banned_is_seen(text):
    assert check_banned([Source("openflorence/model/a.py", text)])


def test_a_drawer_for_everything_is_seen():
    assert check_banned([Source("openflorence/model/utils.py", "")])


def test_a_folder_of_one_machine_is_seen():
    assert check_places({"a.md": "see " + "/".join(["", "work", "main"])})


# ---- the front door -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["import openflorence", "import openflorence.contract.answers", "from openflorence import TASKS, Answer"]
)
def test_the_contract_loads_nothing_heavy(text):
    heavy = {"torch", "PIL", "transformers", "cv2", "supervision"}
    command = [sys.executable, "-c", f"import sys\n{text}\nprint(*{heavy!r} & set(sys.modules))"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert done.stdout.split() == []


def test_the_front_door_has_four_names_and_a_version():
    assert set(openflorence.__all__) == {"load", "Florence", "Answer", "TASKS", "__version__"}
    assert set(openflorence.__all__) <= set(dir(openflorence))
    for name in openflorence.__all__:
        assert getattr(openflorence, name) is not None
    with pytest.raises(AttributeError, match="no 'lod'"):
        _ = openflorence.lod


def test_the_version_is_the_one_of_the_package():
    assert openflorence.__version__ == project()["version"]
