r"""Texts -> the tokens on which published caption scores stand, without Java.

Captions have been scored since 2015 on what the PTBTokenizer of Stanford CoreNLP 3.4.1 makes of them, in lower case and
without a list of marks; a caption split otherwise gets another score. The rules here were written from what that
program answers (Debian's OpenJDK 17, the jar in pycocoevalcap 1.2), not from its source. As in lex, the longest match
wins, what a rule looks ahead to counts as its length, and of equally long ones the first wins. What looks odd is the
reference's: "(" stays, as "-lrb-", since the list of marks is compared after lower-casing; "end.The" is one token;
"12p.m." is "12p" and "m."; pictures and signs newer than Unicode 6.1 vanish.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

# What the reference drops from the tokens; brackets are named there in capitals, which no token has.
MARKS = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))

# ---- letters and signs, by Unicode 6.1

_L = (
    "A-Za-zªµºÀ-ÖØ-öø-\u0374\u0376\u0377\u037a-\u037d\u0384-\u0386\u0388-\u0481\u0483-\u0487\u048a-\u0527"
    "\u0531-\u0556\u0559-\u055f\u0561-\u0587\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u05d0-\u05f2"
    "\u0615-\u061a\u0620-\u065e\u066e-\u06d3\u06d5-\u06ef\u06fa-\u06ff\u070f-\u07bf\u07ca-\u07f5\u07fa-\u0963"
    "\u0971-\u09e5\u09f0-\u0a65\u0a70-\u0ae5\u0b00-\u0b65\u0b71-\u0be5\u0c00-\u0c65\u0c70-\u0ce5\u0cf0-\u0d65"
    "\u0d7a-\u0df3\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecf\u0edc-\u0f00\u0f40-\u0fbc\u1000-\u103f\u1050-\u135f"
    "\u1380-\u138f\u13a0-\u166c\u166f-\u16ea\u1700-\u17b3\u17b6-\u17d3\u1820-\u1fff\u2071\u207f\u2090-\u209c"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2ce4\u2d00-\u2dde\u3005\u3006\u3031-\u3035\u303b\u303c\u3041-\u3096"
    "\u309d-\u309f\u30a1-\u30fa\u30fc-\u318e\u31a0-\u31ba\u31f0-\u31ff\u3400-\u4db5\u4e00-\u9fcc\ua000-\ua48c"
    "\ua4d0-\ua61f\ua62a-\ud7ff\uf900-\ufb06\ufb13-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdfb\ufe70-\ufefcＡ-Ｚａ-ｚ\uff66-\uffdc"
)
_SIGNS = (
    r"!-/:-@\[-`{-~"
    "\x80\x91-\x94\x96\x97\xa1-\xa9\xab\xac\xae-\xb4\xb6-\xb9\xbb-\xbf×÷\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6"
    "\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u0964\u0965\u0970"
    "\u0e3f\u0e4f\u2013-\u2023\u2026\u2030-\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e\u2080-\u208e\u20a0\u20a4\u20ac"
    "\u2100-\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff65\uffe0\uffe1\uffe5\uffe6"
)
_D = r"\d"
_LD = f"[{_L}{_D}]"
_APOS = "(?:['’\x92]|&apos;)"
_TICK = "(?:['’\x92`‘‛\x91]|&apos;)"  # in "O`Brien"

# ---- parts of rules

_WORD = rf"[{_L}]{_LD}*(?:[.!?][{_L}]{_LD}*)*"
_THING = rf"(?:[DdLlOo]{_TICK}{_LD})?{_LD}+(?:[-_\u058a\u2010\u2011](?:[DdLlOo]{_TICK}{_LD})?{_LD}+)*"
_CAPITALS = r"[A-Z]+(?:(?:\+|&(?i:amp;)?)[A-Z]+)+"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])+"
_CLITIC = r"(?i:s|d|m|ll|re|ve)"
_NUMBER = rf"[+-]?(?:{_D}*(?:[.:,]{_D}+)+|{_D}+)"
# Abbreviations keep their full stop. The second kind looks two characters ahead: "St.a" is one token, "Inc.a" two.
_TITLES = (
    "adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft "
    "gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs "
    "pvt rep reps rev sen sens sfc sgt spc st ste supt treas vs wm"
)
_ENDINGS = (
    "al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla "
    "fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn "
    "ph\\.d plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
)
_STATES = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_FIRMS = "[Mm]fg|[Mm]tg|[Pp]p?t(?:es?|ys?)"  # not in capitals
# Words that begin a sentence: in "vitamin c. The" the full stop is apart, in "vitamin c. Dogs" it is not.
_STARTS = (
    "a about according after an as at but he her here however if in it last many more mr\\. ms\\. now once one other "
    "our she since so some such that the their then there these they this we what when while yet you"
)
_NUMBERED = "art ca figs? nos? op pp prop"  # keep it before a number
_FILES = (
    "bat bmp class cgi cpp c dll docx? exe gif gz html? h java? jar jpe?g mov mp3 pdf php pl png pptx? ps py sql tar "
    "txt wav xml x zip"
)
_FACE, _SIDE = r"[-'^x=~<>]", r"['^x=~<>]"
_PAGE = r'[^\s"<>|()]'  # a character of an address, and one that can end it
_PAGE_END = r'[^\s"<>|().!?{},-]'
_HOST = r'[^\s"<>|.!?(){},]+\.'
_NAME = r"[A-Za-z_:][\w.:-]*"
_ATTRIBUTE = _NAME + r"""(?: *= *(?:'[^'\n]*'|"[^"\n]*"))?"""


def _any(words: str) -> str:
    return "|".join(words.split())


def _either(words: str) -> str:
    """One of the words, in any case."""
    return f"(?i:{_any(words)})"


# The token is group 1; what a rule matches after it is looked ahead to.
_RULES = tuple(
    re.compile(rule)
    for rule in (
        # words that are two, and their parts
        r"((?i:can(?=not)|gon(?=na)|got(?=ta)|lem(?=me)|gim(?=me)|wan(?=na)))(?i:not|na|ta|me)",
        r"('[Tt])(?i:is|was)",
        rf"([A-Za-z]*[A-MO-Za-mo-z])(?i:n{_TICK}t)",
        rf"((?i:n{_TICK}t))",
        rf"({_WORD}){_APOS}{_CLITIC}",
        rf"('{_CLITIC})[^A-Za-z]",
        rf"((?:[’\x92]|&apos;){_CLITIC})",
        # apostrophes inside
        rf"([A-HJ-XZn]{_TICK}[{_L}]{{2,}})",
        rf"([{_L}]+[AEIOUYaeiouy]{_TICK}[aeiouA-Z][{_L}]*)",
        rf"([DdJjLl]{_APOS})",
        rf"([Yy]{_APOS})[{_L}]",
        rf"((?i:ol|somethin|dunkin){_APOS})",
        rf"({_APOS}(?i:em|till?|cause))",
        rf"({_APOS}[Nn]{_APOS}|'[Nn](?=\s)|[’\x92][Nn])",
        rf"((?i:c'mon|e'er|s'mores|cap{_APOS}n|nor'easter|li'l|nat'l))",
        rf"({_APOS}(?:[2-9]0[Ss]|{_D}{_D}(?=\s)))",
        # markup, addresses, files
        rf"(<!?{_NAME}(?:[ \xa0]+{_ATTRIBUTE})*[ \xa0]*/?>|<\?{_NAME}[^<>\n]*\?>|</{_NAME}[ \xa0]*>|<!--.*?-->)",
        rf"((?i:https?)://{_PAGE}+{_PAGE_END})",
        rf"((?:(?i:www)\.(?:{_HOST})+[A-Za-z]{{2,4}}|(?:[^\s\"`'<>|!(){{}}$,-_]+\.)+(?:com|net|org|edu))"
        rf"(?:/{_PAGE}+{_PAGE_END})?)",
        rf"(<?[A-Za-z0-9]{_PAGE}*@(?:[^\s\"<>|().]+\.)*[^\s\"<>|().]+>?)",
        rf"(@[A-Za-z_][A-Za-z0-9_]*|#[{_L}]+)",
        # words
        rf"({_WORD})",
        rf"({_THING})",
        rf"((?:{_either(_ENDINGS)}|{_STATES}|{_STATES.upper()})\.)[\s\S]{{2}}",
        rf"({_CAPITALS})",
        r"([A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})",
        rf"([A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{_INITIALS}\.|[A-Za-z0-9]+))+)",
        rf"((?:{_WORD}|{_THING}|{_CAPITALS})\.)[,;:、]",
        rf"({_INITIALS}\.|[A-Za-z]\.)",
        rf"([A-Za-z](?=\.))\.\s+(?:{_any(_STARTS.title())}|{_any(_STARTS.upper())})\s",
        rf"((?:{_either(_TITLES)}|{_FIRMS})\.)",
        rf"({_either(_NUMBERED)}\.)\s?{_D}",
        rf"({_LD}+(?:\.{_LD}+)*\.{_either(_FILES)})[\s.,?!]",
        r"([Cc]\+\+|[CcFf]#)",
        # numbers and money
        rf"({_NUMBER})",
        rf"((?:{_D}{{1,4}}[- \xa0])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}})",
        rf"((?:\({_D}{{2,3}}\)[ \xa0]?|(?:\+\+?)?(?:{_D}{{2,4}}[- \xa0])?{_D}{{2,4}}[- \xa0])"
        rf"{_D}{{3,4}}[- \xa0]?{_D}{{3,5}})",
        r"([A-Z]*\$)",
        # faces
        r"([<>]?[:;=][-*'o]?[()DOPdp@\[\]\\{|])[^A-Za-z0-9]",
        rf"({_FACE}_{_FACE}|\({_FACE}[_.]?{_FACE}\)|\({_SIDE}-[`'^x=~<>]\))",
        # marks; a run of some is one token
        r"(&(?i:lt|gt|amp|quot|apos|nbsp|mdash|ndash);|&#\d+;|-(?i:[lr][rcs]b)-|<<|>>|\\\*)",
        r"(\.{3,5}|\.(?:\s\.){2,4}|-{5,}|-{2,4}|[?!]+|\*+|#+|@+|_+|''|``)",
        "([`‘’‛“”«»‹›„‚\x91-\x94]{1,2})",
        rf"([{_SIGNS}])",
    )
)
_GAP = re.compile(rf"[^{_L}{_D}{_SIGNS}]+")  # spaces, and what the reference cannot read
# Rules for numbers and markup, and one for single letters, reach over spaces; no others do.
_REACHING = re.compile(rf"[<\d]|(?<![A-Za-z])[A-Za-z]\.(?:\s|$)|(?<![A-Za-z]){_either(_NUMBERED)}\.\s?$")

_QUOTES = dict.fromkeys("`‘‛‹\x91", "`") | dict.fromkeys("’›\x92", "'")
_QUOTES |= {"‚": "‚", "„": "„"} | dict.fromkeys("“«\x93", "``") | dict.fromkeys("”»\x94", "''")
_SPELT = {"€": "$", "¤": "$", "\x80": "$", "₠": "$", "£": "#", "¢": "cents", "…": "..."}
_SPELT |= {
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
    '"': "''",
}
_SPELT |= dict.fromkeys("–—―\x96\x97", "--") | {"&lt;": "<", "&gt;": ">", "&amp;": "&", "&quot;": "''", "&apos;": "'"}
_SPELT |= {"&mdash;": "--", "&ndash;": "--", "&nbsp;": ""}


def ptb_tokens(text: str, after: str = "") -> list[str]:
    """Split a caption as the programs that score captions do: in lower case, most marks left out.

    after     the caption that stands after it: the reference reads all captions as one file, and where a caption ends
              in one letter and a full stop, the next one decides whether the two belong together.
    returns   tokens; numbers that stand apart may be one token with no-break spaces (U+00A0) inside.
    source    PTBTokenizer of Stanford CoreNLP 3.4.1 with -preserveLines -lowerCase, as pycocoevalcap 1.2 calls it.
    """
    if _REACHING.search(text):
        return _split(text, after)
    tokens: list[str] = []
    for piece in text.split():
        tokens += _pieces(piece)
    return tokens


def token_lists(texts: Sequence[str]) -> list[list[str]]:
    """Split captions that stand in this order."""
    return [ptb_tokens(text, after) for text, after in zip(texts, [*texts[1:], ""], strict=False)]


@lru_cache(maxsize=1 << 16)
def _pieces(piece: str) -> tuple[str, ...]:
    return tuple(_split(piece, ""))


def _split(text: str, after: str) -> list[str]:
    text = text.replace("\xad", "").replace("\n", " ")
    end, text = len(text), f"{text}\n{after}\n"
    tokens: list[str] = []
    at = 0
    while at < end:
        gap = _GAP.match(text, at)
        if gap:
            at = gap.end()
            continue
        longest = max((match for rule in _RULES if (match := rule.match(text, at))), key=re.Match.end)
        at = longest.end(1)
        tokens.append(_spell(longest[1]))
    return [token for token in tokens if token and token not in MARKS]


def _spell(found: str) -> str:
    """Give a match as the reference prints it."""
    token = found.lower()
    if re.fullmatch(rf"n{_TICK}t|{_APOS}{_CLITIC}", token):
        return re.sub("[‘‛\x91]", "`", re.sub(_APOS, "'", token))
    if token in _SPELT:
        return _SPELT[token]
    if all(mark in _QUOTES for mark in token):
        return "".join(_QUOTES[mark] for mark in token)
    if re.fullmatch(r"-{2,4}|\.{3,5}|\.(?:\s\.)+", token):
        return "--" if token[0] == "-" else "..."
    token = token.replace("(", "-lrb-").replace(")", "-rrb-").replace("&amp;", "&")
    return re.sub(r"\s", "\xa0", token)
