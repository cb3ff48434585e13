"""Copies of images and texts: hashes by hand, search against all pairs."""

import io
from random import Random

import numpy as np
import pytest
from PIL import Image

from openflorence.data.world import WorldConfig, draw_scene
from openflorence.engine.duplicates import (
    HASH_BITS,
    NEAR,
    Copy,
    find_copies,
    hash_image,
    near_pairs,
    plain_text,
    same_texts,
)
from openflorence.errors import BadConfig


def drawn(seed: int) -> Image.Image:
    return Image.fromarray(draw_scene(seed, WorldConfig(side_px=96)).image)


def differ(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def test_a_ramp_gets_brighter_everywhere_and_a_plain_image_nowhere():
    # By hand: 8 rows x 8 steps to the right are brighter, none downwards: the first 64 bits.
    ramp = Image.fromarray(np.tile(np.arange(0, 252, 7, dtype=np.uint8), (36, 1)))
    assert hash_image(ramp) == (1 << HASH_BITS) - (1 << 64)
    assert hash_image(ramp.transpose(Image.Transpose.ROTATE_270)) == (1 << 64) - 1
    assert hash_image(Image.new("RGB", (50, 40), (9, 200, 30))) == 0


def test_a_copy_at_half_size_or_poor_quality_is_near_and_strangers_are_not():
    pictures = [drawn(seed) for seed in range(12)]
    hashes = [hash_image(picture) for picture in pictures]
    for picture, hashed in zip(pictures, hashes, strict=True):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=60)
        assert differ(hash_image(Image.open(file)), hashed) <= NEAR
        assert differ(hash_image(picture.resize((192, 192))), hashed) <= NEAR
    assert min(differ(a, b) for place, a in enumerate(hashes) for b in hashes[:place]) > NEAR


@pytest.mark.parametrize("near", [0, 1, 2, 7, 8, 12])
def test_bands_find_every_near_pair_that_all_pairs_find(near):
    rng = Random(near)
    hashes = [rng.getrandbits(HASH_BITS) for _ in range(40)]
    for value in hashes[:40]:
        for _ in range(3):
            turned = value
            for bit in rng.sample(range(HASH_BITS), rng.randint(0, near + 2)):
                turned ^= 1 << bit
            hashes.append(turned)
    pairs = {(i, j, differ(hashes[i], hashes[j])) for j in range(len(hashes)) for i in range(j)}
    wanted = {pair for pair in pairs if pair[2] <= near}
    found = list(near_pairs(hashes, near))
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_copies_of_copies_do_not_add_up():
    # By hand: each differs from the one before by 8 bits, so the third is 16 from the first and is kept.
    steps = [0, 0xFF, 0xFFFF, 0xFFFFFF, 0]
    assert find_copies(steps, near=8) == [Copy(1, 0, 8), Copy(3, 2, 8), Copy(4, 0, 0)]
    assert find_copies([], near=8) == []
    assert find_copies([7, 7, 7], near=0) == [Copy(1, 0, 0), Copy(2, 0, 0)]


def test_a_distance_without_bands_is_refused():
    with pytest.raises(BadConfig, match="near is 40"):
        find_copies([1], near=40)


def test_texts_are_compared_without_spelling():
    assert plain_text("  A red\nFish! ") == "a red fish"
    assert plain_text("ﬁsh") == "fish"  # one letter for fi
    assert plain_text("café") != plain_text("cafe")
    assert same_texts(["A cat.", "a dog", "a  CAT", "a dog!"]) == [(2, 0), (3, 1)]
