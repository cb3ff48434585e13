"""Where a store lies: a folder, or a place on object storage by its URL, s3://bucket/fld. Both are asked like a Path.

Keys, endpoint and region are taken from where AWS's own tools take them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, AWS_ENDPOINT_URL for servers that are not Amazon's, and the files in ~/.aws.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from openflorence.data.entries import parse_json
from openflorence.data.store_rows import arrow
from openflorence.errors import BadConfig

SCHEMES = ("s3",)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)")  # a letter and a colon is a drive
_CACHE = "OPENFLORENCE_CACHE"  # folder of what this machine keeps of stores that lie elsewhere


def place_of(name: str | Path) -> Path:
    """Make what is asked like a Path of the name of a store, or of anything in one.

    raises    BadConfig for a URL that is not of SCHEMES, or has no bucket, or when its packages are not installed.
    """
    found = _URL.fullmatch(str(name))
    if found is None:
        return Path(name).absolute()
    scheme, rest = found.groups()
    if scheme.lower() not in SCHEMES or not rest.strip("/"):
        raise BadConfig(f"{name} cannot be a store; give a folder, or s3://bucket/folder")
    try:
        import s3fs  # noqa: F401 - universal_pathlib imports it late, with another message
        from upath import UPath
    except ImportError as error:
        raise BadConfig(f"a store on object storage needs: pip install openflorence[s3] ({error})") from error
    # Without listings in memory: another process writes too.
    made = UPath(f"{scheme.lower()}://{rest.strip('/')}", use_listings_cache=False)
    return cast(Path, made)  # it has all of Path's methods that are used here, and is none of its classes


def is_remote(place: Path) -> bool:
    """Tell whether a place is on object storage, where a file is there whole or not at all and folders are names."""
    return not isinstance(place, Path)


@contextmanager
def reaching(place: Path) -> Iterator[None]:
    """Say it as BadConfig when object storage cannot be reached while the block runs."""
    if not is_remote(place):
        yield
        return
    try:
        yield
    except network_errors() as error:
        raise BadConfig(f"cannot reach {place}: {error or type(error).__name__}") from error


def network_errors() -> tuple[type[Exception], ...]:
    """What object storage raises when it cannot be reached, or refuses."""
    from botocore.exceptions import BotoCoreError

    return OSError, BotoCoreError


def check_bucket(place: Path) -> None:
    """Look whether the bucket of a place is there.

    raises    BadConfig when it is not, or cannot be reached.
    """
    if not is_remote(place):
        return
    bucket = key_of(place).partition("/")[0]
    with reaching(place):
        try:
            file_system(place).call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError as error:
            raise BadConfig(f"{place}: there is no bucket {bucket!r}; make it first") from error


def file_system(place: Path) -> Any:
    """Give fsspec's file system of a place on object storage."""
    return place.fs  # type: ignore[attr-defined]


def key_of(place: Path) -> str:
    """Give the name of a place on object storage as its file system takes it: bucket/folder/file."""
    return str(place.path)  # type: ignore[attr-defined]


def listed(folder: Path, pattern: str) -> list[Path]:
    """List what fits a pattern, sorted by name: of a folder, or of its folders as in "*/*.json"; nothing without one.

    raises    OSError when object storage cannot be asked; its `glob` would say that there is nothing.
    """
    if not is_remote(folder):
        return sorted(folder.glob(pattern))
    first, _, rest = pattern.partition("/")
    try:
        keys = file_system(folder).ls(key_of(folder), detail=False)
    except FileNotFoundError:
        return []
    names = sorted(key.rstrip("/").rpartition("/")[2] for key in keys)
    found = [folder / name for name in names if fnmatchcase(name, first)]
    return [path for one in found for path in listed(one, rest)] if rest else found


def remove_folder(folder: Path) -> None:
    """Delete a folder with all that is in it."""
    if is_remote(folder):
        file_system(folder).rm(key_of(folder), recursive=True)
    else:
        shutil.rmtree(folder)


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in; on object storage there is nothing to make."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def read_whole(path: Path) -> bytes:
    """Read a file in one request, so that it is of one piece while somebody writes it again."""
    if is_remote(path):
        data: bytes = file_system(path).cat_file(key_of(path))
        return data
    return path.read_bytes()


def read_kept(path: Path) -> Any:
    """Read a JSON file of a store.

    raises    BadRecord naming the file, when there is none or it is not JSON.
    """
    return parse_json(path, lambda: read_whole(path))


def parquet_file(path: Path) -> Any:
    """Open a Parquet file of a store; use it in a `with` block."""
    pa = arrow()
    import pyarrow.parquet as parquet

    # Such files are small and read nearly whole: one request, not one for each column.
    return parquet.ParquetFile(pa.BufferReader(read_whole(path)) if is_remote(path) else path)


def lance_options(place: Path) -> dict[str, str] | None:
    """Give what Lance must be told beside the name of a place; None for a folder."""
    if not is_remote(place):
        return None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    options = {"aws_endpoint": endpoint} if endpoint else {}
    return options | ({"allow_http": "true"} if endpoint.startswith("http://") else {})


def local_cache(place: Path, identity: str) -> Path:
    """Name the folder of this machine for what is kept beside a store on object storage, and can be made again.

    identity  of the store: another one at the same place has another folder.
    """
    base = os.environ.get(_CACHE) or Path.home() / ".cache" / "openflorence"
    return Path(base).absolute() / f"{place.name}-{sha256(f'{place} {identity}'.encode()).hexdigest()[:16]}"
