"""A store as tables that DuckDB reads: its images, what became of its inputs, and every sealed layer.

images      image_id, uri, mime, width, height, size_bytes, licence, meta (JSON), unit
inputs      uri, sha256, outcome (stored, duplicate, failed), kind, message
layer_rows  layer, run_id, unit, image_id, status, error, and lists of notes and verdicts
texts, regions, groundings, questions, pairs
            one row a note: layer, run_id, unit, image_id, note_id, and the fields of the note
phrases     one row a phrase of a grounding, with its text and boxes
verdicts    layer, run_id, unit, image_id of the rule, and note_id, rule, reason, value
measures    layer, run_id, unit, image_id, and note_id ('' of an image), name, value, text
rounds      round, layer, run_id, gives_notes, published
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openflorence.data.notes import KINDS
from openflorence.data.store_corpus import IMAGE_COLUMNS, Corpus
from openflorence.data.store_ingest import log_schema
from openflorence.data.store_place import file_system, is_remote, key_of, listed
from openflorence.data.store_rounds import read_rounds
from openflorence.data.store_rows import Plain, arrow, layer_schema, notes_type
from openflorence.errors import BadConfig

_ROW = "layer, run_id, unit, image_id"


def query(folder: Path, corpus: Corpus, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Plain]:
    """Ask a store in SQL; the tables are listed above.

    parameters  for `?`, or by name for `$name`.
    returns     one dictionary a row.
    raises      BadConfig when DuckDB is not installed, or does not understand the question.
    """
    try:
        import duckdb
    except ImportError as error:
        raise BadConfig(f"SQL needs DuckDB: pip install openflorence[engine] ({error})") from error
    # No extension is fetched: a question must not reach out.
    settings: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    with duckdb.connect(":memory:", config=settings) as connection:
        _register(connection, folder, corpus)
        try:
            answer = connection.execute(sql, parameters)
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
        except duckdb.Error as error:
            raise BadConfig(f"cannot answer {sql!r}: {error}") from error


def _register(connection: Any, folder: Path, corpus: Corpus) -> None:
    """Name the tables of a store for a connection."""
    pa = arrow()
    connection.register("corpus", corpus.data)
    connection.execute(f"CREATE VIEW images AS SELECT {', '.join(IMAGE_COLUMNS)} FROM corpus")
    _view(connection, "inputs", listed(folder / "ingest", "*.parquet"), log_schema())
    seals = listed(folder / "sealed", "*/*.json")
    runs = [folder / "layers" / path.parent.name / path.stem for path in seals]
    _view(connection, "layer_rows", [path for run in runs for path in listed(run, "*.parquet")], layer_schema())
    for kind, one in KINDS.items():
        fields = ", ".join(f"note.{_quoted(field.name)}" for field in notes_type().field(kind).type.value_type)
        connection.execute(
            f"CREATE VIEW {kind} AS SELECT {_ROW}, layer || '/{one}' || place AS note_id, {fields} FROM ("
            f"SELECT {_ROW}, unnest({kind}) AS note, unnest(range(len({kind}))) AS place FROM layer_rows)"
        )
    connection.execute(
        f"CREATE VIEW phrases AS SELECT {_ROW}, note_id || '.phrase' || place AS note_id, text, phrase.phrase, "
        "phrase.boxes, phrase.span, phrase.score, origin FROM (SELECT *, unnest(phrases) AS phrase, "
        "unnest(range(len(phrases))) AS place FROM groundings)"
    )
    connection.execute(
        f"CREATE VIEW verdicts AS SELECT {_ROW}, v.note_id, v.rule, v.reason, v.value FROM ("
        f"SELECT {_ROW}, unnest(verdicts) AS v FROM layer_rows)"
    )
    connection.execute(
        f"CREATE VIEW measures AS SELECT {_ROW}, m.note_id, m.name, m.value, m.text FROM ("
        f"SELECT {_ROW}, unnest(measures) AS m FROM layer_rows)"
    )
    rounds = [
        {"round": one.number, "layer": layer, "run_id": run, "gives_notes": layer in one.notes_from}
        | {"published": one.published is not None}
        for one in read_rounds(folder).values()
        for layer, run in one.runs.items()
    ]
    kinds = {"round": pa.int32(), "layer": pa.string(), "run_id": pa.string(), "gives_notes": pa.bool_()}
    schema = pa.schema([*kinds.items(), ("published", pa.bool_())])
    connection.register("rounds", pa.Table.from_pylist(rounds, schema=schema))


def _view(connection: Any, name: str, paths: Sequence[Path], schema: Any) -> None:
    """Name Parquet files as one table; an empty one where there are none."""
    if not paths:
        connection.register(name, schema.empty_table())
        return
    if is_remote(paths[0]):
        import pyarrow.dataset as dataset

        # DuckDB's own way there is an extension that it would have to fetch.
        files, system = [key_of(path) for path in paths], file_system(paths[0])
        connection.register(name, dataset.dataset(files, schema, format="parquet", filesystem=system))
        return
    listed = ", ".join("'" + _escaped(path) + "'" for path in paths)
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{listed}])")


def _escaped(path: Path) -> str:
    """Spell a path so that DuckDB takes it as it stands: it reads [, * and ? as patterns."""
    letters = {"'": "''", "[": "[[]", "*": "[*]", "?": "[?]"}
    return "".join(letters.get(letter, letter) for letter in str(path))


def _quoted(name: str) -> str:
    return f'"{name}"'
