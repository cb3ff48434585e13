"""The tables of results of the Florence-2 paper, cell by cell as printed, under the names of our benchmarks.

Source: Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks", CVPR 2024 (arXiv
2311.06242), tables 4, 5 and 6. A number stands here because the paper prints it, not because it was repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAPER = "Xiao et al. 2024, Florence-2 (arXiv 2311.06242)"
NONE = "–"  # the paper has no number there
OCR = "△"  # after a number that was reached with an external reader of text

# What the paper does not say, so that a number of ours beside one of its own may differ for no fault of the weights.
OPEN_PROTOCOLS = (
    "How boxes without scores were ranked for average precision is not said. Ours names its score protocol.",
    "How several boxes of a phrase are judged on Flickr30k is not said (any of the boxes, or one box around all). "
    "Ours names its protocol.",
    "How polygons became masks is not said; nor are the prompts of visual questions and of referring expressions, "
    "nor the settings of decoding.",
    "The answers to the test-dev parts of VQAv2, TextVQA and VizWiz lie with the servers of the challenges. A number "
    "of ours on another part names the part, and does not compare.",
)
DEFINITIONS = "Accuracy on RefCOCO, RefCOCO+ and RefCOCOg is the share of boxes with an IoU of at least 0.5."
DOUBTS = (
    "The 82.2 of fine-tuned Florence-2-B on RefCOCOg test is what the paper and the model card say; it equals the "
    "number beside it for RefCOCO+ testB and is 7.6 below that of the validation split, so it may be a slip.",
    "Where the prose of the paper contradicts its tables (140.0 CIDEr and 81.5 on TextVQA for the large model), "
    "the tables are given.",
)


@dataclass(frozen=True)
class PaperRow:
    """What one row of numbers measures."""

    benchmark: str  # our name of the benchmark
    split: str  # as the paper calls it
    measure: str  # as the paper calls it
    ours: tuple[str, ...]  # the names under which our figures may have it: one for each protocol

    @property
    def title(self) -> str:
        """The row in words: "COCO captions Karpathy test, CIDEr"."""
        return f"{TITLES[self.benchmark]} {self.split}, {self.measure}"


@dataclass(frozen=True)
class PaperTable:
    """One table: rows are benchmarks, columns are systems."""

    title: str
    source: str
    rows: tuple[PaperRow, ...]
    systems: Mapping[str, tuple[str, ...]]  # name and size -> a cell for each row, as printed; the Florence-2 first

    def cell(self, system: str, benchmark: str, split: str) -> str:
        """Look a cell up; NONE where the paper has none."""
        (place,) = (i for i, row in enumerate(self.rows) if (row.benchmark, row.split) == (benchmark, split))
        return self.systems[system][place]


TITLES = {
    "coco-caption": "COCO captions",
    "nocaps": "NoCaps",
    "textcaps": "TextCaps",
    "coco-detect": "COCO detection",
    "flickr30k": "Flickr30k Entities",
    "refcoco": "RefCOCO",
    "refcoco+": "RefCOCO+",
    "refcocog": "RefCOCOg",
    "refcoco-segment": "RefCOCO segmentation",
    "vqav2": "VQAv2",
    "textvqa": "TextVQA",
    "vizwiz": "VizWiz",
}


def number(cell: str) -> float | None:
    """Read a cell: the number reached without an external reader of text; None where the paper has none."""
    plain = [part for part in cell.split("/") if part != NONE and not part.endswith(OCR)]
    return float(plain[0]) if plain else None


def _systems(lines: str) -> dict[str, tuple[str, ...]]:
    """A line a system: its name, then a cell for each row of the table."""
    pairs = (line.split(":") for line in lines.strip().splitlines())
    return {name.strip(): tuple(cells.split()) for name, cells in pairs}


def _referring(benchmark: str, splits: Sequence[str]) -> tuple[PaperRow, ...]:
    return tuple(PaperRow(benchmark, split, "accuracy", ("accuracy",)) for split in splits)


_CIDER = ("cider_d",)  # what coco-caption prints as CIDEr
_CAPTIONS = (
    PaperRow("coco-caption", "Karpathy test", "CIDEr", _CIDER),
    PaperRow("nocaps", "val", "CIDEr", _CIDER),
    PaperRow("textcaps", "val", "CIDEr", _CIDER),
)
_REGIONS = (
    PaperRow("coco-detect", "val2017", "mAP", ("map", "map_order", "map_constant")),
    PaperRow("flickr30k", "test", "R@1", ("recall_at_1", "recall_at_1_merged")),
    *_referring("refcoco", ("val", "testA", "testB")),
    *_referring("refcoco+", ("val", "testA", "testB")),
    *_referring("refcocog", ("val", "test")),
    PaperRow("refcoco-segment", "val", "mIoU", ("miou",)),
)
_QUESTIONS = tuple(
    PaperRow(benchmark, "test-dev", "accuracy", ("accuracy",)) for benchmark in ("vqav2", "textvqa", "vizwiz")
)

ZERO_SHOT = PaperTable(
    "Zero-shot: one generalist model, no benchmark's training data",
    f"{PAPER}, table 4",
    _CAPTIONS + _REGIONS,
    _systems(
        """
        Florence-2-L 0.77B: 135.6 120.8 72.8 37.5 84.4 56.3 61.6 51.4 53.6 57.9 49.9 68.0 67.0 35.8
        Florence-2-B 0.23B: 133.0 118.7 70.1 34.7 83.6 53.9 58.4 49.7 51.5 56.4 47.9 66.3 65.1 34.6
        Kosmos-2 1.6B:      –     –     –    –    78.7 52.3 57.4 47.3 45.5 50.7 42.2 60.6 61.7 –
        Flamingo 80B:       84.3  –     –    –    –    –    –    –    –    –    –    –    –    –
        """
    ),
)

TUNED_WORDS = PaperTable(
    "Fine-tuned: captions and questions",
    f"{PAPER}, table 5; Florence-2 and Unified-IO are one generalist model; {OCR} with an external reader of text",
    _CAPTIONS + _QUESTIONS,
    _systems(
        f"""
        Florence-2-L 0.77B: 143.3 124.9 151.1           81.7 73.5            72.6
        Florence-2-B 0.23B: 140.0 116.7 143.9           79.7 63.6            63.6
        BLIP-2 7.8B:        144.5 121.6 –               82.2 –               –
        CoCa 2.1B:          143.6 122.4 –               82.3 –               –
        GIT2 5.1B:          145   126.9 148.6           81.7 67.3            71.0
        Flamingo 80B:       138.1 –     –               82.0 54.1            65.7
        PaLI 17B:           149.1 127.0 160.0{OCR}      84.3 58.8/73.1{OCR}  71.6/74.4{OCR}
        PaLI-X 55B:         149.2 126.3 147/163.7{OCR}  86.0 71.4/80.8{OCR}  70.9/74.6{OCR}
        Unified-IO 2.9B:    –     100   –               77.9 –               57.4
        """
    ),
)

TUNED_REGIONS = PaperTable(
    "Fine-tuned: regions",
    f"{PAPER}, table 6; Florence-2 and UniTAB are one generalist model",
    _REGIONS,
    _systems(
        """
        Florence-2-L 0.77B: 43.4 85.2 93.4 95.3 92.0 88.3 92.9 83.6 91.2 91.7 80.5
        Florence-2-B 0.23B: 41.4 84.0 92.6 94.8 91.5 86.8 91.7 82.2 89.8 82.2 78.0
        PolyFormer:         –    –    90.4 92.9 87.2 85.0 89.8 78.0 85.8 85.9 76.9
        UNINEXT 0.74B:      60.6 –    92.6 94.3 91.5 85.2 89.6 79.8 88.7 89.4 –
        Ferret 13B:         –    –    89.5 92.4 84.4 82.8 88.1 75.2 85.8 86.3 –
        SeqTR:              –    –    83.7 86.5 81.2 71.5 76.3 64.9 74.9 74.2 –
        UniTAB:             –    –    88.6 91.1 83.8 81.0 85.4 71.6 84.6 84.7 –
        """
    ),
)

PAPER_TABLES = (ZERO_SHOT, TUNED_WORDS, TUNED_REGIONS)
