"""The public files that the recipe on real data reads: what each is called here, and whence it comes.

The folder that holds them is named by the setting `data` or the variable LLAMAHERD_DATA. A file has the name of this table there; where
the form differs from its source's (a JSON list as JSON lines, several files joined, a part of the rows), docs/real-small.md says how.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UserError

VARIABLE = "LLAMAHERD_DATA"


@dataclass(frozen=True)
class Source:
    """Where a file was taken from: a repository on GitHub with its commit, the path in it, and the licence that it states."""

    repository: str
    path: str
    licence: str


SOURCES: Mapping[str, Source] = {
    "pretrain/novels/novels-00.jsonl.gz": (_novels := Source(
        "computationalstylistics/100_english_novels@143e601875d7", "corpus/*.txt", "public domain in the US (published by 1928)"
    )),
    "pretrain/novels/novels-01.jsonl.gz": _novels,
    "pretrain/novels/novels-02.jsonl.gz": _novels,
    "pretrain/novels/novels-03.jsonl.gz": _novels,
    "pretrain/wikitext2_valid.txt.gz": Source(
        "pytorch/examples@77f55b912142", "word_language_model/data/wikitext-2/valid.txt", "CC BY-SA (text)"
    ),
    "pretrain/wikitext2_test.txt.gz": Source(
        "pytorch/examples@77f55b912142", "word_language_model/data/wikitext-2/test.txt", "CC BY-SA (text)"
    ),
    "pretrain/tinystories_2mb.txt.gz": Source("gusjengis/toy-RNN@e4c7ff8bba4f", "data/tinystories_sample.txt", "CDLA-Sharing-1.0 (TinyStories)"),
    "pretrain/c4_demo.jsonl.gz": Source("hiyouga/LLaMA-Factory@ff6d4d12eeb0", "data/c4_demo.jsonl", "ODC-BY (C4)"),
    "pretrain/wiki_demo.txt.gz": Source("hiyouga/LLaMA-Factory@ff6d4d12eeb0", "data/wiki_demo.txt", "CC BY-SA (text)"),
    "instruction/alpaca_en_demo.jsonl.gz": Source("hiyouga/LLaMA-Factory@ff6d4d12eeb0", "data/alpaca_en_demo.json", "Apache-2.0"),
    "instruction/gpteacher_roleplay.jsonl.gz": Source(
        "gururise/AlpacaDataCleaned@791174f63efa",
        "dataset_extensions/GPTeacher/Roleplay/roleplay-simple-deduped-roleplay-dataset.json", "MIT",
    ),
    "instruction/instruction_1100.jsonl": Source(
        "rasbt/LLMs-from-scratch@28c65cdfbc33", "ch07/01_main-chapter-code/instruction-data.json", "Apache-2.0"
    ),
    "instruction/alpaca_seed_tasks.jsonl": Source("tatsu-lab/stanford_alpaca@761dc5bfbdee", "seed_tasks.jsonl", "CC BY-NC 4.0"),
    "instruction/llama2_7b_chat_outputs_alpaca_eval.jsonl.gz": Source(
        "tatsu-lab/alpaca_eval@cd543a149df8", "results/llama-2-7b-chat-hf/model_outputs.json", "CC BY-NC 4.0"
    ),
    "safety/safety_sft_instructions.jsonl.gz": Source(
        "vinid/safety-tuned-llamas@36a4b8d5c217", "data/training/safety_only_data_Instructions.json", "CC BY-NC 4.0"
    ),
}  # fmt: skip
"""By path in the folder."""


def public_folder(given: Path | None) -> Path:
    """The folder of public files: the one given, or the variable's. Raises UserError when neither names one."""
    path = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if path is None:
        raise UserError(
            f"no folder of public data: set {VARIABLE} or data to the folder that holds them (docs/real-small.md lists the files)"
        )
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder of public data; {VARIABLE} or data names the one that holds {next(iter(SOURCES))} and others"
        )
    return path


def public_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where files of the table lie, by name. Raises UserError that lists all which are absent, and whence each comes."""
    found = {name: folder / name for name in names}
    if absent := [name for name, path in found.items() if not path.is_file()]:
        listed = "".join(f"\n  {name}: from github.com/{SOURCES[name].repository}, {SOURCES[name].path}" for name in absent)
        raise UserError(
            f"{folder}: {len(absent)} public files are absent; get them as docs/real-small.md says, or leave their stage out:{listed}"
        )
    return found
