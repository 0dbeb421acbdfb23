"""Prompts from the public files: what later stages answer while tuning, and test prompts that nothing is trained on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..core.files import write_rows
from ..core.seeds import python_rng
from ..data.importers import import_dialogues
from ..data.inputs import parents_of
from ..data.public import prompts as public
from ..data.public.preprompts import preprompt
from ..data.public.scripts import scripts_to_ask, scripts_to_tune
from ..data.public.sources import public_files, public_folder
from ..data.records import DOMAINS, Preference, Prompt, read_preferences, rows_of
from .common import data_file

TESTS_FOLDER = "test"


class PromptsSettings(Config):
    """How many prompts of each kind, and which."""

    most_characters: int = Field(600, ge=50)
    """Longer prompts, with all their turns, are left out; a character outside ASCII counts as many as its bytes. The default leaves 128 tokens
    for an answer in a context of 512 with 4,096 pieces."""
    safety_share: float = Field(0.4, ge=0, le=1)
    """Share of adversarial prompts in rejection sampling, PPO and best-of-N."""
    rejection_prompts: int = Field(600, ge=1)
    """Prompts of rejection sampling."""
    ppo_prompts: int = Field(800, ge=1)
    """Prompts of PPO."""
    held_out_prompts: int = Field(100, ge=1)
    """Prompts that PPO's early stop looks at."""
    best_of_prompts: int = Field(100, ge=1)
    """Prompts on which best-of-N is judged."""
    distilled_prompts: int = Field(500, ge=1)
    """Adversarial prompts for context distillation."""
    harmless_prompts: int = Field(300, ge=0)
    """Harmless prompts mixed in with their own answers."""
    distilled_tests: int = Field(150, ge=1)
    """Held-out adversarial prompts on which distillation is judged."""
    most_tests: int | None = Field(None, ge=1)
    """At most so many prompts of each file of tests; null: all."""
    ghost_dialogues: int = Field(400, ge=1)
    """Scripts for Ghost Attention."""
    ghost_turns: tuple[int, int] = (2, 4)
    """Least and most turns of a script."""
    ghost_characters: int = Field(100, ge=20)
    """Users' messages of scripts are no longer."""
    ghost_combined: float = Field(0.1, ge=0, le=1)
    """Share of the scripts with two constraints."""
    ghost_tests: int = Field(60, ge=1)
    """Test scripts of constraints that training scripts have, and as many of others."""
    ghost_test_turns: int = Field(20, ge=1)
    """Turns of a test script."""

    @field_validator("ghost_turns")
    @classmethod
    def _in_order(cls, turns: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= turns[0] <= turns[1]:
            raise ValueError(f"given {list(turns)}, expected the least and the most turns, such as [2, 4]")
        return turns


class PromptsConfig(PromptsSettings):
    """Settings and inputs."""

    data: Path | None = None
    """Folder of the public files; null: the variable LLAMAHERD_DATA."""
    demonstrations: Path | None = None
    """Dialogues that models are tuned on: test prompts that are like one of theirs are left out."""
    comparisons: Path | None = None
    """What the stage `comparisons` wrote: prompts of its training parts are tuned on too, and test prompts like them left out."""


def run(config: PromptsConfig, out: Path, seed: int) -> Artifact:
    """Writes a file of prompts for every use, and those of the tests in `test/`.

    Raises UserError that names the files which are absent, or says which file asks for more prompts than there are.
    """
    files = public_files(public_folder(config.data), public.FILES)
    demonstrations = [data_file(config.demonstrations, "demonstrations.jsonl")] if config.demonstrations else []
    names = [*DOMAINS, "judge", *(f"{domain}-test" for domain in DOMAINS)]
    compared = {name: data_file(config.comparisons, f"{name}.jsonl") for name in names} if config.comparisons else {}
    parents = parents_of([*files.values(), *demonstrations, *compared.values()])
    with building(out, kind="dialogues", stage="prompts", config=config, parents=parents, seed=seed) as place:
        pairs = {name: read_preferences(path) for name, path in compared.items()}
        left_out = dict[str, Counter[str]]()
        tests = _tests(config, files, _trained_on(demonstrations, pairs), left_out, seed)
        pools, short = _pools(config, files, pairs, tests, left_out, seed)
        rows = _test_rows(config, tests, seed) | _drawn(config, pools, seed)
        rows["ghost.jsonl"] = scripts_to_tune(short, config.ghost_dialogues, config.ghost_turns, config.ghost_combined, seed)
        rows[f"{TESTS_FOLDER}/samples.jsonl"] = rows_of(public.samples())
        counts = {name: write_rows(place.folder / name, own) for name, own in rows.items()}
        place.metrics.update(
            counts=counts, pools={pool.name: pool.size for pool in pools},
            kinds={name: dict(Counter(row["kind"] for row in own if "kind" in row)) for name, own in rows.items()},
            left_out={name: dict(reasons) for name, reasons in left_out.items()},
        )  # fmt: skip
    return open_artifact(out, "dialogues")


def _trained_on(demonstrations: Iterable[Path], pairs: Mapping[str, list[Preference]]) -> list[str]:
    """What users say in what chat and reward models are trained on."""
    dialogues = [dialogue for file in demonstrations for dialogue, _ in import_dialogues(file).dialogues]
    dialogues += [pair.prompt for name, own in pairs.items() if not name.endswith("-test") for pair in own]
    return [text for dialogue in dialogues for text in public.users(dialogue)]


def _tests(
    config: PromptsConfig, files: Mapping[str, Path], trained: list[str], left_out: dict[str, Counter[str]], seed: int
) -> dict[public.Test, list[Prompt]]:
    """Test prompts by file."""
    sieve = public.Sieve(config.most_characters, {public.AS_TRAINED: public.runs_of(trained)}, left_out.setdefault("tests", Counter()))
    found = dict[public.Test, list[Prompt]]()
    for name, sets in public.TESTS.items():
        read = (prompt for kind, file in sets.items() for prompt in public.read_set(kind, files[file], name == "safety", sieve.left_out))
        found[name] = sieve.keep(read)
        if config.most_tests is not None and config.most_tests < len(found[name]):
            some = python_rng(seed, "prompts", "tests", name).sample(range(len(found[name])), config.most_tests)
            sieve.left_out["more than wanted"] += len(found[name]) - config.most_tests
            found[name] = [found[name][index] for index in sorted(some)]
    return found


def _pools(
    config: PromptsConfig,
    files: Mapping[str, Path],
    pairs: Mapping[str, list[Preference]],
    tests: Mapping[public.Test, list[Prompt]],
    left_out: dict[str, Counter[str]],
    seed: int,
) -> tuple[tuple[public.Pool, public.Pool, public.Pool], list[str]]:
    """Pools of harmless, red-team and people's adversarial prompts, and the short harmless messages that scripts are made of."""
    asked = [text for own in tests.values() for prompt in own for text in public.users(prompt.dialogue)]
    asked += [public.users(pair.prompt)[0] for name, own in pairs.items() if name not in DOMAINS for pair in own]
    sieve = public.Sieve(config.most_characters, {public.AS_TESTED: public.runs_of(asked)}, left_out.setdefault("tuning", Counter()))

    def kept(sets: Mapping[str, str], safety: bool) -> list[Prompt]:
        return sieve.keep(prompt for kind, file in sets.items() for prompt in public.read_set(kind, files[file], safety, sieve.left_out))

    people = {
        domain: sieve.keep(Prompt(pair.prompt, domain == "safety", {"kind": pair.source}) for pair in pairs.get(domain, ()))
        for domain in DOMAINS
    }
    harmless = kept(public.INSTRUCTIONS, safety=False) + people["helpfulness"]
    pools = (
        public.Pool("harmless", harmless, seed), public.Pool("red-team", kept(public.RED_TEAM, safety=True), seed),
        public.Pool("adversarial", people["safety"], seed),
    )  # fmt: skip
    return pools, _short(harmless, config.ghost_characters)


def _short(prompts: Iterable[Prompt], most_characters: int) -> list[str]:
    """What prompts of one message and one line ask, where it is no longer."""
    single = [prompt.dialogue for prompt in prompts if len(prompt.dialogue.messages) == 1]
    return [dialogue.asked for dialogue in single if public.size(dialogue) <= most_characters and "\n" not in dialogue.asked.strip()]


def _test_rows(config: PromptsConfig, tests: Mapping[public.Test, list[Prompt]], seed: int) -> dict[str, list[dict[str, Any]]]:
    rows = {f"{TESTS_FOLDER}/{name}.jsonl": [{**row, "seen": False} for row in rows_of(own)] for name, own in tests.items()}
    short = _short(tests["helpfulness"], config.ghost_characters)
    return rows | {f"{TESTS_FOLDER}/ghost.jsonl": scripts_to_ask(short, config.ghost_tests, config.ghost_test_turns, seed)}


def _drawn(config: PromptsConfig, pools: tuple[public.Pool, public.Pool, public.Pool], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Files of prompts, none of which has a prompt of another; those of context distillation are of red-team sets alone."""
    harmless, red_team, people = pools
    distilled = {"distil-test.jsonl": config.distilled_tests, "distil.jsonl": config.distilled_prompts}
    files = dict[str, list[dict[str, Any]]]()
    for name, count in distilled.items():
        taken = enumerate(red_team.take(count, name))
        files[name] = [{**prompt.to_row(), "preprompt": preprompt(prompt.about.get("category"), index)} for index, prompt in taken]
    people.add(red_team)
    mixed = {
        "best-of.jsonl": config.best_of_prompts, "held-out.jsonl": config.held_out_prompts, "rejection.jsonl": config.rejection_prompts,
        "ppo.jsonl": config.ppo_prompts,
    }  # fmt: skip
    for name, count in mixed.items():
        safety = round(config.safety_share * count)
        both = harmless.take(count - safety, name) + people.take(safety, name)
        python_rng(seed, "prompts", name).shuffle(both)
        files[name] = rows_of(both)
    files["harmless.jsonl"] = rows_of(harmless.take(config.harmless_prompts, "harmless.jsonl"))
    return files


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    counts, left_out = artifact.metrics["counts"], artifact.metrics["left_out"]
    tests = {name: count for name, count in counts.items() if name.startswith(f"{TESTS_FOLDER}/")}
    told = [f"{sum(counts.values()) - sum(tests.values()):,} prompts and scripts to tune on, {sum(tests.values()):,} for tests"]
    for name, reasons in left_out.items():
        without = ", ".join(f"{count:,} {reason}" for reason, count in Counter(reasons).most_common())
        told += [f"left out of {name}: {without}"] if without else []
    return "; ".join(told)
