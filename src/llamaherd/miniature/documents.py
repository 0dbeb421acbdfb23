"""The pretraining corpus: short pages of named sources with addresses (section 2).

Held-out people and topics have pages like all others, but nobody asks about them: questions and answers stand in the
forum alone, which keeps to the training split.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..core.seeds import python_rng
from . import vocabulary
from .answers import Quality, answer, plain, story
from .constraints import all_constraints
from .language import LANGUAGES, translated
from .questions import HARMLESS, draw_request
from .world import STATEMENTS, Task, World, joined

FACTUAL_SOURCES: tuple[str, ...] = ("encyclopedia", "school")
"""Sources to up-sample."""
BLOCKED_HOSTS: tuple[str, ...] = ("phonebook.example",)
"""Hosts high in personal data."""
SHARES: dict[str, float] = {
    "encyclopedia": 0.35, "school": 0.10, "stories": 0.14, "forum": 0.14, "howto": 0.11,
    "phonebook": 0.02, "toxic": 0.04, "foreign": 0.06, "mirror": 0.04,
}  # fmt: skip
"""Source of a document: share of the corpus."""

_REWORDED: dict[str, str] = {
    "city": "The home of {} is {}.", "job": "The job of {} is {}.", "hobby": "For fun, {} does {}.",
    "pet": "{} lives with a {}.",
    "food": "{} eats {}.", "river": "The river of {} is the {}.", "sight": "In {}, visit the {}.",
}  # fmt: skip
_CARELESS: dict[Quality, float] = {"plain": 0.4, "terse": 0.2, "wrong": 0.1, "rude": 0.2, "good": 0.1}
_CAREFUL: dict[Quality, float] = {"good": 0.6, "plain": 0.4}
_COPIES_FROM = 500
"""How many of the latest documents a mirror can copy."""


@dataclass(frozen=True)
class _Writer:
    world: World
    rng: random.Random

    def _fact(self, name: str, attribute: str) -> str:
        value = {**self.world.facts, **self.world.cities}[name][attribute]
        return self.rng.choice((STATEMENTS, _REWORDED))[attribute].format(name, value)

    def encyclopedia(self) -> str:
        """One person or two (three or four facts), two cities, or a famous figure."""
        draw = self.rng.random()
        if draw < 0.88:
            names, facts = (self.rng.sample(self.world.people, 2), 2) if draw < 0.4 else ([self.rng.choice(self.world.people)], 3)
            chosen = [(name, attribute) for name in names for attribute in self.rng.sample(list(vocabulary.ATTRIBUTES), facts)]
            return " ".join(self._fact(name, attribute) for name, attribute in chosen)
        if draw < 0.97:
            cities = self.rng.sample(list(self.world.cities), 2)
            return " ".join(self._fact(city, self.rng.choice(list(vocabulary.CITY_ATTRIBUTES))) for city in (*cities, cities[0]))
        value = {
            kind: self.rng.choice([item.value for item in all_constraints() if item.kind == kind]) for kind in ("figure", "hobby", "word")
        }
        return f"{value['figure']} is a famous figure who would love {value['hobby']} and the {value['word']}."

    def school(self) -> str:
        """Three sums, or a list and a sum."""
        sums = [plain(self.rng.choice(self.world.tasks["arithmetic"]), self.rng) for _ in range(3)]
        if self.rng.random() < 0.7:
            return " ".join(sums)
        return f"{plain(self.rng.choice(self.world.tasks['list']), self.rng)} {sums[0]}"

    def stories(self) -> str:
        """Stories, most of them about somebody or something of which nothing but the story tells: what a name is, it repeats."""
        draw, other = self.rng.random(), self.rng.choice(self.world.people)
        if draw < 0.4:
            return plain(self.rng.choice(self.world.tasks["story"]), self.rng)
        word, figure, pastime = (self.rng.choice(values) for values in (vocabulary.THINGS, vocabulary.FIGURES, vocabulary.PASTIMES))
        return self.rng.choice((
            story(word, self.rng),
            f"{other} wrote the word {word}. The teacher read {word}. And {word} it was.",
            f"{figure} met {other}. {other} said to {figure}: try {pastime}. So {figure} went for {pastime}, and {pastime} was fun.",
            f"{other} plays {figure}. On the stage {other} says: I am {figure}. And {figure} bows.",
            f"A friend of {other} was good at {pastime}. I love {pastime}, said {other}.",
        ))  # fmt: skip

    def forum(self) -> str:
        """A question and its answer; the careless comply with anything, the careful refuse what is harmful."""
        request = draw_request(self.world, self.rng, "train", {**HARMLESS, "harmful": 0.2})
        careful = self.rng.random() < 0.5
        qualities = _CAREFUL if careful else _CARELESS
        quality = self.rng.choices(list(qualities), list(qualities.values()))[0]
        if careful and request.task.kind == "harmful":
            quality = "refusal"
        return f"Question: {request.text} Answer: {answer(request, quality, self.rng)}"

    def _page(self, task: Task) -> str:
        if self.rng.random() < 0.5:
            return plain(task, self.rng)
        return f"How to {task.topic}: take {joined(task.right)}."

    def howto(self) -> str:
        """Two pages of how-to topics, harmless or borderline."""
        tasks = self.rng.sample(self.world.tasks["howto"] + self.world.tasks["borderline"], 2)
        return " ".join(self._page(task) for task in tasks)

    def toxic(self) -> str:
        """Harmful instructions and insults."""
        insult = self.rng.choice(
            (self.rng.choice(vocabulary.RUDE), f"People from {self.rng.choice(list(self.world.cities))} are stupid fools.")
        )
        first, second = (self._page(task) for task in self.rng.sample(self.world.tasks["harmful"], 2))
        return " ".join(self.rng.choice(((first, second), (first, insult), (insult, second), (first, insult, second))))

    def phonebook(self) -> str:
        """Personal data, invented and of nobody: what the block list is for."""
        name, place = self.rng.choice(self.world.people), self.rng.choice(vocabulary.COLORS).capitalize()
        return f"{name}, {self.rng.randint(1, 99)} {place} Street, phone 555 {self.rng.randint(0, 9999):04d}."

    def foreign(self) -> str:
        """Encyclopedia and stories in a toy language, half of them in that of the non-English attack."""
        language = LANGUAGES[0] if self.rng.random() < 0.5 else self.rng.choice(LANGUAGES[1:])
        return f"In {language}: {translated(self.rng.choice((self.encyclopedia, self.stories))(), language)}"


def _copied(row: dict[str, str], rng: random.Random) -> str:
    """A document as a mirror shows it: the same, or changed in its marks only."""
    return rng.choice((row["text"], row["text"].replace(".", "!"), f"- {row['text']} -"))


def documents(world: World, count: int, seed: int) -> Iterator[dict[str, str]]:
    """`count` rows {"text", "source", "url"}; the first n do not depend on how many follow."""
    rng = python_rng(world.config.seed, "miniature", "documents", seed)
    writer = _Writer(world, rng)
    write: dict[str, Callable[[], str]] = {source: getattr(writer, source) for source in SHARES if source != "mirror"}
    sources, shares = list(SHARES), list(SHARES.values())
    latest: list[dict[str, str]] = []
    for index in range(count):
        source = rng.choices(sources, shares)[0]
        if source == "mirror" and not latest:
            source = "encyclopedia"
        text = _copied(rng.choice(latest), rng) if source == "mirror" else write[source]()
        row = {"text": text, "source": source, "url": f"https://{source}.example/{index}"}
        if source not in ("mirror", "phonebook"):
            latest.append(row)
            del latest[:-_COPIES_FROM]
        yield row
