"""What to watch in PPO: reward by domain, the judge, two estimates of the KL, clipping, critic, entropy, length, the looks."""

from collections.abc import Mapping, Sequence
from typing import Any

from .figures import Chart, Table, as_text, line_chart, number
from .folder import RunFolder
from .sections import Section, points_of

CHARTS = (
    ("PPO: reward while training", ("reward", "reward_helpfulness", "reward_safety"), "reward (logit)"),
    ("PPO: the {judge}'s score, which is never trained on", ("oracle",), "{judge}, 0 to 1"),
    ("PPO: distance from the starting policy", ("kl_k1", "kl_k3"), "nats per answer"),
    ("PPO: clipped tokens", ("clip_fraction",), "share of tokens"),
    ("PPO: explained variance of the critic", ("explained_variance",), "explained variance"),
    ("PPO: entropy", ("entropy",), "nats per token"),
    ("PPO: answer length", ("answer_tokens",), "tokens"),
    ("PPO: unfinished answers", ("unfinished",), "share of answers"),
    ("PPO: time by phase", ("seconds_sampling", "seconds_judging", "seconds_log_probs", "seconds_update"), "seconds per iteration"),
)
NAMES = {
    "reward": "all", "reward_helpfulness": "helpfulness prompts", "reward_safety": "safety prompts", "kl_k1": "estimate k1",
    "kl_k3": "estimate k3", "seconds_sampling": "sampling", "seconds_judging": "judging", "seconds_log_probs": "log-probabilities and values",
    "seconds_update": "update",
}  # fmt: skip


def is_ppo(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a training's log is PPO's."""
    return any(key.startswith("ppo/") for row in rows for key in row)


def ppo_section(run: RunFolder) -> Section:
    """The looks at held-out prompts, then every measure of the training; those that no chart is planned for as a table."""
    charts: list[Chart] = []
    tables: list[Table] = []
    intro = [
        f"Reward up while the {run.judge} falls would mean that the policy exploits the reward model; k1 and k3 are two estimates of one distance.",
    ]
    for name in run.artifacts:
        rows = run.training(name)
        if not is_ppo(rows):
            continue
        budget = run.metric(name, "kl_budget")
        charts += _looks(run, name, budget)
        for title, group, unit in ((title.format(judge=run.judge), group, unit.format(judge=run.judge)) for title, group, unit in CHARTS):
            series = {
                (NAMES | {"oracle": run.judge}).get(key, key.replace("_", " ")): points
                for key in group
                if (points := points_of(rows, f"ppo/{key}"))
            }
            if series:
                levels = {"KL budget": float(budget)} if budget is not None and "kl_k1" in group else {}
                charts.append(line_chart(title, series, "step", unit, levels=levels))
        tables += _others(rows)
        intro += _published(run, name)
    return Section("PPO health", intro if charts else [], charts, tables)


def _looks(run: RunFolder, name: str, budget: float | None) -> list[Chart]:
    """Reward and KL at every look at held-out prompts, the published policy marked."""
    looks: Sequence[Mapping[str, Any]] = run.metric(name, "looks") or []
    published = run.metric(name, "published_iteration")
    marked = ("published", float(published)) if published is not None else None
    reward = [(float(look["iteration"]), float(look["reward"])) for look in looks if look["reward"] is not None]
    kl = [(float(look["iteration"]), float(look["kl"]["value"])) for look in looks if look["kl"]["value"] is not None]
    judged = [(look["iteration"], look.get("guard", {}).get("value")) for look in looks]
    guard = {"guard": points} if (points := [(float(at), float(value)) for at, value in judged if value is not None]) else {}
    charts = (
        [line_chart("PPO: reward on held-out prompts", {"held-out": reward, **guard}, "iteration", "reward (logit)", marked=marked)]
        if reward
        else []
    )
    levels = {"KL budget": float(budget)} if budget is not None else {}
    title = "PPO: KL on held-out prompts"
    return charts + ([line_chart(title, {"held-out": kl}, "iteration", "nats per answer", levels=levels, marked=marked)] if kl else [])


def _published(run: RunFolder, name: str) -> list[str]:
    published, stopped = run.metric(name, "published_iteration"), run.metric(name, "stopped")
    if published is None:
        return []
    first, last = (as_text(run.metric(name, key)) for key in ("reward_first", "reward_last"))
    ended = f"Training stopped early: {stopped}." if stopped else "Training ran to its end."
    return [
        f"{name} is the policy after iteration {published} of {run.metric(name, 'iterations')}: of the looks within the KL budget, the one with the "
        f"highest held-out reward ({first} before PPO, {last} there). {ended}"
    ]


def _others(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Measures without a chart of their own, at the beginning and at the end."""
    keys = dict.fromkeys(key.removeprefix("ppo/") for row in rows for key in row if key.startswith("ppo/"))
    planned = {key for _, group, _ in CHARTS for key in group} | {"iteration"}
    found = {key: points for key in keys if key not in planned and (points := points_of(rows, f"ppo/{key}"))}
    cells = [(key.replace("_", " ").replace("/", ", "), number(points[0][1]), number(points[-1][1])) for key, points in found.items()]
    return [Table("Other measures of PPO", ("measure", "first", "last"), cells, folded=True)] if cells else []
