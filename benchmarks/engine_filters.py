"""Precision and recall of annotations before and after the filter: drawn scenes, specialists of known error rates.

    python -m benchmarks.engine_filters                       # 200 scenes, the rules alone
    python -m benchmarks.engine_filters --scenes 2000
    python -m benchmarks.engine_filters --specialists 3       # three, equally bad, fused before they are filtered
    python -m benchmarks.engine_filters --look 1              # the embedded nano also measures what is said of regions

A noisy specialist knows the truth of a scene and spoils it: labels and descriptions of something else, boxes that are
shifted, doubles, regions where nothing is, things overlooked; words misread; captions that name what is not there or
say the same again; phrases that are pronouns, or tied to the wrong place. It knows of its mistakes only by its score,
drawn from one range for what is right and a lower one, overlapping it, for what is wrong. Error rates are those of
`Errors`; the truth of every note is known from how it was made, and is checked against the scene where it can be.

Precision: of the notes of a kind, how many are true; a second note of one thing is not. Recall: of the things, words,
texts and phrases there are, how many some true note has. Shares with their bootstrap intervals over scenes; prints a
table and one line of JSON, and writes that line into a dated file.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from benchmarks.machine import ROOT, commit, keep, processor
from openflorence.contract.overlaps import box_iou
from openflorence.contract.records import GroundingNote, Origin, PhraseNote, Record, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.album import scene_record
from openflorence.data.chance import below, chance, dice, pick
from openflorence.data.notes import Notes, kept
from openflorence.data.shapes import KINDS
from openflorence.data.words import COLOURS, SIGN
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.engine.agree import AgreeSettings, likelihoods
from openflorence.engine.filters import TextSettings, pool
from openflorence.engine.fuse import fuse
from openflorence.engine.judge import JudgeSettings, judge
from openflorence.engine.overlaps import region_overlap
from openflorence.engine.parse import DEFAULT_PARSE, ParseSettings, chosen_reader
from openflorence.engine.votes import FuseRule, Voter
from openflorence.model.predict import Florence, load

FIRST_SEED = 900_000  # of scenes; thresholds were chosen on those from 700,000 on
TRUE_IOU = 0.5  # from here on a region is at its place
KINDS_OF_NOTES = ("objects", "descriptions", "words", "texts", "phrases")
VOCABULARY = (*KINDS, SIGN)


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How often a specialist is wrong, as shares of what there is."""

    missed: float = 0.08  # things and words it does not see
    wrong_label: float = 0.12  # of another kind
    wrong_description: float = 0.12  # of another colour
    shifted: float = 0.12  # by a third to two thirds of its size
    doubled: float = 0.20  # said twice, the second a little beside
    invented: float = 0.20  # where nothing is
    misread: float = 0.12  # a letter of a word
    slivers: float = 0.05  # thin regions along an edge
    wrong_text: float = 0.30  # names something that is not there
    repeated_text: float = 0.15
    pronouns: float = 0.15  # phrases that name nothing
    misplaced: float = 0.15  # phrases tied to the wrong place
    right_score: tuple[float, float] = (0.35, 1.0)  # score of what is right, evenly between
    wrong_score: tuple[float, float] = (0.05, 0.65)


@dataclass(frozen=True)
class Specialist:
    """One who annotates, with a name and errors of its own."""

    name: str
    errors: Errors = field(default_factory=Errors)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    scenes: int = 200
    specialists: tuple[Specialist, ...] = (Specialist("noisy"),)
    look: bool = False  # measure regions with the embedded nano
    side_px: int = 320
    parser: ParseSettings = DEFAULT_PARSE
    out: Path = ROOT / "benchmarks"


# ---- making mistakes


@dataclass
class _Noise:
    """The notes of one specialist on one scene."""

    record: Record
    errors: Errors
    rng: np.random.Generator
    origin: Origin

    def notes(self) -> Notes:
        """All kinds; regions first, since phrases are tied to other places than they name."""
        regions = [note for region in self.record.regions for note in self._region(region)]
        for _ in self.record.regions:
            if chance(self.rng, self.errors.invented):
                label = pick(self.rng, VOCABULARY)
                box = self._anywhere()
                colour = pick(self.rng, tuple(COLOURS))
                regions.append(self._made(RegionNote(box=box, label=label, description=f"{colour} {label}"), False))
            if chance(self.rng, self.errors.slivers):
                regions.append(self._made(self._sliver(), False))
        return Notes(tuple(self._texts()), tuple(regions), tuple(self._groundings()))

    def _made(self, note: RegionNote, right: bool) -> RegionNote:
        return replace(note, score=self._score(right), origin=self.origin)

    def _score(self, right: bool) -> float:
        low, high = self.errors.right_score if right else self.errors.wrong_score
        return round(low + (high - low) * float(self.rng.random()), 3)

    def _region(self, true: RegionNote) -> list[RegionNote]:
        """A thing, and the word on it: each seen, or not, on its own."""
        return [*self._word(true), *self._thing(true)]

    def _word(self, true: RegionNote) -> list[RegionNote]:
        if not true.word or chance(self.rng, self.errors.missed):
            return []
        note, right = RegionNote(quad=true.quad, word=true.word), not chance(self.rng, self.errors.misread)
        if not right:
            at = below(self.rng, len(true.word))
            note = replace(note, word=true.word[:at] + pick(self.rng, "QXZJ") + true.word[at + 1 :])
        return self._placed(note, right)

    def _thing(self, true: RegionNote) -> list[RegionNote]:
        errors, rng = self.errors, self.rng
        if chance(rng, errors.missed):
            return []
        note, right = RegionNote(box=true.box, label=true.label, description=true.description), True
        if chance(rng, errors.wrong_label):
            label = pick(rng, [kind for kind in VOCABULARY if kind != true.label])
            note, right = replace(note, label=label, description=note.description.replace(true.label, label)), False
        elif chance(rng, errors.wrong_description):
            colours = [colour for colour in COLOURS if colour not in note.description]
            words = [pick(rng, colours) if word in COLOURS else word for word in note.description.split()]
            note, right = replace(note, description=" ".join(words)), False
        return self._placed(note, right)

    def _placed(self, note: RegionNote, right: bool) -> list[RegionNote]:
        """Put a region where it belongs, or beside; once or twice."""
        if chance(self.rng, self.errors.shifted):
            note, right = self._moved(note, 0.33 + 0.33 * float(self.rng.random())), False
        found = [self._made(note, right)]
        if chance(self.rng, self.errors.doubled):
            found.append(self._made(self._moved(note, 0.03 + 0.07 * float(self.rng.random())), right))
        return found

    def _moved(self, note: RegionNote, share: float) -> RegionNote:
        """Move a region by a share of its size, one way or the other, within the image."""
        box = note.bounds
        assert box is not None
        dx = (box.x1 - box.x0) * share * pick(self.rng, (-1, 1))
        dy = (box.y1 - box.y0) * share * pick(self.rng, (-1, 1))
        width, height = self.record.image_wh
        x = min(max(dx, -box.x0), width - box.x1)
        y = min(max(dy, -box.y0), height - box.y1)
        x, y = (x, y) if abs(x) + abs(y) > 1 else (-dx / 2, -dy / 2)
        if note.quad:
            a, b, c, d = (Point(p.x + x, p.y + y) for p in note.quad)
            return replace(note, quad=(a, b, c, d))
        return replace(note, box=Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y))

    def _anywhere(self) -> Box:
        width, height = self.record.image_wh
        w, h = (side * (0.1 + 0.3 * float(self.rng.random())) for side in (width, height))
        x, y = (width - w) * float(self.rng.random()), (height - h) * float(self.rng.random())
        return Box(x, y, x + w, y + h)

    def _sliver(self) -> RegionNote:
        width, height = self.record.image_wh
        top = (height - 60) * float(self.rng.random())
        label = pick(self.rng, VOCABULARY)
        return RegionNote(box=Box(width - 0.015 * width, top, width, top + 60), label=label, description=label)

    def _texts(self) -> list[TextNote]:
        found = []
        for true in self.record.texts:
            right = not chance(self.rng, self.errors.wrong_text)
            text = true.text if right else self._swapped(true.text)
            found.append(replace(true, text=text, score=self._score(right), origin=self.origin))
            if chance(self.rng, self.errors.repeated_text):
                found.append(replace(found[-1], text=text[0].upper() + text[1:], score=self._score(right)))
        return found

    def _swapped(self, text: str) -> str:
        """Name a kind that is nowhere in the scene in place of one that is."""
        there = {region.label for region in self.record.regions}
        named = [kind for kind in VOCABULARY if kind in there and kind in text]
        absent = pick(self.rng, [kind for kind in VOCABULARY if kind not in there])
        return text.replace(pick(self.rng, named), absent) if named else f"{text.rstrip('.')} and a {absent}"

    def _groundings(self) -> list[GroundingNote]:
        return [
            replace(true, phrases=tuple(self._phrases(true)), score=None, origin=self.origin)
            for true in self.record.groundings
        ]

    def _phrases(self, true: GroundingNote) -> list[PhraseNote]:
        found = []
        for phrase in true.phrases:
            right = not chance(self.rng, self.errors.misplaced)
            boxes = phrase.boxes if right else tuple(self._anywhere() for _ in phrase.boxes)
            found.append(replace(phrase, boxes=boxes, score=self._score(right)))
            if chance(self.rng, self.errors.pronouns):
                word = pick(self.rng, ("it", "they", "the image", "a group", "the background", "which"))
                found.append(PhraseNote(phrase=word, boxes=(self._anywhere(),), score=self._score(True)))
        return found


def annotate(scene: Scene, who: Specialist) -> Notes:
    """What a specialist says of a scene: the same each time."""
    rng = dice([scene.seed, who.seed, 6])
    return _Noise(scene_record(scene, ""), who.errors, rng, Origin(source=who.name)).notes()


# ---- the truth

Tally = tuple[int, int, int]  # true notes, notes, and what there is


def tally(notes: Notes, truth: Record) -> dict[str, Tally]:
    """Count the notes of each kind that are true, one for each thing there is."""
    things = list(truth.regions)
    signs = [region for region in truth.regions if region.word]
    objects = [note for note in notes.regions if note.label]
    words = [note for note in notes.regions if note.word]
    texts = [(note.level, note.text.casefold()) for note in notes.texts]
    true_texts = {(note.level, note.text.casefold()) for note in truth.texts}
    phrases = [phrase for grounding in notes.groundings for phrase in grounding.phrases]
    true_phrases = [phrase for grounding in truth.groundings for phrase in grounding.phrases]
    found = {_place_of(phrase, true_phrases) for phrase in phrases} - {None}
    return {
        "objects": (_matched(objects, things, lambda a, b: a.label == b.label), len(objects), len(things)),
        "descriptions": (
            _matched(objects, things, lambda a, b: a.description == b.description),
            len(objects),
            len(things),
        ),
        "words": (_matched(words, signs, lambda a, b: a.word == b.word), len(words), len(signs)),
        "texts": (len(true_texts & set(texts)), len(texts), len(true_texts)),
        "phrases": (len(found), len(phrases), len(true_phrases)),
    }


def _matched(notes: Sequence[RegionNote], true: Sequence[RegionNote], same: Callable) -> int:
    """Pair notes with things they are true of, the best overlaps first; each once."""
    pairs = []
    for i, note in enumerate(notes):
        for j, thing in enumerate(true):
            bare = RegionNote(quad=thing.quad) if note.quad else RegionNote(box=thing.box)
            if same(note, thing) and (overlap := region_overlap(note, bare)) >= TRUE_IOU:
                pairs.append((-overlap, i, j))
    ones, others = set[int](), set[int]()
    for _, i, j in sorted(pairs):
        if i not in ones and j not in others:
            ones.add(i)
            others.add(j)
    return len(ones)


def _place_of(phrase: PhraseNote, true: Sequence[PhraseNote]) -> int | None:
    """Which true phrase this one is: the same words at the same places."""
    for place, other in enumerate(true):
        if phrase.phrase == other.phrase and len(phrase.boxes) == len(other.boxes):
            overlaps = box_iou(phrase.boxes, other.boxes).diagonal()
            if overlaps.min(initial=1.0) >= TRUE_IOU:
                return place
    return None


# ---- measuring


def measure(plan: Plan, model: Florence | None = None) -> dict[str, object]:
    """Annotate scenes, fuse, filter, count."""
    settings = JudgeSettings(
        texts=TextSettings(parser=plan.parser),
        agree=AgreeSettings(vocabulary=VOCABULARY, parser=plan.parser),
    )
    rule = FuseRule(tuple(Voter(who.name, ("object", "word")) for who in plan.specialists))
    alone: list[dict[str, Tally]] = []  # the first specialist
    before: list[dict[str, Tally]] = []
    after: list[dict[str, Tally]] = []
    dropped: dict[str, int] = {}
    seconds = 0.0
    for number in range(plan.scenes):
        scene = draw_scene(FIRST_SEED + number, WorldConfig(side_px=plan.side_px))
        truth = scene_record(scene, "")
        said = {who.name: annotate(scene, who) for who in plan.specialists}
        first = next(iter(said.values()))
        start = perf_counter()
        notes = fuse(said, rule)[0] if len(said) > 1 else first
        measured = None if model is None else _look(model, scene, notes)
        verdicts = judge({"noisy": notes}, scene.image_wh, settings, measured)
        seconds += perf_counter() - start
        alone.append(tally(first, truth))
        before.append(tally(notes, truth))
        after.append(tally(kept(notes, verdicts), truth))
        for verdict in verdicts:
            dropped[verdict.rule] = dropped.get(verdict.rule, 0) + 1
    steps = {"alone": alone, "before": before, "after": after}
    rows = [
        {"kind": kind} | {name: shares_of([one[kind] for one in tallies]) for name, tallies in steps.items()}
        for kind in KINDS_OF_NOTES
    ]
    return {"rows": rows, "dropped": dropped, "ms_per_scene": 1e3 * seconds / plan.scenes}


def _look(model: Florence, scene: Scene, notes: Notes) -> dict[str, float]:
    return likelihoods(model, Image.fromarray(scene.image), pool({"noisy": notes}).regions)


def shares_of(tallies: Sequence[Tally]) -> dict[str, object]:
    """Precision and recall over all scenes, with 95% bootstrap intervals over scenes."""
    counts = np.array(tallies, np.float64)
    draws = dice(0).integers(0, len(counts), (1000, len(counts)))
    sums = counts[draws].sum(axis=1)
    true, said, there = counts.sum(axis=0).tolist()
    shares: dict[str, object] = {"true": int(true), "notes": int(said), "there": int(there)}
    for name, column in (("precision", 1), ("recall", 2)):
        whole = counts[:, column].sum()
        ratios = sums[:, 0] / np.maximum(sums[:, column], 1)
        shares[name] = float(true / whole) if whole else None
        shares[f"{name}_95"] = [float(value) for value in np.percentile(ratios, [2.5, 97.5])]
    return shares


def main() -> None:
    """Measure, print, write."""
    plan = read_plan()
    plan.out.mkdir(parents=True, exist_ok=True)
    results = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "scenes": plan.scenes,
        "first_seed": FIRST_SEED,
        "side_px": plan.side_px,
        "parser": chosen_reader(plan.parser),
        "look": plan.look,
        "several": len(plan.specialists) > 1,
        "specialists": [{"name": who.name, "seed": who.seed, "errors": asdict(who.errors)} for who in plan.specialists],
        **measure(plan, model=load() if plan.look else None),
    }
    print_table(results)
    several = f"-{len(plan.specialists)}" if len(plan.specialists) > 1 else ""
    keep(results, plan.out, f"engine-filters{several}{'-look' if plan.look else ''}")


def read_plan() -> Plan:
    """The plan of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=plan.scenes)
    parser.add_argument("--side-px", type=int, default=plan.side_px)
    parser.add_argument("--look", type=int, default=0)
    parser.add_argument("--specialists", type=int, default=len(plan.specialists))
    parser.add_argument("--reader", default=plan.parser.reader)
    parser.add_argument("--out", type=Path, default=plan.out)
    given = parser.parse_args()
    return replace(
        plan,
        scenes=given.scenes,
        side_px=given.side_px,
        look=bool(given.look),
        specialists=tuple(Specialist(f"noisy{seed}", seed=seed) for seed in range(max(given.specialists, 1))),
        parser=ParseSettings(reader=given.reader),
        out=given.out,
    )


def print_table(results: Mapping[str, object]) -> None:
    """One row a kind, in percent."""
    print(f"{'kind':14}{'precision':>26}{'recall':>26}{'notes':>16}")
    for row in results["rows"]:  # type: ignore[attr-defined]
        steps = [row[name] for name in ("alone", "before", "after")][0 if results["several"] else 1 :]
        cells = [" -> ".join(f"{100 * step[name]:.1f}" for step in steps) for name in ("precision", "recall")]
        print(f"{row['kind']:14}{cells[0]:>26}{cells[1]:>26}{steps[0]['notes']:>8} -> {steps[-1]['notes']}")
    print("dropped:", results["dropped"], f"{results['ms_per_scene']:.1f} ms a scene")


if __name__ == "__main__":
    main()
