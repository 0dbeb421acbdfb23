"""One iteration of PPO by phase, beside TRL's last PPO trainer with the same weights and prompts; `python -m benchmarks.ppo`.

Every answer has exactly as many tokens as are asked for. Both sides sample, score with one reward model, and use each answer in as many
epochs and mini-batches; ours is measured with four models of their own, as TRL's, and with roles that share one base. With `--shape 7b`
(and without TRL) there are five roles, as in the packaged settings `llama2-7b-ppo`, on a GPU if `--device cuda`.
"""

import argparse
import importlib
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llamaherd.assistant.local import Assistant
from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.core.device import set_threads
from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.data.records import Prompt
from llamaherd.model.config import LoraConfig, ModelConfig, preset
from llamaherd.model.lora import add_adapter, changes_of, new_changes
from llamaherd.model.roles import ScorerOnBase, TransformerOnBase, Turns
from llamaherd.model.transformer import Scorer, Transformer, initialise, materialise, on_meta, scorer_from
from llamaherd.reward.model import RewardModel
from llamaherd.rlhf.config import PpoConfig, RolesConfig
from llamaherd.rlhf.memory import Work, table
from llamaherd.rlhf.ppo import ActorCritic, Ppo, ppo_loss
from llamaherd.stages.ppo import PpoSettings, assumed_passes
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import _step
from llamaherd.train.optimizer import adamw

from .common import CLOCKS, PEAKED, transformers_twin

SHAPES = {
    "miniature": preset("miniature"), "110m": preset("stories-110m"), "7b": preset("llama2-7b"),
    "tiny": ModelConfig(dim=32, layers=2, heads=2, ffn=64, vocab_size=64, context=128),
}  # fmt: skip
PHASES = ("sampling", "judging", "log_probs", "update")
ROLES = ("separate", "adapter", "head")
LORA = LoraConfig()
OPTIMIZER = OptimizerConfig(lr=1e-6, schedule="constant")


class Numbers:
    """A tokenizer whose text is the ids: benchmarks give both sides the same tokens."""

    bos_id, eos_id, hash = 1, 2, "numbers"

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


class Endless(Assistant):
    """Answers prompts of ids, and never stops before it must."""

    def __init__(self, model: Transformer):
        super().__init__(model, Numbers(model.config.vocab_size), "benchmark")  # type: ignore[arg-type]
        self.stop_ids = ()  # type: ignore[assignment]

    def prompt_ids(self, dialogue: Dialogue) -> list[int]:
        return self.tokenizer.encode(dialogue.messages[0].content)


class Judge(RewardModel):
    """A reward model for dialogues of ids."""

    def ids(self, dialogue: Dialogue, where: str = "a dialogue") -> list[int]:
        return [id for message in dialogue.messages for id in self.tokenizer.encode(message.content)]

    def fits(self, dialogue: Dialogue) -> bool:
        return True


class Judges:
    """The mean of all reward models, in the place of the combination of two."""

    def __init__(self, models: Sequence[RewardModel]):
        self.models = models

    def fits(self, prompt: Prompt, answer: str) -> bool:
        return True

    def logits(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        dialogues = [prompt.dialogue.followed_by("assistant", answer) for prompt, answer in zip(prompts, answers, strict=True)]
        scores = [model.logits(dialogues) for model in self.models]
        return [sum(row) / len(row) for row in zip(*scores, strict=True)]


@dataclass(frozen=True)
class Run:
    """What is measured."""

    shape: ModelConfig
    prompts: Sequence[Prompt]
    config: PpoConfig
    seed: int
    bits: int = 32
    device: str = "cpu"
    judges: int = 1
    checkpointing: bool = False
    lora: LoraConfig = LORA
    clock: Callable[[], float] = time.perf_counter

    def base(self) -> Transformer:
        """Fresh weights with a peaked head, the same each time."""
        dtype = torch.bfloat16 if self.bits == 16 else torch.float32
        model = materialise(on_meta(self.shape), self.device, dtype)
        if self.device == "cpu":
            initialise(model, self.seed)
        else:  # a 7B would take minutes to draw on the CPU, and its values do not matter
            for weight in model.parameters():
                torch.nn.init.normal_(weight, 0.0, 0.02) if weight.ndim > 1 else torch.nn.init.ones_(weight)
        with torch.no_grad():
            model.output.weight *= PEAKED if self.device == "cpu" else 1.0
        return model.eval()

    def scorer(self) -> Scorer:
        scorer = scorer_from(self.base())
        with torch.no_grad():
            scorer.score.weight.copy_(self.head())
        return scorer.eval()

    def head(self) -> torch.Tensor:
        return torch.randn(1, self.shape.dim, generator=torch_rng(self.seed, "head"))


@dataclass(frozen=True)
class Times:
    """Seconds of one iteration, and wall time by phase."""

    total: float
    phases: dict[str, float]


def with_own_weights(run: Run) -> tuple[ActorCritic, Transformer, list[Scorer]]:
    policy = run.base()
    return ActorCritic(policy, scorer_from(policy)), run.base(), [run.scorer() for _ in range(run.judges)]


def on_one_base(run: Run, critic: str) -> tuple[ActorCritic, Transformer, list[Scorer]]:
    base = run.base()
    names = ["policy", *(["critic"] if critic == "adapter" else []), *(f"judge{number}" for number in range(run.judges))]
    for name in names:
        add_adapter(base, name, new_changes(base, run.lora, run.seed), run.lora.scale)
    turns, own = Turns(base), "critic" if critic == "adapter" else "policy"
    policy, valued = TransformerOnBase(base, turns, "policy"), ScorerOnBase(base, turns, own, torch.zeros(run.shape.dim))
    base.requires_grad_(False)
    for name in {"policy", own}:
        for change in changes_of(base, name).values():
            change.requires_grad_(True)
    judges: list[Scorer] = [ScorerOnBase(base, turns, name, run.head()) for name in names if name.startswith("judge")]
    for judge in judges:
        judge.eval().get_parameter("score.weight").requires_grad_(False)
    return ActorCritic(policy, valued), TransformerOnBase(base, turns, None), judges


def ours(run: Run, roles: str) -> Callable[[], Times]:
    """A call that does one iteration, by the very functions that the stage uses."""
    model, reference, scorers = with_own_weights(run) if roles == "separate" else on_one_base(run, roles)
    model.policy.checkpointing = model.critic.checkpointing = run.checkpointing
    judges = Judges([Judge(scorer, Numbers(run.shape.vocab_size)) for scorer in scorers])  # type: ignore[arg-type]
    source = Ppo(
        model, reference, Endless(model.policy), judges, run.prompts, run.prompts[:1], run.config, run.seed, lambda _: None  # type: ignore[arg-type]
    )  # fmt: skip
    optimizer = adamw(model, OPTIMIZER)
    # From the second iteration on, whose beginning is no time for a look.
    standing: dict[str, Any] = {"iteration": 1, "prompts": None, "looks": [], "running": {}}

    def iteration() -> Times:
        updating, begun = 0.0, run.clock()
        for number, (parts, _) in enumerate(source.batches(standing)):
            started = time.perf_counter()
            _step(model, lambda batch: ppo_loss(model, batch, run.config), parts, optimizer, OPTIMIZER, OPTIMIZER.lr, number)
            if run.device == "cuda":
                torch.cuda.synchronize()
            updating += time.perf_counter() - started
        return Times(run.clock() - begun, {phase: source.phases[phase] for phase in PHASES[:3]} | {"update": updating})

    return iteration


def trls(run: Run, folder: str) -> Callable[[], Times]:
    """The same by TRL, from its first sampled token to its last step. What is left of that beside the other phases is its `update`."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import datasets
    import tokenizers
    import transformers
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    words = {str(id): id for id in range(run.shape.vocab_size)}
    pieces = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0"))
    fast: Any = transformers.PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=pieces, pad_token="0", eos_token="2", padding_side="left")
    theirs: Any = importlib.import_module("trl.experimental.ppo.ppo_trainer")
    policy, reference = (transformers_twin(run.base()) for _ in range(2))
    value, reward = (transformers_twin(scorer) for scorer in (scorer_from(run.base()), run.scorer()))
    for model in (policy, reference, value, reward):
        model.config.pad_token_id = 0
    policy.generation_config.eos_token_id = None
    rows = [[int(word) for word in prompt.dialogue.messages[0].content.split()] for prompt in run.prompts]
    ppo = run.config
    trainer = PPOTrainer(
        PPOConfig(
            output_dir=folder, report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, save_strategy="no", logging_strategy="no",
            learning_rate=OPTIMIZER.lr, lr_scheduler_type="constant", total_episodes=len(rows), per_device_train_batch_size=ppo.mini_batch,
            gradient_accumulation_steps=1, num_mini_batches=len(rows) // ppo.mini_batch, num_ppo_epochs=ppo.epochs,
            local_rollout_forward_batch_size=len(rows), response_length=ppo.max_new_tokens, temperature=1.0, kl_coef=ppo.beta,
            num_sample_generations=0, stop_token_id=None,
        ),
        tokenizer, policy, reference, reward, datasets.Dataset.from_dict({"input_ids": rows}), value,
        eval_dataset=datasets.Dataset.from_dict({"input_ids": rows[:1]}),
    )  # fmt: skip
    trainer.log = lambda *_, **__: None  # type: ignore[method-assign]
    inner, starts, ends = dict[str, float](), dict[str, float](), dict[str, float]()

    class Stop(transformers.TrainerCallback):  # type: ignore[name-defined]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.update(wall=time.perf_counter(), total=run.clock())

    trainer.add_callback(Stop())

    def timed(name: Callable[..., str | None], function: Callable[..., Any]) -> Callable[..., Any]:
        def work(*arguments: Any, **more: Any) -> Any:
            started = time.perf_counter()
            if not starts:
                starts.update(wall=started, total=run.clock())
            found = function(*arguments, **more)
            if phase := name(*arguments):
                inner[phase] = inner.get(phase, 0.0) + time.perf_counter() - started
            return found

        return work

    theirs.batch_generation = timed(lambda *_: "sampling", theirs.batch_generation)
    theirs.get_reward = timed(lambda model, *_: "judging" if model is reward else "log_probs", theirs.get_reward)
    theirs.forward = timed(lambda model, *_: "log_probs" if model is reference else None, theirs.forward)

    def iteration() -> Times:
        inner.clear()
        starts.clear()
        trainer.train()  # type: ignore[no-untyped-call]
        return Times(ends["total"] - starts["total"], dict(inner) | {"update": ends["wall"] - starts["wall"] - sum(inner.values())})

    return iteration


def flops_of(run: Run, roles: str) -> float:
    """Operations of an iteration: each model's forward passes, and of what is trained the backward ones."""
    prompt = len(run.prompts[0].dialogue.messages[0].content.split())
    rows, new, shape = len(run.prompts), run.config.max_new_tokens, run.shape
    length = prompt + new
    forward = shape.training_flops(rows * (length - 1), length - 1, rows * new, shape.vocab_size) / 3
    valued = shape.training_flops(rows * (length - 1), length - 1, rows * new, 1) / 3
    judging = run.judges * shape.training_flops(rows * length, length, rows, 1) / 3
    sampling = shape.training_flops(rows * (length - 1), length - 1, rows * new, shape.vocab_size) / 3
    trunks = forward if roles == "head" else forward + valued
    # A frozen base has no gradients of weights: two thirds of the work.
    return sampling + judging + forward + trunks + run.config.epochs * trunks * (3 if roles == "separate" else 2)


def matrix_rate(run: Run) -> float:
    """Operations per second of a product as wide as the model's, on as many rows as a micro-batch has tokens: the best of several."""
    dtype = torch.bfloat16 if run.bits == 16 else torch.float32
    rows = run.config.micro_batch * run.config.max_new_tokens * 2
    a = torch.randn(rows, run.shape.dim, device=run.device, dtype=dtype)
    b = torch.randn(run.shape.dim, run.shape.ffn_width, device=run.device, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * rows * run.shape.dim * run.shape.ffn_width / best


def row(name: str, run: Run, times: Sequence[Times], ratios: Sequence[float], floor_s: float | None) -> str:
    """A row of the table: medians, and the median of paired ratios with their range."""
    total = statistics.median(each.total for each in times)
    phases = " | ".join(f"{statistics.median(each.phases[phase] for each in times):.3g}" for phase in PHASES)
    new = len(run.prompts) * run.config.max_new_tokens
    ratio = f"{statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f}" if ratios else "| "
    floor = "" if floor_s is None else f"{floor_s:.3g}"
    return f"| {name} | {total:.3g} | {phases} | {len(run.prompts) / total:,.1f} | {new / total:,.0f} | {floor} | {ratio} |"


def the_run(options: argparse.Namespace) -> Run:
    shape, rng = SHAPES[options.shape], python_rng(0, "benchmark")
    texts = [" ".join(str(rng.randrange(3, shape.vocab_size)) for _ in range(options.prompt_tokens)) for _ in range(options.prompts)]
    config = PpoConfig(
        iterations=2, batch=options.prompts, mini_batch=options.mini_batch, micro_batch=min(options.micro_batch, options.mini_batch),
        epochs=options.epochs, max_new_tokens=options.new_tokens, check_every=100, kl_budget_nats=1e9, sampling_gap_nats=1.0,
        signal={"unfinished": "score"}, sampler={"together": options.together}, samples=0,  # type: ignore[arg-type]
    )  # fmt: skip
    prompts = [Prompt(checked([Message("user", text)]), safety=False) for text in texts]
    return Run(
        shape,
        prompts,
        config,
        0,
        options.bits,
        options.device,
        options.judges,
        options.checkpointing,
        LoraConfig(r=options.lora_r, alpha=2 * options.lora_r),
        CLOCKS[options.clock],
    )


def measure(run: Run, options: argparse.Namespace) -> None:
    """Alternates all sides and prints the table."""
    rate = matrix_rate(run)
    sides = {name: ours(run, name) for name in options.roles.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        if options.trl:
            sides = {"TRL": trls(run, folder), **sides}
        for work in sides.values():
            work()
        found: dict[str, list[Times]] = {name: [] for name in sides}
        for _ in range(options.pairs):
            for name, work in sides.items():
                found[name].append(work())
    print("| roles | s | sampling | judging | log-probs, values | update | prompts/s | new tokens/s | floor, s | times TRL | its range |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, times in found.items():
        ratios = [theirs.total / mine.total for theirs, mine in zip(found.get("TRL", []), times, strict=False)] if name != "TRL" else []
        print(row(name, run, times, ratios, None if name == "TRL" else flops_of(run, name) / rate), flush=True)
    print(f"\nmatrix rate {rate / 1e9:,.0f} GFLOP/s; peak memory {peak_bytes(run) / 1e9:.2f} GB")


def peak_bytes(run: Run) -> int:
    """The most that was held: tensors on a GPU, else the whole process with all sides in it."""
    if run.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def work_of(run: Run, roles: str) -> Work:
    """What the stage's forecast of memory is made of."""
    shared = None if roles == "separate" else RolesConfig(lora=run.lora, bits=run.bits, critic=roles)  # type: ignore[arg-type]
    length = len(run.prompts[0].dialogue.messages[0].content.split()) + run.config.max_new_tokens
    step = assumed_passes(PpoSettings(ppo=run.config), length)
    judge: ModelConfig | LoraConfig = run.lora if shared else run.shape
    return Work(run.shape, [judge] * run.judges, run.config, OPTIMIZER, step, shared, False, run.checkpointing, False, run.device == "cuda")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One iteration of PPO, by phase")
    parser.add_argument("--shape", choices=list(SHAPES), default="miniature")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bits", type=int, choices=[16, 32], help="of the weights (default: 16 on a GPU)")
    parser.add_argument("--roles", help=f"of {', '.join(ROLES)}, with commas between (default: all; 7b: adapter)")
    parser.add_argument("--trl", action=argparse.BooleanOptionalAction, help="measure TRL too (default: on a CPU, but for 7b)")
    parser.add_argument("--prompts", type=int, help="default: 128; 7b: 512")
    parser.add_argument("--prompt-tokens", type=int, help="default: 40; 7b: 256")
    parser.add_argument("--new-tokens", type=int, help="default: 32; 7b: 256")
    parser.add_argument("--epochs", type=int, help="default: 2; 7b: 1")
    parser.add_argument("--mini-batch", type=int, help="default: half of the prompts; 7b: 64")
    parser.add_argument("--micro-batch", type=int, help="default: 16; 7b: 8")
    parser.add_argument("--together", type=int, default=128, help="answers sampled at a time")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="default: for 7b alone")
    parser.add_argument("--judges", type=int, help="reward models (default: 1, as TRL has; 7b: 2)")
    parser.add_argument("--lora-r", type=int, help="rank of adapters (default: 4 for small shapes, 16 for 7b)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="of totals and ratios; cpu: for one thread on a busy machine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args(arguments)
    large = options.shape == "7b"
    usual = {
        "bits": 16 if options.device == "cuda" else 32, "roles": "adapter" if large else ",".join(ROLES),
        "trl": options.device == "cpu" and not large, "prompts": 512 if large else 128, "prompt_tokens": 256 if large else 40,
        "new_tokens": 256 if large else 32, "epochs": 1 if large else 2, "micro_batch": 8 if large else 16,
        "checkpointing": large, "judges": 2 if large else 1,
        "lora_r": 16 if large else 4,
    }  # fmt: skip
    for name, value in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.mini_batch = options.mini_batch or (64 if large else options.prompts // 2)
    if unknown := set(options.roles.split(",")) - set(ROLES):
        parser.error(f"--roles {', '.join(unknown)}: expected some of {', '.join(ROLES)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here")
    set_threads(options.threads)
    run = the_run(options)
    print(
        f"PPO, one iteration: {options.shape}, {options.prompts} prompts of {options.prompt_tokens} tokens, {options.new_tokens} new ones, "
        f"{options.epochs} epochs of mini-batches of {options.mini_batch}, {options.bits} bits, threads: {options.threads}, "
        f"{platform.machine()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} before\n"
    )
    print(*table(work_of(run, options.roles.split(",")[-1]), None), "", sep="\n")
    measure(run, options)


if __name__ == "__main__":
    main()
