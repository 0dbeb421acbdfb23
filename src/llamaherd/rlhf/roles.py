"""The five models of PPO: five with weights of their own, or adapters and heads on one base that nothing trains (docs/roles.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..assistant.local import Assistant
from ..checkpoints.adapted import base_of, bits_of, demand_base, load_frozen
from ..checkpoints.huggingface import HuggingFaceFiles
from ..checkpoints.peft import Adapter, AdapterFiles, demand_fit, is_adapter, lay_over, read_adapter
from ..checkpoints.source import open_source
from ..core.errors import UserError
from ..core.seeds import seed_for
from ..model.config import LoraConfig
from ..model.lora import add_adapter, changes_of, new_changes
from ..model.roles import ScorerOnBase, TransformerOnBase, Turns
from ..model.transformer import Transformer
from ..reward.combine import Combination
from ..reward.model import RewardModel
from ..tokenizer.sentencepiece import Tokenizer
from ..train.state import ModelFiles
from .config import RolesConfig
from .critic import critic_from
from .ppo import ActorCritic

DOMAINS = ("helpfulness", "safety")
Folders = Sequence[Path]
"""Where the chat model lies, the helpfulness reward model and the safety reward model."""


@dataclass(frozen=True)
class PairFiles:
    """Policy and critic on their way to disk and back, side by side."""

    policy: ModelFiles
    critic: ModelFiles

    def save(self, folder: Path) -> None:
        self.policy.save(folder / "policy")
        self.critic.save(folder / "critic")

    def load(self, folder: Path) -> None:
        self.policy.load(folder / "policy")
        self.critic.load(folder / "critic")


@dataclass(frozen=True)
class Base:
    """What the roles stand on: where it lies and how it is held, and what the policy's adapter is."""

    path: Path
    bits: int
    files: AdapterFiles


@dataclass(frozen=True)
class Roles:
    """Who takes part. `base`: None where each has weights of its own."""

    model: ActorCritic
    reference: Transformer
    assistant: Assistant
    """Answers with the policy's present weights."""
    rewards: Combination
    policy_files: ModelFiles
    files: ModelFiles
    """Of policy and critic, which are what training changes."""
    base: Base | None = None


def separate_roles(folders: Folders, critic_start: str = "policy") -> Roles:
    """Five models with weights of their own. Raises UserError."""
    model, helpfulness, safety = folders
    open_source(model)  # refuses what can be asked and not trained
    assistant, reference = Assistant.load(model), Assistant.load(model)
    policy, tokenizer = assistant.model, assistant.tokenizer
    judges = {"helpfulness": RewardModel.load(helpfulness), "safety": RewardModel.load(safety)}
    pair = ActorCritic(policy, critic_from(policy, tokenizer, judges.get(critic_start)))
    rewards = Combination(judges["helpfulness"], judges["safety"])
    files = HuggingFaceFiles(policy, tokenizer)
    return Roles(pair, reference.model, assistant, rewards, files, PairFiles(files, HuggingFaceFiles(pair.critic, tokenizer)))


def shared_roles(folders: Folders, config: RolesConfig, critic_start: str, seed: int, device: torch.device) -> Roles:
    """Roles on one base: what each has of its own is an adapter, or a head. The critic begins as the policy with a value head at zero, or
    as a reward model that is an adapter, with its head.

    Raises UserError for reward models that were trained on another base than the policy, for a critic that cannot begin as said, and
    where it is not clear in how many bits the base is to be held.
    """
    model, *rewards = folders
    start = _language_adapter(model) if is_adapter(model) else None
    path = base_of(model) if start else model
    judges = {name: _judge(folder, path) for name, folder in zip(DOMAINS, rewards, strict=True)}
    bits = bits_of_base(config, folders)
    base, tokenizer = load_frozen(path, bits, device)
    lora = start.config.model_copy(update={"dropout": 0.0}) if start else config.lora
    if start:
        lay_over(base, "start", start)
    changes = start.changes if start else new_changes(base, lora, seed_for(seed, "policy"))
    add_adapter(base, "policy", changes, lora.scale)
    for name, judge in judges.items():
        if isinstance(judge, Adapter):
            demand_fit(judge, base)
            add_adapter(base, name, judge.changes, judge.config.scale)
    critic = _critic(base, config, judges.get(critic_start), start, lora, seed)
    on = Base(path, bits, AdapterFiles(base, "policy", lora, str(path)))
    return _on(base, tokenizer, judges, on, critic, start is not None)


def _critic(
    base: Transformer, config: RolesConfig, judge: Adapter | RewardModel | None, start: Adapter | None, lora: LoraConfig, seed: int
) -> tuple[str, LoraConfig, torch.Tensor]:
    """The name of the critic's adapter, which is laid over the base if it is its own, with its settings and the head it begins with."""
    nothing = torch.zeros(1, base.config.dim)
    if judge is not None and not (isinstance(judge, Adapter) and config.critic == "adapter"):
        raise UserError(
            "critic.start: on one base only an adapter of the critic's own can begin as a reward model, if that is an adapter too; "
            "give roles.critic=adapter and such a reward model, or critic.start=policy"
        )
    if config.critic == "head":
        return "policy", lora, nothing
    if isinstance(judge, Adapter):
        assert judge.head is not None
        lora = judge.config.model_copy(update={"dropout": 0.0})
        add_adapter(base, "critic", judge.changes, lora.scale)
        return "critic", lora, judge.head
    add_adapter(base, "critic", start.changes if start else new_changes(base, lora, seed_for(seed, "critic")), lora.scale)
    return "critic", lora, nothing


def _on(
    base: Transformer, tokenizer: Tokenizer, judges: Mapping[str, Adapter | RewardModel], on: Base, critic_is: tuple[str, LoraConfig, torch.Tensor],
    started: bool,
) -> Roles:  # fmt: skip
    """The roles of a base that carries all adapters."""
    turns, (own, lora, head) = Turns(base), critic_is
    policy = TransformerOnBase(base, turns, "policy")
    critic = ScorerOnBase(base, turns, own, head)
    base.requires_grad_(False)  # of the adapters, the last one laid over it was still trained
    for name in {"policy", own}:
        for change in changes_of(base, name).values():
            change.requires_grad_(True)
    models = {name: _judging(base, turns, name, judge, tokenizer) for name, judge in judges.items()}
    pair = ActorCritic(policy, critic)
    files = PairFiles(on.files, AdapterFiles(critic, own, lora, on.files.base))
    reference = TransformerOnBase(base, turns, "start" if started else None)
    return Roles(
        pair,
        reference,
        Assistant(policy, tokenizer, on.path.name),
        Combination(models["helpfulness"], models["safety"]),
        on.files,
        files,
        on,
    )


def _judging(base: Transformer, turns: Turns, name: str, judge: Adapter | RewardModel, tokenizer: Tokenizer) -> RewardModel:
    """A reward model whose adapter lies over the base under that name, or one beside it, as it is."""
    if not isinstance(judge, Adapter):
        return judge
    assert judge.head is not None
    scorer = ScorerOnBase(base, turns, name, judge.head.to(base.device)).eval()
    scorer.score.requires_grad_(False)
    return RewardModel(scorer, tokenizer)


def answering_on_one_base(model: Path, judges: Sequence[Path], bits: int, device: torch.device) -> tuple[Assistant, list[RewardModel]]:
    """A chat model that nothing trains and the reward models that judge its answers, on one base held in `bits`: what each has of its own
    is an adapter, or an adapter and a head. Whole reward models stand beside it. Raises UserError for those of another base.
    """
    start = _language_adapter(model) if is_adapter(model) else None
    path = base_of(model) if start else model
    found = {f"judge-{number}": _judge(folder, path) for number, folder in enumerate(judges)}
    base, tokenizer = load_frozen(path, bits, device)
    if start:
        lay_over(base, "chat", start)
    for name, judge in found.items():
        if isinstance(judge, Adapter):
            demand_fit(judge, base)
            add_adapter(base, name, judge.changes, judge.config.scale)
    base.requires_grad_(False)
    turns = Turns(base)
    chat = TransformerOnBase(base, turns, "chat" if start else None).eval()
    return Assistant(chat, tokenizer, model.name), [_judging(base, turns, name, judge, tokenizer) for name, judge in found.items()]


def _language_adapter(folder: Path) -> Adapter:
    adapter = read_adapter(folder)
    if adapter.head is not None:
        raise UserError(f"{folder}: is the adapter of a reward model; PPO starts from a chat model or from the adapter of one")
    return adapter


def _judge(folder: Path, base: Path) -> Adapter | RewardModel:
    """The adapter of a reward model, which must be the base's, or a whole reward model, which stands beside it with its own weights."""
    if not is_adapter(folder):
        return RewardModel.load(folder)
    demand_base(folder, base)
    adapter = read_adapter(folder)
    if adapter.head is None:
        raise UserError(f"{folder}: is the adapter of a language model; expected a reward model, as `llamaherd reward` makes")
    return adapter


def bits_of_base(config: RolesConfig, folders: Sequence[Path]) -> int:
    """In how many bits the base is held: as settings say, else as it was when those of `folders` that are adapters were trained.

    Raises UserError when they differ in that.
    """
    if config.bits:
        return config.bits
    trained = {bits_of(folder): folder for folder in folders if is_adapter(folder)}
    if len(trained) > 1:
        listed = ", ".join(f"{folder} in {bits}" for bits, folder in trained.items())
        raise UserError(
            f"adapters were trained on a base in different bits ({listed}); say how to hold it, such as --roles.bits={min(trained)}"
        )
    return next(iter(trained), 32)
