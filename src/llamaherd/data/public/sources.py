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


_FOUNDRY, _EVAL = "mosaicml/llm-foundry@8c8dd48f7216", "scripts/eval/local_data"
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
    "preference/hh_rlhf_helpful_base_test.jsonl.gz": Source(
        "Linear95/DSP@ec099cf332cf", "data/helpful.test.json", "CC BY-NC 4.0 (Anthropic's original: MIT)"
    ),
    "preference/hh_rlhf_harmless_base_test.jsonl.gz": Source("anthropics/hh-rlhf@354e5c3cb896", "harmless-base/test.jsonl.gz", "MIT"),
    "preference/webgpt_comparisons_test.jsonl.gz": Source("Linear95/DSP@ec099cf332cf", "data/webgpt.test.json", "CC BY-NC 4.0"),
    "preference/pandalm_human_testset.jsonl.gz": Source("WeOpenML/PandaLM@3871806e72b4", "data/testset-v1.json", "Apache-2.0"),
    "safety/do_not_answer_human_labels.jsonl.gz": Source(
        "kunishou/do-not-answer-ja@1380ff2ff5ab", "datasets/Review/Human/annotated_response_<model>.csv", "CC BY-NC-SA 4.0"
    ),
    "instruction/lima_prompts.jsonl.gz": Source("xzhou20/data@fa396013b528", "lima.jsonl", "none stated (LIMA: CC BY-NC-SA)"),
    "instruction/arena_hard_questions.jsonl.gz": Source("lm-sys/arena-hard-auto@efc012e192b8", "data/arena-hard-v0.1/question.jsonl", "Apache-2.0"),
    "instruction/vicuna_bench_questions.jsonl": Source("lm-sys/FastChat@0e6d3e4beaab", "fastchat/llm_judge/data/vicuna_bench/question.jsonl", "Apache-2.0"),
    "instruction/self_instruct_user_oriented.jsonl": Source("yizhongw/self-instruct@0b26ccaa4159", "human_eval/user_oriented_instructions.jsonl", "Apache-2.0"),
    "instruction/wizardlm_testset.jsonl": Source("nlpxucan/WizardLM@cd4b4cc022b6", "WizardLM/data/WizardLM_testset.jsonl", "CC BY-NC 4.0"),
    "safety/redteam/catqa.jsonl": Source("declare-lab/red-instruct@73c759c93d2f", "harmful_questions/catqa_english.json", "Apache-2.0"),
    "safety/redteam/harmfulqa.jsonl": Source("declare-lab/red-instruct@73c759c93d2f", "harmful_questions/harmfulqa.json", "Apache-2.0"),
    "safety/redteam/adversarialqa_harm.jsonl": Source("declare-lab/red-instruct@73c759c93d2f", "harmful_questions/adversarialqa.json", "Apache-2.0"),
    "safety/redteam/dangerousqa.jsonl": Source("declare-lab/red-instruct@73c759c93d2f", "harmful_questions/dangerousqa.json", "Apache-2.0"),
    "safety/redteam/advbench_behaviors.jsonl": Source("YancyKahn/PocoGCG@131c89005c41", "data/advbench/harmful_behaviors.csv", "MIT"),
    "safety/redteam/harmbench_text.jsonl": Source("busycalibrating/AdversariaLLM@f970939273ea", "data/behavior_datasets/harmbench_behaviors_text_all.csv", "MIT"),
    "safety/redteam/strongreject.jsonl": Source("busycalibrating/AdversariaLLM@f970939273ea", "data/behavior_datasets/strongreject_dataset.csv", "MIT"),
    "safety/redteam/do_not_answer.jsonl": Source("kunishou/do-not-answer-ja@1380ff2ff5ab", "datasets/Instruction/do_not_answer_en.csv", "CC BY-NC-SA 4.0"),
    "safety/redteam/simple_safety_tests.jsonl": Source("bertiev/SimpleSafetyTests@d7aee9a9422a", "SimpleSafetyTests - test cases.csv", "CC BY 4.0"),
    "safety/redteam/malicious_instruct.jsonl": Source("Princeton-SysML/Jailbreak_LLM@1e490531c0ef", "data/MaliciousInstruct.txt", "none stated"),
    "safety/redteam/i_malicious.jsonl": Source("vinid/safety-tuned-llamas@36a4b8d5c217", "data/evaluation/I-MaliciousInstructions.json", "CC BY-NC 4.0"),
    "safety/redteam/q_harm.jsonl": Source("vinid/safety-tuned-llamas@36a4b8d5c217", "data/evaluation/Q-Harm.json", "CC BY-NC 4.0"),
    "safety/benign_llm_safeguard_testset.jsonl": Source("chujiezheng/LLM-Safeguard@410bfb5c5ae9", "code/data_harmless/testset.txt", "none stated"),
    "safety/benign_llm_safeguard_custom.jsonl": Source("chujiezheng/LLM-Safeguard@410bfb5c5ae9", "code/data_harmless/custom.txt", "none stated"),
    "safety/benign_physical_safety.jsonl": Source("vinid/safety-tuned-llamas@36a4b8d5c217", "data/evaluation/I-PhysicalSafetySafe.json", "CC BY-NC 4.0"),
    "safety/benign_i_alpaca.jsonl": Source("vinid/safety-tuned-llamas@36a4b8d5c217", "data/evaluation/I-Alpaca.json", "CC BY-NC 4.0"),
    "benchmarks/llm_foundry/lambada_openai.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/language_understanding/lambada_openai.jsonl", "Apache-2.0"),
    "benchmarks/llm_foundry/boolq.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/reading_comprehension/boolq.jsonl", "Apache-2.0"),
    "benchmarks/llm_foundry/piqa.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/commonsense_reasoning/piqa.jsonl", "Apache-2.0"),
    "benchmarks/llm_foundry/arc_easy.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/world_knowledge/arc_easy.jsonl", "Apache-2.0"),
    "benchmarks/llm_foundry/arc_challenge.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/world_knowledge/arc_challenge.jsonl", "Apache-2.0"),
    "benchmarks/llm_foundry/openbook_qa.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/commonsense_reasoning/openbook_qa.jsonl", "Apache-2.0"),
    "benchmarks/llm_foundry/winogrande.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/language_understanding/winogrande.jsonl", "Apache-2.0"),
    "benchmarks/llm_foundry/copa.jsonl.gz": Source(_FOUNDRY, f"{_EVAL}/commonsense_reasoning/copa.jsonl", "Apache-2.0"),
    "benchmarks/hellaswag/hellaswag_val_sample.jsonl.gz": Source("RubriksCube/rubriks_cube@45e617d6ca9e", "data/hellaswag.jsonl", "MIT"),
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
