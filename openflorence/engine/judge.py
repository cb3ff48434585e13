"""Every rule, in the order they are applied: each sees what the ones before it left.

    1  empty        says nothing, or is nowhere
    2  score        its own source is not sure
    3  small, large, border, aspect
    4  blacklist    names nothing to point at
    5  unlike       the picture speaks against the words; where a network measured it
    6  nms          a surer region stands for it
    7  complexity   the text filter
    8  same text    said before
    9  unsupported  a phrase where no region is
   10  unshown      a text that names what no region shows

A note gets one verdict, of the first rule that drops it. So regions are settled before texts and phrases are held
against them, and what nobody is sure of suppresses nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from openflorence.data.notes import Notes, Verdict
from openflorence.engine.agree import AgreeSettings, drop_unlikely, drop_unshown, drop_unsupported
from openflorence.engine.filters import (
    BlacklistSettings,
    NmsSettings,
    ScoreSettings,
    SizeSettings,
    TextSettings,
    drop_blacklisted,
    drop_doubles,
    drop_empty,
    drop_misshapen,
    drop_poor_texts,
    drop_repeated,
    drop_unsure,
    pool,
)

RULES: tuple[str, ...] = ("empty", "score", "small", "large", "border", "aspect", "blacklist", "unlike", "nms")
RULES += ("complexity", "same text", "unsupported", "unshown")


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Settings of every rule; None turns a rule off. What is empty is always dropped."""

    scores: ScoreSettings | None = field(default_factory=ScoreSettings)
    sizes: SizeSettings | None = field(default_factory=SizeSettings)
    blacklist: BlacklistSettings | None = field(default_factory=BlacklistSettings)
    nms: NmsSettings | None = field(default_factory=NmsSettings)
    texts: TextSettings | None = field(default_factory=TextSettings)
    repeated: bool = True
    agree: AgreeSettings | None = field(default_factory=AgreeSettings)


DEFAULT_JUDGE = JudgeSettings()


def judge(
    layers: Mapping[str, Notes],
    image_wh: tuple[int, int],
    settings: JudgeSettings = DEFAULT_JUDGE,
    measured: Mapping[str, float] | None = None,
) -> tuple[Verdict, ...]:
    """Say which notes of one image are to be dropped, and why.

    layers    name of each layer and what it says of the image; ids of notes start with the name. Of layers that were
              fused give the fused one alone.
    image_wh  width and height in pixels of the upright original.
    measured  how far a network believes what is said of regions, by id; see `agree.likelihoods`.
    returns   at most one verdict a note, in the order of the rules and within one of the notes.
    promise   the same for the same arguments; `kept(notes, verdicts)` gives what is left, the notes stay as they are.
    """
    left = pool(layers)
    verdicts: list[Verdict] = []

    def drop(found: list[Verdict]) -> None:
        nonlocal left
        left = left.without(verdict.note_id for verdict in found)
        verdicts.extend(found)

    drop(drop_empty(left))
    seen = left.regions
    if settings.scores:
        drop(drop_unsure(left, settings.scores))
    if settings.sizes:
        drop(drop_misshapen(left, image_wh, settings.sizes))
    if settings.blacklist:
        drop(drop_blacklisted(left, settings.blacklist))
    if settings.agree and measured:
        drop(drop_unlikely(left, settings.agree, measured))
    if settings.nms:
        drop(drop_doubles(left, settings.nms))
    if settings.texts:
        drop(drop_poor_texts(left, settings.texts))
    if settings.repeated:
        drop(drop_repeated(left))
    if settings.agree:
        drop(drop_unsupported(left, settings.agree, seen))
        drop(drop_unshown(left, settings.agree, seen))
    assert {verdict.rule for verdict in verdicts} <= set(RULES)
    return tuple(verdicts)
