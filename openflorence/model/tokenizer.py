"""Text <-> ids: byte-level BPE with the location and marker tokens added in the published order.

The published repositories ship `tokenizer.json` with BART's 50265 entries; the 1024 tokens of ADDED_TOKENS are put
behind them when it is loaded, as the published processor does. A file that has them already is taken as it is.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from openflorence.contract.locations import BINS, spell
from openflorence.contract.spelling import Spelling
from openflorence.errors import BadCheckpoint

BASE_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3
MASK = "<mask>"
IMAGE = "<image>"  # the transformers layout's placeholder, one per image token; this network takes text only


def _pair(name: str) -> list[str]:
    return [f"<{name}>", f"</{name}>"]


# Order and spelling (the misspelt one too) as published: id of <loc_0> is 50269, of <and> 51288.
ADDED_TOKENS: tuple[str, ...] = (
    *_pair("od"),
    *_pair("ocr"),
    *(spell(bin_) for bin_ in range(BINS)),
    *_pair("cap"),
    *_pair("ncap"),
    *_pair("dcap"),
    *_pair("grounding"),
    *_pair("seg"),
    "<sep>",
    *_pair("region_cap"),
    *_pair("region_to_desciption"),
    *_pair("proposal"),
    *_pair("poly"),
    "<and>",
)


def _byte_letters() -> dict[str, int]:
    """The letter that byte-level BPE writes for each byte, to the byte.

    source    GPT-2's `bytes_to_unicode`: printable Latin-1 as it is, the other bytes from U+0100 on, in order.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(moved)}


_BYTES = _byte_letters()


class Text:
    """A tokenizer with the ids this network needs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer and add whichever published tokens it lacks.

        raises    BadCheckpoint when the added tokens are not in the published order: their ids are the network's.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in ADDED_TOKENS])
        self.tokenizer = tokenizer
        ids = tokenizer.get_vocab()
        first = ids[ADDED_TOKENS[0]]
        for offset, word in enumerate(ADDED_TOKENS):
            if ids[word] != first + offset:
                raise BadCheckpoint(
                    f"tokenizer: {word} has id {ids[word]}, expected {first + offset}; "
                    "the location and marker tokens must stand in the published order"
                )
        for wanted, word in enumerate(BASE_TOKENS):
            if ids.get(word) != wanted:
                raise BadCheckpoint(f"tokenizer: {word} has id {ids.get(word)}, expected {wanted}")
        self.first_location: int = ids[spell(0)]
        self.size: int = max(ids.values()) + 1  # entries; later embedding rows are filler

    @cached_property
    def spelling(self) -> Spelling:
        """What a grammar needs to know of this vocabulary."""
        ids = self.tokenizer.get_vocab()
        pieces: list[bytes | None] = [None] * self.size
        special = self.tokenizer.get_added_tokens_decoder()
        for word, token in ids.items():
            if token not in special and all(letter in _BYTES for letter in word):
                pieces[token] = bytes(_BYTES[letter] for letter in word)
        return Spelling(
            pieces=tuple(pieces),
            first_location=self.first_location,
            sep=ids["<sep>"],
            poly=ids["<poly>"],
            end_poly=ids["</poly>"],
            eos=ids["</s>"],
        )

    @classmethod
    def read(cls, folder: Path) -> "Text":
        """Read `tokenizer.json` of a checkpoint folder. `<image>` is left out: it is ordinary text to this network.

        raises    BadCheckpoint when the file is missing or is not a tokenizer.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise BadCheckpoint(f"{folder} has no tokenizer.json: copy the one of the same checkpoint there")
        try:
            parts = json.loads(path.read_text(encoding="utf-8"))
            parts["added_tokens"] = [token for token in parts["added_tokens"] if token["content"] != IMAGE]
            return cls(Tokenizer.from_str(json.dumps(parts)))
        except BadCheckpoint:
            raise
        except Exception as error:  # the library raises bare Exception
            raise BadCheckpoint(f"{path} is not a tokenizer file: {error}") from error

    def write(self, folder: Path, with_image: bool = False) -> dict[str, Any]:
        """Write `tokenizer.json`, complete with the 1024 added tokens, and give the words that go beside it.

        with_image  add `<image>` as the next entry, as the transformers layout has it.
        returns     tokenizer_config.json, with which transformers builds the same tokenizer.
        """
        tokenizer = self.tokenizer
        if with_image:
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            tokenizer.add_special_tokens([AddedToken(IMAGE, special=True, normalized=False)])
        tokenizer.save(str(folder / "tokenizer.json"))
        added = {str(token["id"]): token for token in json.loads(tokenizer.to_str())["added_tokens"]}
        for token in added.values():
            del token["id"]
        settings: dict[str, Any] = {"tokenizer_class": "BartTokenizer", "add_prefix_space": False}
        settings |= {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
        settings |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": MASK}
        settings |= {"clean_up_tokenization_spaces": False, "padding_side": "right", "added_tokens_decoder": added}
        if with_image:
            settings["extra_special_tokens"] = {"image_token": IMAGE}
        return settings

    def encode(self, text: str) -> list[int]:
        """Ids of `<s>` text `</s>`; marker and location tokens inside the text are recognised."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens spelt out and nothing cleaned up; unknown ids are left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def spell(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary entry of each id, for reading logs; "" for rows that have none."""
        return [self.tokenizer.id_to_token(index) or "" for index in ids]


def train_text(texts: Iterable[str], size: int) -> Text:
    """Train a small byte-level BPE in the published arrangement.

    texts     anything that shows the words; every byte is in the vocabulary whatever they hold.
    size      rows in all: 4 base tokens, 256 bytes, merges, <mask>, and the 1024 added tokens.
    """
    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size - len(ADDED_TOKENS) - 1,
        special_tokens=list(BASE_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(MASK, lstrip=True, special=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return Text(tokenizer)
