"""Any OpenAI-compatible vision model as a specialist: it gets the picture, and gives texts, boxes and words as JSON.

VisionServer(server={"model": "m", "base_url": "http://127.0.0.1:8000/v1", "key_variable": ""}, wants=["objects"])

A reply that is not as it was asked for, such as one with a box outside the picture, is no annotation: the image fails
with the reason. Replies, budget and patience are those of server.py. Boxes of language models have no score: give the
layer's voter an `unscored` one.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

from PIL import Image

from openflorence.contract.answers import special_token
from openflorence.contract.records import LEVELS, Level, Origin, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Failure, Notes
from openflorence.engine.server import LEDGER, Ledger, NoReply, Server, ask_many, server_settings
from openflorence.engine.specialists import open_row
from openflorence.engine.stages import Context, Row, Stage
from openflorence.engine.votes import PlaceKind
from openflorence.errors import BadConfig

Units = Literal["pixels", "thousandths", "shares"]
UNITS: dict[Units, str] = {
    "pixels": "pixels of this picture, which is {width} wide and {height} high",
    "thousandths": "thousandths of the picture's width and height, whole numbers from 0 to 1000",
    "shares": "shares of the picture's width and height, numbers from 0 to 1",
}
WANTS = (*LEVELS, "objects", "words")

_SLACK = 0.02  # of a side: so far a box may leave the picture; it is cut there
_LEVELS: dict[Level, str] = {
    "brief": "one short sentence",
    "detailed": "two or three sentences that name what is there, its attributes and where it is",
    "more_detailed": "a paragraph that describes everything that can be seen",
}


class VisionServer(Stage):
    """Asks a vision model behind a server."""

    def __init__(
        self,
        server: Mapping[str, Any],
        layer: str = "vision",
        wants: Sequence[str] = ("brief", "objects"),
        labels: Sequence[str] = (),
        units: Units = "thousandths",
        longest_px: int = 1024,
        at_once: int = 8,
        round: int = 0,
    ) -> None:
        """Settle who is asked, and what for.

        server      fields of ServerSettings.
        wants       of "brief", "detailed", "more_detailed", "objects" and "words".
        labels      the only categories of objects; () leaves it to the model.
        units       in which boxes are asked for and read, as left, top, right, bottom.
        longest_px  longer side of the picture as it is sent; "pixels" are those of the picture that is sent.
        at_once     pictures that are asked about at the same time.
        """
        self.server = server_settings(server)
        wrong = next((want for want in wants if want not in WANTS), None)
        if wrong is not None or not wants:
            raise BadConfig(f"wants has {wrong!r}; allowed, one or more: {', '.join(WANTS)}")
        if units not in get_args(Units) or longest_px < 16 or at_once < 1:
            raise BadConfig(
                f"units={units!r}, longest_px={longest_px}, at_once={at_once}; allowed are {', '.join(UNITS)}, "
                "16 pixels or more, and 1 or more"
            )
        self.layer, self.wants, self.labels = layer, tuple(wants), tuple(labels)
        self.units, self.longest_px, self.batch, self.round = units, longest_px, at_once, round
        self.model, self.revision = self.server.model, ""
        kinds: dict[str, PlaceKind] = {"objects": "object", "words": "word"}
        self.says = tuple(kind for want, kind in kinds.items() if want in self.wants)
        self._server: Server | None = None

    def setup(self, context: Context) -> None:
        """Open the ledger: in the cache folder of the run, or forgotten in the end where there is none.

        raises    BadConfig when there is no key.
        """
        self.server.key()
        self._server = Server(self.server, Ledger(context.cache / LEDGER if context.cache else ":memory:"))

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Ask about all pictures at the same time.

        raises    BadImage for a file that is no picture; NoReply for the first picture without a usable reply.
        """
        pictures = [open_row(row) for row in rows]
        told = ask_many([partial(self._ask, picture) for picture in pictures], self.batch)
        for row, one in zip(rows, told, strict=True):
            if isinstance(one, Failure):
                raise NoReply(f"{one.kind}: {one.message} ({row.image.uri})")
        return [one for one in told if isinstance(one, Notes)]

    def _ask(self, picture: Image.Image) -> Notes | Failure:
        assert self._server is not None, "setup comes first"
        sent = shrink(picture, self.longest_px)
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": self._question(sent.size)},
            {"type": "image_url", "image_url": {"url": data_url(sent)}},
        ]
        reply = self._server.ask("You annotate pictures. Say only what can be seen.", parts, self._form())
        if isinstance(reply, Failure):
            return reply
        return self._read(reply.value, sent.size, picture.size)

    def _question(self, sent_wh: tuple[int, int]) -> str:
        lines = [f'"{want}": {_LEVELS[want]}.' for want in LEVELS if want in self.wants]
        unit = UNITS[self.units].format(width=sent_wh[0], height=sent_wh[1])
        if "objects" in self.wants:
            named = f"one of {', '.join(self.labels)}" if self.labels else "its category in one or two words"
            lines.append(f'"objects": every object that can be seen, each with "label", {named}, and "box".')
        if "words" in self.wants:
            lines.append('"words": every line of text that can be read, each with "label", the text, and "box".')
        if {"objects", "words"} & set(self.wants):
            lines.append(f"A box is [left, top, right, bottom] in {unit}.")
        return "Give a JSON object.\n" + "\n".join(lines)

    def _form(self) -> dict[str, Any]:
        """The JSON schema of a reply."""
        label: dict[str, Any] = {"type": "string"}
        numbers = {"type": "array", "items": {"type": "number"}}
        parts: dict[str, Any] = {want: label for want in LEVELS if want in self.wants}
        for want in ("objects", "words"):
            if want in self.wants:
                said = {"type": "string", "enum": list(self.labels)} if self.labels and want == "objects" else label
                parts[want] = {"type": "array", "items": _object({"label": said, "box": numbers})}
        return _object(parts)

    def _read(self, value: Mapping[str, Any], sent_wh: tuple[int, int], image_wh: tuple[int, int]) -> Notes | Failure:
        """What was said -> notes in pixels of the original, all of it or none."""
        origin = Origin(source="server", model=self.model, round=self.round)
        texts, regions = [], []
        for level in LEVELS:
            if level in self.wants:
                text = _words(value.get(level))
                if text is None:
                    return Failure("malformed", f"{level!r} is {value.get(level)!r:.80}; words were asked for")
                texts.append(TextNote(text=text, level=level, origin=origin))
        for want, field in (("objects", "label"), ("words", "word")):
            if want in self.wants:
                listed = value.get(want)
                if not isinstance(listed, list):
                    return Failure("malformed", f"{want!r} is {listed!r:.80}; a list was asked for")
                for entry in listed:
                    said = self._entry(entry, want, sent_wh, image_wh)
                    if isinstance(said, Failure):
                        return said
                    label, box = said
                    regions.append(RegionNote(box=box, origin=origin, **{field: label}))  # type: ignore[arg-type]
        return Notes(texts=tuple(texts), regions=tuple(regions))

    def _entry(
        self, entry: Any, want: str, sent_wh: tuple[int, int], image_wh: tuple[int, int]
    ) -> tuple[str, Box] | Failure:
        """One object or line: what it is called, and its box in pixels of the original."""
        label = _words(entry.get("label")) if isinstance(entry, Mapping) else None
        if label is None:
            return Failure("malformed", f"{want}: {entry!r:.120} has no label in words")
        if want == "objects" and self.labels and label not in self.labels:
            return Failure("malformed", f"objects: {label!r} is none of {', '.join(self.labels)}")
        sizes = {"pixels": sent_wh, "thousandths": (1000, 1000), "shares": (1, 1)}[self.units]
        box = read_box(entry.get("box"), sizes, image_wh)
        if box is None:
            return Failure("malformed", f"{want}: {entry!r:.120} has no box in {self.units} inside the picture")
        return label, box


def read_box(value: Any, sizes: tuple[int, int], image_wh: tuple[int, int]) -> Box | None:
    """Read [left, top, right, bottom]; None when it is not that, is empty, or leaves the picture.

    sizes     what the picture's width and height are in the units of the box.
    returns   the box in pixels, cut where it leaves the picture by a little.
    """
    fits = isinstance(value, list) and len(value) == 4
    if not fits or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        return None
    shares = [one / sizes[place % 2] for place, one in enumerate(value)]
    inside = all(math.isfinite(share) and -_SLACK <= share <= 1 + _SLACK for share in shares)
    x0, y0, x1, y1 = (min(max(share, 0.0), 1.0) * image_wh[place % 2] for place, share in enumerate(shares))
    return Box(x0, y0, x1, y1) if inside and x0 < x1 and y0 < y1 else None


def shrink(picture: Image.Image, longest_px: int) -> Image.Image:
    """Give a picture no side of which is longer; as it is when none was."""
    scale = longest_px / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(round(side * scale), 1) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def data_url(picture: Image.Image) -> str:
    """Give a picture as a URL that holds it, in JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _object(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(parts), "required": list(parts), "additionalProperties": False}


def _words(value: Any) -> str | None:
    """A text that says something and spells no special token; None for anything else."""
    if not isinstance(value, str) or not value.strip() or special_token(value):
        return None
    return " ".join(value.split())
