"""Images and texts that are the same, or nearly.

    hashes = [hash_image(picture) for picture in pictures]
    for copy in find_copies(hashes): ...    # picture copy.place is as good as picture copy.of

An image is hashed by where it gets brighter: a grid of 8 x 8 steps to the right and as many downwards, 128 bits. The
same picture at another size, quality or brightness keeps nearly all of them.
Near copies are found without comparing all with all: of hashes that differ in at most d bits, in d // 2 + 1 bands,
some band differs in at most one bit. So each band is looked up as it is and with every bit turned.
Source: difference hash, Krawetz 2013; bands, Manku, Jain and Das Sarma 2007.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openflorence.errors import BadConfig

HASH_BITS = 128
NEAR = 8  # bits; of 120 drawn scenes no two were nearer than 9, and 97% of copies at half size or JPEG quality 30 were
_STEPS = 8  # a side
_STEP = 3  # grey levels: less is noise of a flat ground, which would differ from copy to copy
_WORDS = HASH_BITS // 64
_FEWEST = 3  # bands: each fits into a word
_BATCH = 1 << 20  # pairs compared at once


class Copy(NamedTuple):
    """An image that is nearly the same as one before it."""

    place: int
    of: int  # place of the one that is kept
    bits: int  # in which they differ


def hash_image(picture: Image.Image) -> int:
    """Give the difference hash of an upright picture: HASH_BITS bits.

    promise   the same for the same pixels, everywhere; equal brightness is no step, so a plain image is 0.
    """
    grey = picture.convert("L")
    right = np.asarray(grey.resize((_STEPS + 1, _STEPS), Image.Resampling.BOX), np.int16)
    down = np.asarray(grey.resize((_STEPS, _STEPS + 1), Image.Resampling.BOX), np.int16)
    bits = np.concatenate([(np.diff(right, axis=1) > _STEP).ravel(), (np.diff(down, axis=0) > _STEP).ravel()])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_copies(hashes: Sequence[int], near: int = NEAR) -> list[Copy]:
    """Find what is nearly the same as an earlier one that is kept itself; chains of copies do not add up.

    near      bits that copies differ in at most.
    returns   in order; the nearest kept one, the earliest of these. What is not named is to be kept.
    raises    BadConfig when `near` is no number of bits that leaves bands to look up.
    """
    if not 0 <= near < HASH_BITS // 4:
        raise BadConfig(f"near is {near}; allowed are 0 to {HASH_BITS // 4 - 1} bits of {HASH_BITS}")
    first: dict[int, int] = {}
    for place, value in enumerate(hashes):
        first.setdefault(value, place)
    unique = list(first)
    neighbours: dict[int, list[tuple[int, int]]] = {}
    for a, b, bits in near_pairs(unique, near):
        neighbours.setdefault(max(a, b), []).append((bits, min(a, b)))
    kept: set[int] = set()
    nearest: dict[int, tuple[int, int]] = {}
    for number in range(len(unique)):  # in order of their first places
        found = [(bits, other) for bits, other in neighbours.get(number, ()) if other in kept]
        if found:
            nearest[number] = min(found)
        else:
            kept.add(number)
    copies, numbers = [], {value: number for number, value in enumerate(unique)}
    for place, value in enumerate(hashes):
        number = numbers[value]
        if number in nearest:
            bits, other = nearest[number]
            copies.append(Copy(place, first[unique[other]], bits))
        elif first[value] != place:
            copies.append(Copy(place, first[value], 0))
    return copies


def near_pairs(hashes: Sequence[int], near: int) -> Iterator[tuple[int, int, int]]:
    """Yield the places a < b of every two hashes that differ in at most `near` bits, once, with that number."""
    words = _as_words(hashes)
    edges = np.linspace(0, HASH_BITS, max(near // 2 + 1, _FEWEST) + 1).astype(int)
    seen: set[tuple[int, int]] = set()
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        band = _band(hashes, start, end)
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        turned = [np.uint64(0)] if near < 1 else [np.uint64(0), *(np.uint64(1 << bit) for bit in range(end - start))]
        for turn in turned:
            for a, b in _meetings(ordered, order, turn):
                bits = np.bitwise_count(words[a] ^ words[b]).sum(axis=1)
                close = bits <= near
                for i, j, d in zip(a[close].tolist(), b[close].tolist(), bits[close].tolist(), strict=True):
                    pair = (min(i, j), max(i, j))
                    if i != j and pair not in seen:
                        seen.add(pair)
                        yield (*pair, d)


def _meetings(
    ordered: NDArray[np.uint64], order: NDArray[np.int64], turn: np.uint64
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield places of hashes whose bands are equal, or differ in one bit, in batches."""
    sought = ordered ^ turn
    low = np.searchsorted(ordered, sought, "left")
    high = np.searchsorted(ordered, sought, "right")
    if not turn:
        low = np.arange(len(ordered)) + 1  # each two that are equal once
    counts = np.maximum(high - low, 0)
    start = 0
    while start < len(ordered):
        end = max(int(np.searchsorted(counts[start:].cumsum(), _BATCH)) + start, start + 1)
        part = counts[start:end]
        one = np.repeat(np.arange(start, end), part)
        within = np.arange(len(one)) - np.repeat(part.cumsum() - part, part)
        yield order[one], order[np.repeat(low[start:end], part) + within]
        start = end


def _as_words(hashes: Sequence[int]) -> NDArray[np.uint64]:
    """Hashes as rows of 64-bit words."""
    data = b"".join(value.to_bytes(HASH_BITS // 8, "big") for value in hashes)
    return np.frombuffer(data, ">u8").reshape(-1, _WORDS).astype(np.uint64)


def _band(hashes: Sequence[int], start: int, end: int) -> NDArray[np.uint64]:
    """Bits `start` to `end` of each."""
    mask = (1 << (end - start)) - 1
    return np.array([(value >> start) & mask for value in hashes], np.uint64)


_NOT_WORDS = re.compile(r"[^\w]+")


def plain_text(text: str) -> str:
    """Give a text as it is compared: letters and digits in small letters, single spaces, no accents of spelling.

    returns   "a red fish" for "A red  fish." and for "A Red Fish!"; accents that make other letters stay.
    """
    return _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def same_texts(texts: Iterable[str]) -> list[tuple[int, int]]:
    """Give (place, place of the first that says the same) of every text that was said before."""
    first: dict[str, int] = {}
    found = []
    for place, text in enumerate(texts):
        before = first.setdefault(plain_text(text), place)
        if before != place:
            found.append((place, before))
    return found
