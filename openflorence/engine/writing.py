"""A language model at work in a round: texts of one level merged, longer texts written from texts and regions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from openflorence.contract.records import LEVELS, GroundingNote, Level, RegionNote, TextNote
from openflorence.data.notes import Failure, Notes, Verdict, kept_by_id
from openflorence.engine.duplicates import plain_text
from openflorence.engine.language import Written, merge_texts, tellable, write_detailed
from openflorence.engine.server import LEDGER, Ledger, NoReply, Server, ask_many, server_settings
from openflorence.engine.stages import Context, Outcome, Row, Stage
from openflorence.errors import BadConfig

MERGED = "merged"  # rule of the verdicts on texts that a merged one stands for
_Named = Sequence[tuple[str, TextNote]]  # each with its id


class Writer(Stage):
    """Asks a language model for texts about every image; what it says of a place is a place that was given."""

    reads = ()

    def __init__(
        self,
        needs: Sequence[str],
        server: Mapping[str, Any],
        layer: str = "written",
        levels: Sequence[Level] = ("detailed",),
        merge: Sequence[Level] = (),
        at_once: int = 8,
        round: int = 0,
    ) -> None:
        """Settle what is written.

        needs     layers with texts and regions, and with verdicts about them.
        server    fields of ServerSettings.
        levels    texts that are written from the surest brief text and the regions.
        merge     levels of which several texts become one, before anything is written from them.
        at_once   images that are asked about at the same time.
        """
        wrong = next((level for level in (*levels, *merge) if level not in LEVELS), None)
        if wrong is not None or not (levels or merge) or at_once < 1:
            raise BadConfig(
                f"levels={list(levels)}, merge={list(merge)}, at_once={at_once}; name {', '.join(LEVELS)} in one of "
                "them, and ask about 1 image or more"
            )
        self.server = server_settings(server)
        self.needs, self.layer, self.round, self.batch = tuple(needs), layer, round, at_once
        self.levels, self.merge = tuple(levels), tuple(merge)
        self.model, self.revision = self.server.model, ""
        self._server: Server | None = None

    def setup(self, context: Context) -> None:
        """Open the ledger: in the cache folder of the run, or forgotten in the end where there is none.

        raises    BadConfig when there is no key.
        """
        self.server.key()
        self._server = Server(self.server, Ledger(context.cache / LEDGER if context.cache else ":memory:"))

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Ask about all images at the same time.

        raises    NoReply for the first image without a usable reply; the others' replies are kept.
        """
        told = ask_many([partial(self._write, row) for row in rows], self.batch)
        for row, one in zip(rows, told, strict=True):
            if isinstance(one, Failure):
                raise NoReply(f"{one.kind}: {one.message} ({row.image.uri})")
        return [one for one in told if not isinstance(one, Failure)]

    def _write(self, row: Row) -> Outcome | Failure:
        assert self._server is not None, "setup comes first"
        there = {name: note for layer in row.layers for name, note in kept_by_id(row.layers, layer).items()}
        texts = {name: note for name, note in there.items() if isinstance(note, TextNote)}
        regions = [note for note in there.values() if isinstance(note, RegionNote)]
        made: list[Written] = []
        drops: list[Verdict] = []
        for level in self.merge:
            alike = [(name, note) for name, note in texts.items() if note.level == level]
            if len(alike) < 2:
                continue
            merged = self._merge(self._server, level, alike, regions, row.image.image_wh)
            if isinstance(merged, Failure):
                return merged
            stays, written = merged
            made += [written] if written is not None else []
            drops += [Verdict(name, MERGED, f"part of {stays!r:.80}") for name, note in alike if note.text != stays]
            texts = {name: note for name, note in texts.items() if note.level != level or note.text == stays}
            if written is not None:
                texts[f"{self.layer}/text"] = written.text
        brief = max(
            (note for note in texts.values() if note.level == "brief" and plain_text(note.text)),
            key=_sureness,
            default=None,
        )
        for level in self.levels:
            if brief is None and not tellable(regions):
                continue  # nothing to write from
            found = write_detailed(self._server, brief.text if brief else "", regions, row.image.image_wh, level)
            if isinstance(found, Failure):
                return found
            made.append(found)
        return self._notes(made), tuple(drops)

    def _merge(
        self, server: Server, level: Level, alike: _Named, regions: Sequence[RegionNote], image_wh: tuple[int, int]
    ) -> tuple[str, Written | None] | Failure:
        """The text that stays, and what was written if it is none of those that were there."""
        found = merge_texts(server, [note.text for _, note in alike], regions, image_wh, level)
        if isinstance(found, Failure):
            return found
        chosen = next((note.text for _, note in alike if plain_text(note.text) == plain_text(found.text.text)), None)
        return (found.text.text, found) if chosen is None else (chosen, None)

    def _notes(self, made: Sequence[Written]) -> Notes:
        def ours(note: Any) -> Any:
            return replace(note, origin=replace(note.origin, round=self.round))

        groundings: list[GroundingNote] = [ours(one.grounding) for one in made if one.grounding is not None]
        return Notes(texts=tuple(ours(one.text) for one in made), groundings=tuple(groundings))


def _sureness(note: TextNote) -> tuple[float, str]:
    return (1.0 if note.score is None else note.score, note.text)
