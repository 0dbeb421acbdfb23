"""What each claim needs beyond the run, in the order of the ledger; `report/claims` says what is read from it.

Names of artifacts are the claim's own. What differs between two that are compared is what the call here changes.
"""

from pathlib import Path

from ..config import RecipeConfig
from ..steps import Step
from .variants import Variants

ALL = 1e9
"""A share that takes all there are."""


def joint_reward(plan: Variants) -> None:
    """One reward model on all comparisons of both domains, with the safety model's auxiliary loss."""
    plan.add("joint-reward", f"v{plan.last}-safety", other_share=ALL)


def margins(plan: Variants) -> None:
    """The helpfulness reward model with the margins that the recipe's does not have."""
    for margin in ("none", "small", "large"):
        if margin != plan.recipe.helpfulness.margin:
            plan.add(f"margin-{margin}", f"v{plan.last}-helpfulness", margin=margin)


def auxiliary_loss(plan: Variants) -> None:
    """The safety reward model without its auxiliary loss."""
    plan.add("no-auxiliary", f"v{plan.last}-safety", safety_weight=0.0)


def fresh_preferences(plan: Variants) -> None:
    """Reward models that learn from the first or from the newest batch alone, equally many comparisons, tested on the newest."""
    newest = plan.of_run(f"v{plan.last}-preferences")
    for domain in ("helpfulness", "safety"):
        for name, batch in (("stale", plan.of_run("v1-preferences")), ("fresh", newest)):
            plan.add(f"{name}-{domain}", f"v{plan.last}-{domain}", data=[batch], test=[newest], most_pairs=plan.settings.batch_pairs)


CLAIMS = (joint_reward, margins, auxiliary_loss, fresh_preferences)


def claim_steps(recipe: RecipeConfig, run: Path) -> list[Step]:
    """All steps of the claims about one run, which must be finished first; their settings are built, and so checked, here."""
    plan = Variants(recipe, run)
    for claim in CLAIMS:
        claim(plan)
    return plan.steps
