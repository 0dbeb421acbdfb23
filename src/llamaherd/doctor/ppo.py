"""PPO: KL, what the reward hides, collapse, and whether anything was learned at all."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..core.artifacts import Artifact
from ..measures.intervals import FEWEST, mean
from .config import Thresholds
from .finding import Check, Finding, gap, high
from .patient import Patient, Row, series, value_of
from .trends import LEAST_POINTS, ends, trend

HOT = Check(
    "kl-hot", "KL to the starting policy is near its budget or leaps towards it",
    "lower the learning rate or raise beta; a budget that is only just kept publishes an early policy",
)  # fmt: skip
NEGATIVE = Check(
    "kl-negative", "KL is negative, which no KL is",
    "sample at temperature 1 without a nucleus, from the weights that are trained, with dropout off: answers come from another policy than the one they are held against",
)  # fmt: skip
HACKED = Check(
    "overoptimised", "the reward rises while a judge that is not trained on falls",
    "stop earlier, raise beta, or collect fresh preferences on this policy's answers and train the reward models again; look at the answers of the highest reward",
)  # fmt: skip
ENTROPY = Check(
    "collapse-entropy",
    "the policy's entropy has collapsed",
    "lower the learning rate, raise beta, or stop earlier; sample a few answers and see how alike they are",
)
LENGTH = Check(
    "collapse-length", "answers have changed their length out of all proportion",
    "look whether the reward models prefer the longer answer (reward-length) or give the same to empty ones, and mend them before more PPO",
)  # fmt: skip
UNJUDGED = Check(
    "nothing-judged", "PPO stopped because no answer could be judged",
    "answers that are cut off: raise max_new_tokens, or give ppo.signal.unfinished=score; if none ever ends, the end of sequence was not "
    "learned: see tuning-end of the model before. Empty ones, or ones with a tag: tune the model before PPO",
)  # fmt: skip
UNFINISHED = Check(
    "ppo-unfinished", "too many answers are cut off",
    "raise max_new_tokens, or tune on shorter answers; if nearly all are cut off, the end of sequence was not learned: see tuning-end of the model before",
)  # fmt: skip
CRITIC = Check(
    "critic", "the critic never explains anything",
    "begin it from the reward model, raise value_weight or the learning rate, or give it more iterations: until then advantages are mere rewards",
)  # fmt: skip
CLIPPED = Check(
    "clip-high",
    "most updates are clipped away",
    "lower the learning rate, or make mini-batches larger so that there are fewer steps on the same answers",
)
STILL = Check(
    "nothing-learned",
    "the policy has not moved",
    "raise the learning rate or the number of iterations; if rewards are all equal, look at the reward models first",
)
GAP = Check(
    "sampling-gap", "sampler and trainer disagree on what was sampled",
    "let both use the same weights, precision and kernels; until they agree PPO's ratios are wrong from the first step",
)  # fmt: skip
PUBLISHED = Check(
    "nothing-gained", "no look at held-out prompts was better than the starting policy, which was published again",
    "raise the learning rate or the iterations, or take better reward models; `looks` in its manifest shows how far it came",
)  # fmt: skip


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Every PPO artifact, from its log and its looks at held-out prompts."""
    for name, artifact in patient.of("ppo"):
        rows, settings = patient.log(artifact), artifact.manifest.get("config", {}).get("ppo", {})
        looks = artifact.metrics.get("looks") or []
        yield _hot(name, rows, looks, artifact, settings, limits)
        yield _negative(name, rows, limits)
        yield from _hacked(name, rows, looks, str(artifact.metrics.get("stopped") or ""), limits)
        yield _entropy(name, rows, limits)
        yield _lengths(name, rows, limits)
        yield _unfinished(name, rows, limits)
        if "can be judged" in (stopped := str(artifact.metrics.get("stopped") or "")):
            yield UNJUDGED.found(name, True, stopped, "answers that end", stopped=stopped)
        yield _critic(name, rows)
        yield _clipped(name, rows, settings, limits)
        yield _still(name, rows, settings, limits)
        yield _sampling_gap(name, rows, settings, limits)
        yield _published(name, artifact, looks)


def _hot(
    name: str, rows: Sequence[Row], looks: Sequence[Mapping[str, Any]], artifact: Artifact, settings: Mapping[str, Any], limits: Thresholds
) -> Finding:
    budget, seen = value_of(settings.get("kl_budget_nats")), series(rows, "ppo/kl_k3")
    at_looks = [found for one in looks if (found := value_of(one.get("kl"))) is not None]
    if not budget or not (seen or at_looks):
        return HOT.absent(name, "no KL, or no budget to hold it against")
    most = max([*seen[-3:], *at_looks])
    steady = series(rows, "ppo/kl_k1") or seen  # one far answer makes k3 leap, and not k1
    jump = max((later - earlier for earlier, later in pairwise(steady)), default=0.0)
    stopped = str(artifact.metrics.get("stopped") or "")
    said = (
        f"KL {seen[-1] if seen else at_looks[-1]:.2f} nats an answer at the end, {most:.2f} at most of the last iterations and the looks, budget {budget:g}; "
        f"largest rise in one iteration {jump:.2f}" + (f"; stopped: {stopped}" if stopped else "")
    )
    wanted = f"below {limits.kl_near:g} of the budget, and no rise by {limits.kl_jump:g} of it in one iteration"
    wrong = most >= limits.kl_near * budget or jump >= limits.kl_jump * budget or "KL" in stopped
    return HOT.found(name, wrong, said, wanted, most_nats=most, budget_nats=budget, jump_nats=jump, iterations=len(seen))


def _negative(name: str, rows: Sequence[Row], limits: Thresholds) -> Finding:
    seen, positive = series(rows, "ppo/kl_k1"), series(rows, "ppo/kl_k3")
    if not seen:
        return NEGATIVE.absent(name, "no ppo/kl_k1 in its log")
    late = mean(seen[len(seen) // 2 :])
    least = min(positive, default=0.0)
    said = f"k1 {gap(late)} nats an answer over the second half of {len(seen)} iterations, k3 {least:.3g} at least"
    wanted = f"no k1 whose interval lies below -{limits.kl_negative_nats:g}, no k3 below 0"
    wrong = high(late) < -limits.kl_negative_nats or least < -1e-4
    return NEGATIVE.found(name, wrong, said, wanted, k1=late, least_k3=least)


def _hacked(name: str, rows: Sequence[Row], looks: Sequence[Mapping[str, Any]], stopped: str, limits: Thresholds) -> Iterator[Finding]:
    """Trends of the reward and of each judge that is not trained on, over iterations and over looks; or that PPO said so itself."""
    if "guard" in stopped:
        yield HACKED.found(name, True, f"PPO stopped itself: {stopped}", "a guard that does not fall", stopped=stopped)
        return
    judged = [row for row in rows if "ppo/iteration" in row]
    places: tuple[tuple[str, Sequence[Mapping[str, Any]], str, str], ...] = (
        ("oracle", judged, "ppo/reward", "ppo/oracle"), ("guard", judged, "ppo/reward", "ppo/guard"),
        ("oracle at the looks", looks, "reward", "oracle"), ("guard at the looks", looks, "reward", "guard"),
    )  # fmt: skip
    measured = False
    for judge, points, ours, theirs in places:
        both = [
            (reward, other) for one in points
            if (reward := value_of(one.get(ours))) is not None and (other := value_of(one.get(theirs))) is not None
        ]  # fmt: skip
        if len(both) < LEAST_POINTS:
            continue
        measured = True
        rewards, others = ([pair[side] for pair in both] for side in (0, 1))
        up, down = trend(rewards), trend(others)
        (first, last), (before, after) = ends(rewards), ends(others)
        said = f"over {len(both)} points the reward goes from {first:.2f} to {last:.2f} (trend {up:+.1f}), the {judge} from {before:.2f} to {after:.2f} (trend {down:+.1f})"
        wanted = f"not one trend above {limits.trend:g} and the other below -{limits.trend:g} standard deviations"
        wrong = up > limits.trend and down < -limits.trend
        yield HACKED.found(name, wrong, said, wanted, judge=judge, reward_trend=up, judge_trend=down, points=len(both))
    if not measured:
        yield HACKED.absent(
            name, f"fewer than {LEAST_POINTS} iterations or looks with a judge beside the reward (an oracle, or a guard reward model)"
        )


def _entropy(name: str, rows: Sequence[Row], limits: Thresholds) -> Finding:
    seen = series(rows, "ppo/entropy")
    if len(seen) < 2:
        return ENTROPY.absent(name, "no two updates with ppo/entropy in its log")
    first, last = ends(seen)
    said = f"entropy {first:.3f} nats a token at the start, {last:.3f} at the end"
    wanted = f"at least {limits.entropy_left:g} of what it was"
    return ENTROPY.found(name, last < limits.entropy_left * first, said, wanted, first_nats=first, last_nats=last)


def _lengths(name: str, rows: Sequence[Row], limits: Thresholds) -> Finding:
    seen = series(rows, "ppo/answer_tokens")
    if len(seen) < 2:
        return LENGTH.absent(name, "no two iterations with ppo/answer_tokens in its log")
    first, last = ends(seen)
    factor = last / max(first, 1e-9)
    said = f"answers of {first:.1f} tokens at the start, {last:.1f} at the end"
    wrong = factor > limits.length_factor or factor < 1 / limits.length_factor
    return LENGTH.found(name, wrong, said, f"a change by no more than {limits.length_factor:g} times", first_tokens=first, last_tokens=last)


def _unfinished(name: str, rows: Sequence[Row], limits: Thresholds) -> Finding:
    seen = series(rows, "ppo/unfinished")
    if not seen:
        return UNFINISHED.absent(name, "no ppo/unfinished in its log")
    _, last = ends(seen)
    said = f"{last:.0%} of the answers of the last iterations are unfinished ({seen[0]:.0%} in the first)"
    return UNFINISHED.found(name, last > limits.unfinished, said, f"at most {limits.unfinished:.0%}", last=last, first=seen[0])


def _critic(name: str, rows: Sequence[Row]) -> Finding:
    seen = series(rows, "ppo/explained_variance")
    if len(seen) < FEWEST:
        return CRITIC.absent(name, f"{len(seen)} updates with ppo/explained_variance; a critic that began at zero needs {FEWEST} to show")
    late = seen[len(seen) // 2 :]
    found = sum(late) / len(late)
    said = f"explained variance {found:.2f} on average over the second half of {len(seen)} updates, {max(seen):.2f} at most"
    return CRITIC.found(name, found <= 0, said, "above 0", late=found, most=max(seen))


def _updates(rows: Sequence[Row]) -> list[float]:
    """Clip fractions of the updates after an iteration's first, whose ratios are 1 whatever happens."""
    return series([row for row in rows if "ppo/iteration" not in row], "ppo/clip_fraction")


def _clipped(name: str, rows: Sequence[Row], settings: Mapping[str, Any], limits: Thresholds) -> Finding:
    seen = _updates(rows)
    if not seen:
        return CLIPPED.absent(name, "one update for each iteration, in which nothing can be clipped" if rows else "no log of steps")
    found = sum(seen) / len(seen)
    said = f"{found:.1%} of the tokens of {len(seen)} updates are clipped"
    return CLIPPED.found(name, found > limits.clipped, said, f"at most {limits.clipped:.0%}", mean=found, most=max(seen))


def _still(name: str, rows: Sequence[Row], settings: Mapping[str, Any], limits: Thresholds) -> Finding:
    moved = series(rows, "ppo/kl_k3")
    if len(moved) < 2:
        return STILL.absent(name, "no two iterations with ppo/kl_k3 in its log")
    clipped = max(_updates(rows), default=0.0)
    said = f"KL {max(moved):.4f} nats at most over {len(moved)} iterations, clip fraction {clipped:.3f} at most"
    wanted = f"KL of {limits.kl_unmoved_nats:g} nats at some time, or a token that is clipped"
    return STILL.found(
        name, clipped == 0 and max(moved) < limits.kl_unmoved_nats, said, wanted, most_kl_nats=max(moved), most_clipped=clipped
    )


def _sampling_gap(name: str, rows: Sequence[Row], settings: Mapping[str, Any], limits: Thresholds) -> Finding:
    seen = series(rows, "ppo/sampling_gap_mean") or series(rows, "ppo/sampling_gap")
    if not seen:
        return GAP.absent(name, "no ppo/sampling_gap in its log")
    limit = value_of(settings.get("sampling_gap_nats")) or limits.sampling_gap_nats
    kind = "on average" if series(rows, "ppo/sampling_gap_mean") else "for any token"
    said = f"log-probabilities differ by {max(seen):.2g} nats {kind} in the worst of {len(seen)} iterations"
    return GAP.found(name, max(seen) > limit, said, f"at most {limit:g}", most_nats=max(seen), limit_nats=limit)


def _published(name: str, artifact: Artifact, looks: Sequence[Mapping[str, Any]]) -> Finding:
    published = artifact.metrics.get("published_iteration")
    if published is None or len(looks) < 2:
        return PUBLISHED.absent(name, "no two looks at held-out prompts")
    rewards = ", ".join("-" if (value := value_of(one.get("reward"))) is None else f"{value:.2f}" for one in looks)
    said = f"held-out reward at its looks: {rewards}; published: the policy after {published} iterations"
    return PUBLISHED.found(name, published == 0, said, "a later policy than the first", published_iteration=published)
