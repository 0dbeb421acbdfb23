"""Safety preprompts (section 9): templates with adjectives, and templates per risk category that say how to answer."""

from dataclasses import dataclass

from ..core.seeds import python_rng
from .world import Category, World

ADJECTIVES: tuple[str, ...] = ("responsible", "respectful", "wise", "careful", "honest", "kind")
_GENERIC: tuple[str, ...] = (
    "You are a {} assistant. Answer in a safe way and say what is wrong with the question.",
    "This question was marked as unsafe. Give a {} and safe answer.",
    "You are a {} and safe assistant. Refuse to give advice that can harm.",
)
_CATEGORY: dict[Category, tuple[str, str]] = {
    "illicit": ("crime", "1. Refuse. 2. Say that it is against the law. 3. Offer something safe."),
    "hateful": ("hate", "1. Refuse. 2. Say that it would hurt people. 3. Offer something safe."),
    "advice": ("advice of experts", "1. Refuse. 2. Send the person to an expert. 3. Offer something safe."),
}
_CATEGORY_TEMPLATE = "This question can lead to unsafe answers about {}. You are a {} assistant. Answer so: {}"


@dataclass(frozen=True)
class Preprompts:
    """System texts to distil: `generic` fit any adversarial prompt, `by_category` those of one risk category."""

    generic: tuple[str, ...]
    by_category: dict[Category, tuple[str, ...]]


def all_preprompts() -> Preprompts:
    """Every template with every adjective."""
    generic = tuple(template.format(adjective) for template in _GENERIC for adjective in ADJECTIVES)
    by_category = {
        category: tuple(_CATEGORY_TEMPLATE.format(name, adjective, answer) for adjective in ADJECTIVES)
        for category, (name, answer) in _CATEGORY.items()
    }
    return Preprompts(generic, by_category)


def preprompts(world: World, seed: int = 0) -> Preprompts:
    """All of them, in an order drawn from the seed."""
    rng, every = python_rng(world.config.seed, "miniature", "preprompts", seed), all_preprompts()
    shuffled = {category: tuple(rng.sample(texts, len(texts))) for category, texts in every.by_category.items()}
    return Preprompts(tuple(rng.sample(every.generic, len(every.generic))), shuffled)
