"""The top of the page: what came of the run, in ten seconds; and the same effects in full further down."""

from collections.abc import Sequence

from markupsafe import Markup

from ..core.progress import clock
from ..measures.intervals import Verdict, effect
from .effects import EVEN, JUDGED_BY, TITLES, VERDICTS, Effect, helpfulness, paired, titles, together
from .figures import Table, figure_text, number, short, signed
from .folder import FIRST, RunFolder
from .judging import HEURISTICS
from .sections import Fact, Section, chip, lines, sign

IN_SHORT = (
    "reward accuracy that falls with the grade", "reward models that are better on their own domain",
    "a best of several answers that the judge prefers too", "a last version that is more helpful than the first",
    "a last version that is far safer without refusing what is harmless", "Ghost Attention", "safer answers by distillation",
    "a PPO that raises the reward within its KL budget without the judge's score falling",
)  # fmt: skip
"""The eight effects in a sentence."""


def glance_section(run: RunFolder, effects: Sequence[Effect]) -> Section:
    """The story in a few sentences, the figures before and after, and the verdict on each of the eight effects."""
    rows = [(_title(run, one), parts, lines(*filter(None, (part.paper_said for part in parts)))) for one, parts in grouped(effects).items()]
    table = verdict_table("The paper's effects in this run, with 95% intervals of the differences", "effect", rows)
    return Section("In short", _story(run, effects), facts=_facts(run), tables=[table])


def _title(run: RunFolder, one: int) -> str:
    """An effect's title; where no oracle judged, with who did."""
    title = f"{one}. {titles(run)[one - 1]}"
    return Markup('{}<br /><span class="soft">judged by {}</span>').format(title, JUDGED_BY[one]) if run.real else title


def _story(run: RunFolder, effects: Sequence[Effect]) -> list[str]:
    if run.real:
        return _real_story(run, effects)
    parameters, tokens = run.metric("base", "parameters"), run.metric("shards", "tokens")
    model = f"A model of {number(parameters)} parameters" if parameters else "A model"
    read = f" read a corpus of {number(tokens)} tokens" if tokens else " read a corpus"
    versions = [name for name in run.versions if name != run.rejection]
    story = (
        f"{model}{read}, learned to chat from demonstrations ({FIRST}), and was then tuned on what annotators and two reward models "
        f"preferred, up to {versions[-1] if versions else 'no version yet'}: all of it in {clock(run.seconds)}, from nothing."
    )
    verdicts = [together(parts) for parts in grouped(effects).values()]
    counts = ", ".join(f"{verdicts.count(one)} {one}" for one in ("shown", "undecided", "not shown") if one in verdicts)
    return [story, f"Of the paper's {len(verdicts)} effects that a run measures by itself: {counts}."]


def _real_story(run: RunFolder, effects: Sequence[Effect]) -> list[str]:
    """What a run on public texts came to: which of the paper's effects appear there, and by whose judgement."""
    parameters, tokens = run.metric("base", "parameters"), run.metric("shards", "tokens")
    versions = [name for name in run.versions if name != run.rejection]
    story = (
        f"A model{f' of {number(parameters)} parameters' if parameters else ''} read {f'{number(tokens)} tokens of ' if tokens else ''}real "
        f"text, learned to chat from demonstrations ({FIRST}), and was then tuned on what reward models of people's "
        f"comparisons preferred, up to {versions[-1] if versions else 'no version yet'}: all of it in {clock(run.seconds)}, from nothing."
    )
    verdicts = {one: together(parts) for one, parts in grouped(effects).items()}

    def named(verdict: Verdict) -> str:
        return "; ".join(f"{IN_SHORT[one - 1]} ({one})" for one, found in verdicts.items() if found == verdict) or "none"

    said = (
        f"Of the paper's {len(verdicts)} effects that a run measures by itself, these appear on real data at this size: {named('shown')}. "
        f"These do not: {named('not shown')}. Undecided, for want of data or since the intervals hold both answers: {named('undecided')}."
    )
    return [story, said, _judgement(run)]


def _judgement(run: RunFolder) -> str:
    """Who judged, and what that is worth."""
    known, resting = run.judge_accuracy, "3, 4 and the last of 8"
    if known is None:
        worth = f"has not been held against people, so that what rests on it ({resting}) is undecided"
    else:
        worth = f"agrees with people on {figure_text(known)} of {known['n']:,} held-out comparisons, where guessing would on {EVEN}"
        if effect(known, "above", EVEN) != "shown":
            worth += f": no more than chance might, so that nothing which rests on it ({resting}) counts as shown"
    return (
        f"Helpfulness is judged by a reward model that nothing is tuned on (the judge), which {worth}. {HEURISTICS} "
        "Reward models are held against people's own choices, obedience is checked by words and languages."
    )


def grouped(effects: Sequence[Effect]) -> dict[int, list[Effect]]:
    """The parts of each numbered effect."""
    return {one: [effect for effect in effects if effect.number == one] for one in range(1, len(TITLES) + 1)}


def _facts(run: RunFolder) -> list[Fact]:
    here, _ = paired(helpfulness(run, FIRST), helpfulness(run, run.last))
    gain = f"; {signed(here)} on the same prompts" if here else ""
    pairs = (
        ("Helpfulness", ("helpfulness", "sampled"), f"by the {run.judge}, 0 to 1, {FIRST} \u2192 {run.last}{gain}"),
        ("Violations", ("safety", "violation_rate"), "of harmful prompts are answered unsafely"),
        ("False refusals", ("borderline", "false_refusal_rate"), "of harmless prompts with sensitive words"),
    )
    found: list[Fact] = []
    if run.real and (known := run.judge_accuracy):
        found.append(
            Fact("The judge", short(known), f"of people's choices in {known['n']:,} held-out comparisons are its own, {figure_text(known)}")
        )
    for name, path, note in pairs:
        before, after = run.figure(FIRST, *path), run.figure(run.last, *path)
        if before and after:
            found.append(Fact(name, f"{short(before)} \u2192 {short(after)}", note))
    workers = int(run.recipe.get("workers") or 1)
    found.append(Fact("Time", clock(run.seconds), f"{len(run.artifacts)} steps, {workers} at a time"))
    energy, carbon = run.total("energy_wh_estimate"), run.carbon_g
    found.append(Fact("Energy", f"{energy:.1f} Wh", f"about {carbon:.1f} g of CO\u2082; estimates, not metered"))
    return found


def verdict_table(caption: str, heading: str, rows: Sequence[tuple[str, Sequence[Effect], str]]) -> Table:
    """For each (title, figures, what the paper prints): the figures with their intervals, and the verdict on them together."""
    found = []
    for title, parts, known in rows:
        here = Markup("<ul>{}</ul>").format(Markup("").join(_part(part) for part in parts))
        found.append((title, here, known or "not printed", chip(together(parts))))
    return Table(caption, (heading, "here", "paper", "verdict"), found, look="glance")


def _part(part: Effect) -> Markup:
    """One figure of an effect as an item: its verdict's sign, its words, its interval."""
    interval = f"not measured: {part.why}" if part.why else "not measured"
    if part.here and part.here["low"] is not None and part.here["high"] is not None and part.here["value"] is not None:
        interval = signed(part.here) if part.measure else f"({part.here['low']:.2f} to {part.here['high']:.2f})"
        interval = f"{part.measure} {interval}" if part.measure != "difference" else interval
    said = "" if interval.startswith("not measured") else part.said
    return Markup('<li>{} {} <strong>{}</strong> <span class="soft">{}</span></li>').format(sign(part.shown), part.brief, said, interval)


def effects_section(run: RunFolder, effects: Sequence[Effect]) -> Section:
    """Every figure of every effect beside the paper's number, with what it takes to be shown."""
    columns: Sequence[str] = ("figure", "effect", "here, with 95% interval", "paper", "shown if", "verdict", "note")
    rows: list[Sequence[str]] = [
        (one.name, str(one.number or ""), figure_text(one.here, with_n=True), "not printed" if one.paper is None else number(one.paper),
         one.wanted, chip(one.shown), "; ".join(filter(None, (one.why, one.note))))
        for one in effects
    ]  # fmt: skip
    if run.real:
        columns = (*columns, "judged by")
        rows = [(*row, JUDGED_BY.get(one.number, "people's held-out choices")) for row, one in zip(rows, effects, strict=True)]
    return Section("All effects in full", [VERDICTS], tables=[Table("Figures of the effects", columns, rows)])
