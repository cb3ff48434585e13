"""What is wrong with data: counted by kind, with the first examples, and never in the way of a run."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 3  # examples kept of each kind

# Kind of problem -> what is done about it. A kind that is not here is a mistake of ours.
RULES: dict[str, str] = {
    "file not readable": "the file is left out",
    "text not readable": "the entry is left out; text must be UTF-8",
    "entry not readable": "the entry is left out",
    "unknown category": "the region is left out",
    "unknown image": "the annotation is left out",
    "doubled entry": "the first one stays",
    "image missing": "the image is left out",
    "image not readable": "the image is left out",
    "size differs": "the annotations are scaled if the proportions agree within 1 %, otherwise the image is left out",
    "not finite": "the region is left out",
    "negative size": "the region is left out",
    "empty region": "the region is left out",
    "outside the image": "the region is left out",
    "partly outside": "the region is cut at the edge of the image",
    "too few points": "the ring is left out, and the region with its last one, unless it has a box",
    "empty text": "the note is left out",
    "special token": "the note is left out: its text spells a token, such as <loc_5> or </s>",
    "no annotation": "the image is left out: nothing can be asked about it",
    "target too long": "the target is split, thinned or left out, as data/budget.py says",
    "target impossible": "the target is left out",
}


@dataclass
class Problems:
    """A collector that readers, cleaning and the mixture report to."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, what: str) -> None:
        """Count one problem.

        kind     a key of RULES.
        what     file, entry and value, for people: "train.json, annotation 17: bbox [3, 4, -1, 5]".
        """
        assert kind in RULES, f"{kind!r} has no rule"
        self.counts[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < SHOWN:
            kept.append(what)

    def take(self, others: "Problems") -> None:
        """Add what another collector has seen, as one from another process."""
        self.counts.update(others.counts)
        for kind, examples in others.examples.items():
            kept = self.examples.setdefault(kind, [])
            kept += examples[: SHOWN - len(kept)]

    def as_row(self) -> dict[str, Mapping[str, object]]:
        """Give kind -> count, rule and examples, for JSON; the most frequent kind first."""
        return {
            kind: {"count": count, "rule": RULES[kind], "examples": self.examples[kind]}
            for kind, count in self.counts.most_common()
        }

    def __str__(self) -> str:
        """Say each kind in a line with its rule, and its first examples below; "" when there is none."""
        lines = []
        for kind, count in self.counts.most_common():
            lines.append(f"{count} x {kind}: {RULES[kind]}")
            lines += [f"    {what}" for what in self.examples[kind]]
        return "\n".join(lines)


def read_text(path: Path, problems: Problems) -> str | None:
    """Read a text file in UTF-8, with or without a byte order mark; None, counted, when that cannot be done."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add("text not readable", f"{path}: byte {error.start} is {error.object[error.start]:#04x}, not UTF-8")
    except OSError as error:
        problems.add("file not readable", f"{path}: {error.strerror or error}")
    return None


def write_text(path: Path, text: str) -> Path:
    """Write a text file in UTF-8 whole or not at all: beside its place, then moved there; folders are made.

    returns   the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
