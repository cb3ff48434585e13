"""What a user names, files, folders, globs and URLs -> a list of images."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from openflorence.errors import BadConfig

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".qoi")


def expand(words: Sequence[str]) -> list[str]:
    """Files, folders (every image in them, by name), globs and URLs -> one list, each once, in order.

    raises    BadConfig for a folder or a glob that holds no image; a missing file is left for its own error.
    """
    found: list[str] = []
    for word in words:
        path = os.path.expanduser(word)
        if "://" in word or word.startswith("data:") or os.path.isfile(path):
            found.append(word)
        elif os.path.isdir(path):
            inside = sorted(str(file) for file in Path(path).rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise BadConfig(f"folder {word} holds no image ({', '.join(IMAGE_SUFFIXES)})")
            found += inside
        elif any(sign in word for sign in "*?["):
            inside = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
            if not inside:
                raise BadConfig(f"nothing matches {word}")
            found += inside
        else:
            found.append(word)
    return list(dict.fromkeys(found))
