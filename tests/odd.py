"""Records with everything in them and odd words, drawn by a seed."""

import random

from openflorence.contract.records import (
    GroundingNote,
    PairNote,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box, Point

# What broke other readers of such answers: accents, commas, hyphens, digits, "<", other scripts, line ends, blanks.
WORDS = (
    "café",
    "a, b",
    "T-shirt",
    "50",
    "3<4",
    "<loc",
    "loc_5>",
    "猫",
    "two\nlines",
    " trimmed ",
    "car",
    "car",
    "é",
    "<",
    ">",
)
MAYBE = ("", " ", *WORDS)


def odd_record(seed: int, largest: int = 8) -> Record:
    """Draw a record; now and then with no region at all, with crowds, or with the same region twice."""
    rng = random.Random(seed)
    image_wh = rng.choice([(640, 480), (333, 1001), (1000, 1000), (7, 5), (4096, 3)])

    def points(count: int) -> tuple[Point, ...]:
        return tuple(
            Point(rng.uniform(0, image_wh[0] * 0.999), rng.uniform(0, image_wh[1] * 0.999)) for _ in range(count)
        )

    def box() -> Box:
        (ax, ay), (bx, by) = points(2)
        return Box(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))

    def region() -> RegionNote:
        bare = rng.random()
        a, b, c, d = points(4)
        return RegionNote(
            box=box() if bare < 0.8 else None,
            quad=(a, b, c, d) if bare > 0.9 else None,
            polygons=tuple(points(rng.randint(3, 9)) for _ in range(rng.randint(0, 3) if bare < 0.8 else 1)),
            label=rng.choice(MAYBE),
            description=rng.choice(MAYBE),
            word=rng.choice(MAYBE),
            expressions=tuple(rng.choice(MAYBE) for _ in range(rng.randint(0, 2))),
            crowd=rng.random() < 0.1,
            score=rng.choice([None, 0.2, 0.9]),
        )

    def grounding() -> GroundingNote:
        said = [rng.choice(WORDS) for _ in range(rng.randint(1, 4))]
        phrases = tuple(PhraseNote(phrase=one, boxes=tuple(box() for _ in range(rng.randint(1, 3)))) for one in said)
        return GroundingNote(text=" and ".join(said), phrases=phrases, level=rng.choice(["brief", "detailed"]))

    regions = [region() for _ in range(rng.randint(0, largest))]
    return Record(
        image=f"{seed}.png",
        image_wh=image_wh,
        texts=tuple(TextNote(text=rng.choice(WORDS), level=rng.choice(["brief", "more_detailed"])) for _ in range(2)),
        regions=tuple(regions + rng.sample(regions, len(regions) // 4)),
        groundings=tuple(grounding() for _ in range(rng.randint(0, 2))),
        questions=tuple(
            QuestionNote(question=rng.choice(WORDS), answers=tuple(rng.choices(WORDS, k=rng.randint(1, 5))))
            for _ in range(rng.randint(0, 2))
        ),
        pairs=tuple(
            PairNote(prefix=rng.choice(PREFIXES), suffix=rng.choice(SUFFIXES)) for _ in range(rng.randint(0, 2))
        ),
        whole=frozenset(name for name in ("objects", "words") if rng.random() < 0.7),
    )


_BOX = "<loc_1><loc_22><loc_333><loc_999>"
PREFIXES = (
    "<OD>",
    "<OD> now",
    "detect it",
    f"<REGION_TO_CATEGORY>{_BOX}",
    "<OPEN_VOCABULARY_DETECTION> a<and>b",
    "<CAPTION>",
)
SUFFIXES = (f"car{_BOX}{_BOX}café{_BOX}", f"car {_BOX}", "", "plain words", f"x{_BOX}<loc_5>", f"car{_BOX}")
