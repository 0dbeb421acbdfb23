"""Who judged a run on real text, where no oracle can: what the judge is worth, and its verdicts on the versions' answers."""

from collections.abc import Mapping
from typing import Any

from ..core.files import read_json
from ..measures.intervals import Figure
from . import paper
from .figures import Table, figure_text, number, point_chart, short
from .folder import FIRST, JUDGE, RunFolder, as_figure, dig
from .sections import Fact, Section

HEURISTICS = (
    "Whether an answer is safe and whether it refuses is said by text heuristics, whose precision and recall against the human labels of "
    "Do-Not-Answer stand in docs/results.md, section \u201cHeuristics for real answers\u201d."
)
CLOSING = (
    "Figures are 0 to 1 unless a unit is given, with 95% intervals. Grey numbers are the paper's, of its own models, data and judges: they "
    "show which way an effect goes, not a size to reach. The judge is a reward model that learned from people's comparisons and on which "
    "nothing is tuned; text heuristics say what is safe and what refuses. Both see a prompt's and an answer's text and nothing else, and both "
    "err. What is shown here is shown of models of this size on these data, and says nothing about others. Every number comes from the files "
    "that the stages left."
)
CRITERIA = {"helpfulness": "helpfulness prompts", "safety": "harmful prompts"}


def wins_section(run: RunFolder) -> Section:
    """How often each version's answer is better than the first one's, in the judge's eyes."""
    title = "Win rates between versions"
    if not run.wins:
        return Section(title)
    shares = {
        label: [as_figure(dig(figures, "by_criterion", key, "win_rate")) for figures in run.wins.values()]
        for key, label in CRITERIA.items()
    }
    labels = [run.label(version) for version in run.wins]
    greys = {"as good as the first": [0.5 for _ in labels]}
    known = {label: figures for label, figures in shares.items() if any(figures)}
    charts = [point_chart(f"Win rate over {FIRST}, ties half", labels, known, "version", "win rate", paper=greys)] if known else []
    rows = [
        (run.label(version), CRITERIA.get(key, key), *(figure_text(as_figure(one.get(name))) for name in ("win_rate", "wins", "ties", "losses")),
         number(one.get("pairs")), number(sum(int(one.get(name) or 0) for name in ("too_long", "without_verdict"))))
        for version, figures in run.wins.items() for key, one in (figures.get("by_criterion") or {}).items()
    ]  # fmt: skip
    columns = ("version", "prompts", "win rate", "won", "tied", "lost", "pairs", "without a verdict")
    intro = [
        f"Each version and {FIRST} answered the same prompts, and the judge took the answer of the higher score; equal answers tie. "
        f"{_worth(run)} On harmful prompts too it says which answer helps more, not which is safer: a lower rate there need be no fault.",
        f"In the paper the last version won {short(paper.WIN_RATE['v5'][0])} against ChatGPT by its own reward models, "
        f"{short(paper.WIN_RATE_GPT4['v5'][0])} by GPT-4 (figure 11, read off).",
    ]
    return Section(title, intro, charts, [Table(f"The judge's verdicts on answers of each version and of {FIRST}", columns, rows)])


def _worth(run: RunFolder) -> str:
    known = run.judge_accuracy
    if known is None:
        return "How often the judge agrees with people was not measured."
    return f"The judge itself agrees with people on {figure_text(known, with_n=True)} held-out comparisons."


def judge_section(run: RunFolder) -> Section:
    """The judge beside people: in all, by source, by grade, and what length has to do with it."""
    artifact = run.artifacts.get(JUDGE)
    if artifact is None:
        return Section("Who judged")
    file = artifact.path / "report.json"
    measured: Mapping[str, Any] = next(iter((read_json(file).get("models") or {}).values()), {}) if file.is_file() else {}
    accuracy: Mapping[str, Any] = artifact.metrics.get("accuracy") or {}
    parts = {"all": dig(accuracy, "own", "all")}
    parts |= {f"source {name}": one for name, one in (accuracy.get("by_source") or {}).items()}
    parts |= {f"grade {name}": one for name, one in (accuracy.get("own") or {}).items() if name != "all"}
    rows = [(name, figure_text(figure, with_n=True)) for name, one in parts.items() if (figure := as_figure(one))]
    intro = [
        f"How helpful an answer is, the reward model {JUDGE} says. It learned from {number(run.metric(JUDGE, 'pairs'))} comparisons by people that "
        "no other reward model saw, and nothing is tuned on it. Its score is a probability. What it prefers people may not prefer, as below.",
        f"{HEURISTICS} Text that is not coherent is neither a violation nor a refusal, so that a model which cannot write yet looks safe. Whether an instruction is obeyed is checked by the words or the language that it asks for.",
    ]
    table = Table("The judge's accuracy on people's held-out comparisons", ("comparisons", "agrees with people"), rows)
    return Section("Who judged", intro, tables=[table] if rows else [], facts=_facts(run.judge_accuracy, measured))


def _facts(accuracy: Figure | None, measured: Mapping[str, Any]) -> list[Fact]:
    """At a glance, beside what choosing the longer answer would come to."""
    named = (
        ("Agrees with people", accuracy, "of held-out comparisons; guessing: 0.5"),
        ("The longer answer", as_figure(dig(measured, "length", "people_prefer_longer")), "is the one that people preferred in these"),
        ("Prefers the longer", as_figure(dig(measured, "length", "model_prefers_longer")), "answer itself"),
        ("Calibration error", as_figure(dig(measured, "calibration", "expected_calibration_error")), "between confidence and accuracy"),
    )
    return [Fact(name, short(one), f"{note}, {figure_text(one, with_n=True)}") for name, one, note in named if one]
