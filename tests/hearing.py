"""Answers as a decoder would have said them."""

import re
from collections.abc import Sequence

from openflorence.contract.answers import CONTROLS, MARKERS, Said

PIECE = re.compile("(<loc_[0-9]+>|" + "|".join(MARKERS) + ")")


def said(raw: str, locations: float | Sequence[float], words: float = -0.25) -> list[Said]:
    """The stretches of a text; `locations` are the log-probabilities of its locations, `words` of each run of words."""
    for control in CONTROLS:
        raw = raw.replace(control, "")
    pieces = [piece for piece in PIECE.split(raw) if piece]
    places = [piece for piece in pieces if piece.startswith("<loc_")]
    values = iter([locations] * len(places) if isinstance(locations, float) else locations)
    return [
        Said("location", next(values)) if piece in places else Said("marker" if piece in MARKERS else "words", words)
        for piece in pieces
    ]
