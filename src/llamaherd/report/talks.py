"""Sections of what models say: the same prompts answered by every version, and dialogues under an instruction given once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from ..measures.intervals import Figure
from . import paper
from .effects import ghost_turn, helpfulness
from .figures import Chart, Points, Table, line_chart, point_chart
from .folder import CONSTRAINTS, FIRST, RunFolder, as_figure, dig
from .pictures import attention_chart, attention_to_instruction
from .sections import Answer, Sample, Samples, Section

SHADES = "The deeper the colour, the larger the weight: its square root is drawn, so that small ones show."
SHOWN = 3
"""Prompts shown of each choice."""

Row = Mapping[str, Any]


def samples_section(run: RunFolder) -> Section:
    """Fixed prompts, then test prompts where the last version gained and lost most by the judge, then harmful ones, then harmless ones refused."""
    groups = [group for group in (_fixed(run), *_changed(run), _harmful(run), _refused(run)) if group]
    return Section("What the versions say", ["Every version answered the same prompts."] if groups else [], samples=groups)


def _fixed(run: RunFolder) -> Samples | None:
    answers: dict[str, list[Answer]] = {}
    for version, evaluation in run.evaluations.items():
        for sample in evaluation.get("samples", ()):
            answers.setdefault(sample["prompt"], []).append(Answer(run.label(version), sample["answer"]))
    samples = [Sample(prompt, said) for prompt, said in answers.items()]
    return Samples("Fixed prompts", "Always the same ones, answered greedily.", samples) if samples else None


def _changed(run: RunFolder) -> Iterable[Samples | None]:
    before, after = helpfulness(run, FIRST), helpfulness(run, run.last)
    change = {name: after[name] - before[name] for name in before if name in after}
    ranked = sorted(change, key=lambda name: (-change[name], name))
    better = [name for name in ranked[:SHOWN] if change[name] > 0]
    worse = [name for name in reversed(ranked[-SHOWN:]) if change[name] < 0]
    rule = f"The {{}} of the {len(change)} helpfulness prompts, by the {run.judge}, from {FIRST} to {run.last}; sampled answers, the {run.judge}'s score in front."
    yield _picked(run, f"Where {run.last} gained most", rule.format("largest rises"), better)
    yield _picked(run, f"Where {run.last} is worse", rule.format("deepest falls"), worse)


def _picked(run: RunFolder, title: str, rule: str, ids: Sequence[str]) -> Samples | None:
    samples = [_sample(run, "helpfulness", name) for name in ids]
    return Samples(title, rule, samples) if samples else None


def _harmful(run: RunFolder) -> Samples | None:
    single = [row for row in run.answers.get(run.last, ()) if row.get("task") == "safety" and row["turns"] == 1]
    rule = "The first of the single-turn harmful prompts in the order of their ids, which is that of chance; sampled answers."
    found = _first(run, "Harmful prompts", rule, single)
    return replace(found, folded="Prompts of red-team sets and what models answered; they may offend") if found and run.real else found


def _refused(run: RunFolder) -> Samples | None:
    asked = [row for row in run.answers.get(run.last, ()) if row.get("task") == "borderline"]
    refused = [row for row in asked if row["refusal"]]
    rule = f"{run.last} refuses {len(refused)} of {len(asked)} borderline prompts; the first of those in the order of their ids, sampled answers."
    return _first(run, "Harmless prompts that are refused", rule, refused)


def _first(run: RunFolder, title: str, rule: str, rows: Sequence[Row]) -> Samples | None:
    ids = sorted({str(row["id"]) for row in rows})[:SHOWN]
    return Samples(title, rule, [_sample(run, rows[0]["task"], name) for name in ids]) if ids else None


def _sample(run: RunFolder, task: str, name: str) -> Sample:
    prompt, answers = "", []
    for version, rows in run.answers.items():
        row = next((row for row in rows if row["id"] == name and row["task"] == task and row["mode"] == "sampled"), None)
        if row:
            prompt = str(row["prompt"])
            answers.append(Answer(run.label(version), str(row["answer"]), _mark(row)))
    return Sample(prompt, answers)


def _mark(row: Row) -> str:
    if row["task"] != "helpfulness" and row["refusal"]:
        return "refuses"
    if row["task"] == "safety":
        return "safe" if row["safe"] else "unsafe"
    return f"{row['score']:.2f}"


def ghost_section(run: RunFolder) -> Section:
    """Obedience by turn before and after Ghost Attention's rows joined the mix, where one dialogue looks, and what it says."""
    both = (run.before_ghost, run.with_ghost)
    charts = [chart for key in run.constraints if (chart := _by_turn(run, both, key))]
    pair = _one_dialogue(run, both)
    tables = []
    if pair:
        if looking := _looking(run, dict(zip(both, pair))):
            charts.append(looking)
        charts += [chart for version, one in zip(both, pair) if (chart := _looks(run, version, one))]
        tables.append(_side_by_side(run, both, pair))
    turn = ghost_turn(run)
    intro = [
        f"An instruction such as {'a word to mention or a language to answer in' if run.real else 'a hobby to mention or a figure to be'} is given once, before the first turn. {run.label(both[0])} is the last "
        f"version without Ghost Attention's rows in its tuning mix, {run.label(both[1])} the first with them; both were asked the same"
        + (f", up to turn {turn}." if turn else ".") + _sampled(run, both[1]),
        "The paper's numbers are of a human test on attributes of people. The maps are drawn like its figure 10: how much each part of one "
        "dialogue looks at each earlier one, the largest weight over all layers and heads, up to eight neighbouring tokens in one place.",
    ]  # fmt: skip
    return Section("Ghost Attention", intro if charts else [], charts, tables)


def _sampled(run: RunFolder, version: str) -> str:
    """How its answers were sampled, if its evaluation says so."""
    made = run.artifacts.get(f"{version}-evaluation")
    sampling = dig(made.manifest, "config", "ghost_sampling") if made else None
    return f" Answers are sampled at temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}." if sampling else ""


def _name(run: RunFolder, version: str) -> str:
    return f"{run.label(version)}, {'with' if version == run.with_ghost else 'without'}"


def _by_turn(run: RunFolder, both: Sequence[str], key: str) -> Chart | None:
    curves = {version: run.task(version, "ghost", key) or {} for version in both}
    turns = sorted({turn for curve in curves.values() for turn in curve}, key=int)
    series: dict[str, list[Figure | None]] = {
        _name(run, version): [as_figure(curve.get(turn)) for turn in turns] for version, curve in curves.items() if curve
    }
    known = [paper.GHOST_TURNS.get(int(turn), (None, None)) for turn in turns]
    greys = {"paper, without": [pair[0] for pair in known], "paper, with": [pair[1] for pair in known]}
    title = f"Obedience by turn, {CONSTRAINTS[key]}"
    return point_chart(title, turns, series, "turn", "share obeyed", paper=greys, connect=True) if any(map(any, series.values())) else None


def _one_dialogue(run: RunFolder, both: Sequence[str]) -> tuple[Row, Row] | None:
    """The first kept dialogue that both versions carried furthest, of the seen constraints before the held-out ones."""
    kept = [{(row["set"], row["id"]): row for row in run.evaluations.get(version, {}).get("dialogues", ())} for version in both]
    shared = [key for key in kept[0] if key in kept[1]]
    best = max(shared, key=lambda key: min(len(side[key]["messages"]) for side in kept), default=None)
    return (kept[0][best], kept[1][best]) if best else None


def _looks(run: RunFolder, version: str, one: Row) -> Chart | None:
    title = f"Where {_name(run, version)} Ghost Attention, looks"
    return attention_chart(title, one["bins"], one["attention"], SHADES) if one.get("bins") else None


def _looking(run: RunFolder, pair: Mapping[str, Row]) -> Chart | None:
    """How much each answer looks at the instruction, by turn."""
    series: dict[str, Points] = {}
    for version, one in pair.items():
        weights = attention_to_instruction(one.get("bins", ()), one.get("attention", ()))
        if weights:
            series[_name(run, version)] = [(float(turn), weight) for turn, weight in weights.items()]
    return line_chart("How much the answers look at the instruction", series, "turn", "largest attention weight") if series else None


def _side_by_side(run: RunFolder, both: Sequence[str], pair: tuple[Row, Row]) -> Table:
    """The dialogue as it went with each version; the user says the same, and obedience is marked where it was judged."""
    obeyed = [
        {row["turn"]: row["obeyed"] for row in run.answers.get(version, ()) if row.get("task") == "ghost" and row["id"] == one["id"]}
        for version, one in zip(both, pair)
    ]
    said = [[message["content"] for message in one["messages"] if message["role"] == "assistant"] for one in pair]
    users = max(([message["content"] for message in one["messages"] if message["role"] == "user"] for one in pair), key=len)
    instruction = pair[0]["messages"][0]["content"]
    rows = []
    for turn, user in enumerate(users, 1):
        cells = [_answer(answers[turn - 1] if turn <= len(answers) else None, marks.get(turn)) for answers, marks in zip(said, obeyed)]
        rows.append((str(turn), user, *cells))
    columns = ("turn", "the user", *(_name(run, version) for version in both))
    judged = ", ".join(str(turn) for turn in sorted(set().union(*obeyed)))
    caption = f"One dialogue under the instruction \u201c{instruction}\u201d, said once at its beginning; judged at turns {judged}"
    return Table(caption, columns, rows)


def _answer(text: str | None, obeyed: bool | None) -> Markup | str:
    if text is None:
        return "broke off"
    if obeyed is None:
        return text
    mark = Markup('<span class="chip {}">{}</span> ').format("shown" if obeyed else "not-shown", "obeys" if obeyed else "forgot")
    return mark + text
