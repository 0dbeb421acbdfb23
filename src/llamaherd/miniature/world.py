"""The world: who lives where, what is asked about it, and what a right answer must say. All of it follows from one seed."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

from pydantic import Field, model_validator

from ..core.config import Config
from ..core.seeds import python_rng
from . import vocabulary
from .language import LANGUAGES, misspelled, words

Kind = Literal["facts", "howto", "borderline", "arithmetic", "list", "story", "harmful"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Category = Literal["illicit", "hateful", "advice"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
HOWTO_KINDS: tuple[Kind, ...] = ("howto", "borderline", "harmful")

QUESTIONS: dict[str, tuple[str, ...]] = {
    "city": ("Where does {} live?", "Which city is the home of {}?"),
    "job": ("What is the job of {}?", "What work does {} do?"),
    "hobby": ("What is the hobby of {}?", "What does {} do for fun?"),
    "pet": ("What pet does {} have?", "Which animal lives with {}?"),
    "food": ("What food does {} like?", "What does {} eat?"),
    "river": ("Which river runs through {}?", "What is the river of {}?"),
    "sight": ("What is {} known for?", "What can I visit in {}?"),
    "howto": ("How do I {}?", "How can I {}?", "What do I need to {}?"),
    "arithmetic": ("What is {}?", "How much is {}?"),
    "list": ("Name {}.", "Can you list {}?"),
    "story": ("Tell me a story about a {}.", "Write a short story about a {}."),
}
STATEMENTS: dict[str, str] = {
    "city": "{} lives in {}.", "job": "{} works as a {}.", "hobby": "{} enjoys {}.", "pet": "{} has a {}.",
    "food": "{} likes {}.",
    "river": "{} lies on the {}.", "sight": "{} is known for the {}.",
    "howto": "To {}, you need {}.", "arithmetic": "{} is {}.", "list": "{} are {}.",
}  # fmt: skip


class WorldConfig(Config):
    seed: int = 0
    """Draws the facts, and who and what is held out."""
    people: int = Field(default=48, ge=4, le=len(vocabulary.NAMES))
    """People with a page in the encyclopedia."""
    unasked_people: int = Field(default=12, ge=1)
    """Of these, people whom only documents and test prompts name."""
    borderline_topics: int = Field(default=len(vocabulary.BORDERLINE), ge=2, le=len(vocabulary.BORDERLINE))
    """How-to topics with sensitive words and a benign meaning."""
    unseen_borderline: int = Field(default=16, ge=1)
    """Of these, topics that only documents and test prompts name."""
    unseen_harmful: int = Field(default=3, ge=1, le=9)
    """Harmful topics of each risk category that only documents and test prompts name."""
    unseen_values: int = Field(default=16, ge=8, le=24)
    """Words, figures and pastimes of constraints that only documents and test dialogues name, of each kind; of languages an eighth."""
    undrilled_values: int = Field(default=16, ge=8, le=24)
    """As many that demonstrations obey, but no dialogue of Ghost Attention."""
    largest_number: int = Field(default=12, ge=2, le=20)
    """Largest number that is added or subtracted."""

    @model_validator(mode="after")
    def _some_of_each(self) -> "WorldConfig":
        if self.unasked_people >= self.people:
            raise ValueError(f"unasked_people {self.unasked_people} must be fewer than people {self.people}")
        if self.unseen_borderline >= self.borderline_topics:
            raise ValueError(f"unseen_borderline {self.unseen_borderline} must be fewer than borderline_topics {self.borderline_topics}")
        return self


@dataclass(frozen=True)
class Task:
    """One thing that can be asked, in several wordings, and how an answer to it is checked."""

    kind: Kind
    topic: str
    questions: tuple[str, ...]
    form: str
    """Sentence that answers it, with {} for what is looked for (empty for stories)."""
    right: tuple[str, ...]
    """What is looked for: the value, the nouns, the sum, the members of a list's category, a story's subject."""
    rivals: tuple[str, ...]
    """What a wrong answer would say in its place."""
    subject: tuple[str, ...]
    """Words that a full sentence of an answer repeats."""
    count: int = 1
    """How many of `right` are asked for."""
    category: Category | None = None
    seen: bool = True
    """Whether questions about it may stand in training data."""
    people: Literal["asked", "unasked"] | None = None


def joined(items: list[str] | tuple[str, ...]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def _questions(sort: str, about: str) -> tuple[str, ...]:
    return tuple(question.format(about) for question in QUESTIONS[sort])


class World:
    """Everything that is true in the miniature, and the tasks that ask for it. Two worlds of equal config are equal."""

    def __init__(self, config: WorldConfig | None = None):
        self.config = config or WorldConfig()
        self.people = vocabulary.NAMES[: self.config.people]
        rng = python_rng(self.config.seed, "miniature", "facts")
        self.facts: dict[str, dict[str, str]] = {
            name: {attribute: rng.choice(values) for attribute, values in vocabulary.ATTRIBUTES.items()} for name in self.people
        }
        shuffled = {attribute: rng.sample(values, len(values)) for attribute, values in vocabulary.CITY_ATTRIBUTES.items()}
        self.cities: dict[str, dict[str, str]] = {
            city: {attribute: values[index] for attribute, values in shuffled.items()}
            for index, city in enumerate(vocabulary.ATTRIBUTES["city"])
        }
        unasked = set(self._held_out("people", self.people, self.config.unasked_people))
        self.asked = tuple(name for name in self.people if name not in unasked)
        self.unasked = tuple(name for name in self.people if name in unasked)
        self.unseen_values, self.undrilled_values = self._constraint_values()
        self.tasks: dict[Kind, tuple[Task, ...]] = {
            "facts": tuple(self._facts()), "howto": self._howtos("howto", vocabulary.HARMLESS, 0),
            "borderline": self._howtos("borderline", self._borderline(), self.config.unseen_borderline),
            "arithmetic": tuple(self._sums()), "list": tuple(self._lists()), "story": tuple(self._stories()),
            "harmful": tuple(
                task for category in CATEGORIES
                for task in self._howtos("harmful", vocabulary.HARMFUL[category], self.config.unseen_harmful, category)
            ),
        }  # fmt: skip
        self.trained = {kind: tuple(task for task in tasks if task.seen) for kind, tasks in self.tasks.items()}
        self.held_out = {kind: tuple(task for task in tasks if not task.seen) for kind, tasks in self.tasks.items()}

    @cached_property
    def by_question(self) -> dict[str, tuple[Task, bool]]:
        """Every wording of every question, spelled well and badly: its task, and whether it is misspelled."""
        tasks = [task for kind in KINDS for task in self.tasks[kind]]
        found = {misspelled(question): (task, True) for task in tasks for question in task.questions}
        return found | {question: (task, False) for task in tasks for question in task.questions}

    @cached_property
    def nouns(self) -> frozenset[str]:
        """All nouns that answer how-to questions, harmful ones included."""
        return frozenset(noun for kind in HOWTO_KINDS for task in self.tasks[kind] for noun in task.right)

    @cached_property
    def harmful_nouns(self) -> frozenset[str]:
        return frozenset(noun for task in self.tasks["harmful"] for noun in task.right)

    def _held_out(self, name: str, items: tuple[str, ...], count: int) -> list[str]:
        return python_rng(self.config.seed, "miniature", "held out", name).sample(items, count)

    def _constraint_values(self) -> tuple[frozenset[str], frozenset[str]]:
        """Those that no training data asks for, and those that Ghost Attention's does not."""
        unseen, undrilled = set[str](), set[str]()
        kinds = {"words": vocabulary.THINGS, "figures": vocabulary.FIGURES, "pastimes": vocabulary.PASTIMES, "languages": LANGUAGES[1:]}
        for name, values in kinds.items():
            first, second = self.config.unseen_values, self.config.undrilled_values
            if name == "languages":
                first, second = first // 8, second // 8
            drawn = self._held_out(name, values, first + second)
            unseen.update(drawn[:first])
            undrilled.update(drawn[first:])
        return frozenset(unseen), frozenset(undrilled)

    def _borderline(self) -> dict[str, str]:
        return dict(list(vocabulary.BORDERLINE.items())[: self.config.borderline_topics])

    def _facts(self) -> list[Task]:
        tasks = []
        for table, ranges in ((self.facts, vocabulary.ATTRIBUTES), (self.cities, vocabulary.CITY_ATTRIBUTES)):
            for name, facts in table.items():
                people: Literal["asked", "unasked"] | None = None
                if table is self.facts:
                    people = "asked" if name in self.asked else "unasked"
                for attribute, value in facts.items():
                    rivals = tuple(other for other in ranges[attribute] if other != value)
                    form = STATEMENTS[attribute].format(name, "{}")
                    tasks.append(Task("facts", f"{attribute} of {name}", _questions(attribute, name), form, (value,), rivals,
                                      (name.lower(),), seen=people != "unasked", people=people))  # fmt: skip
        return tasks

    def _howtos(self, kind: Kind, topics: dict[str, str], unseen: int, category: Category | None = None) -> tuple[Task, ...]:
        held_out = set(self._held_out(category or kind, tuple(topics), unseen))
        everything = sorted({noun for nouns in topics.values() for noun in nouns.split()})
        tasks = []
        for action, nouns in topics.items():
            right = tuple(nouns.split())
            rivals = tuple(noun for noun in everything if noun not in right and noun not in words(action))
            form = STATEMENTS["howto"].format(action, "{}")
            task = Task(kind, action, _questions("howto", action), form, right, rivals, tuple(words(action)), len(right))
            tasks.append(replace(task, category=category, seen=action not in held_out))
        return tuple(tasks)

    def _sums(self) -> list[Task]:
        numbers = range(self.config.largest_number + 1)
        sums = [(f"{a} plus {b}", a + b) for a in numbers for b in numbers]
        sums += [(f"{a} minus {b}", a - b) for a in numbers for b in numbers if b <= a]
        tasks = []
        for text, result in sums:
            rivals = tuple(str(result + shift) for shift in (-2, -1, 1, 2) if result + shift >= 0)
            form = STATEMENTS["arithmetic"].format(text, "{}")
            tasks.append(Task("arithmetic", text, _questions("arithmetic", text), form, (str(result),), rivals, tuple(words(text))))
        return tasks

    def _lists(self) -> list[Task]:
        plurals = {"cities": "city", "jobs": "job", "hobbies": "hobby", "pets": "pet", "foods": "food"}
        members = {plural: vocabulary.ATTRIBUTES[name] for plural, name in plurals.items()} | {"colors": vocabulary.COLORS}
        tasks = []
        for plural, items in members.items():
            for count, word in vocabulary.COUNTS.items():
                about = f"{word} {plural}"
                form = STATEMENTS["list"].format(about.capitalize(), "{}")
                tasks.append(Task("list", about, _questions("list", about), form, items, (), (plural,), count))
        return tasks

    def _stories(self) -> list[Task]:
        subjects = (*vocabulary.ATTRIBUTES["pet"], *vocabulary.ATTRIBUTES["job"])
        tasks = []
        for subject in subjects:
            rivals = tuple(other for other in subjects if other != subject)
            tasks.append(Task("story", subject, _questions("story", subject), "", (subject,), rivals, (subject,)))
        return tasks
