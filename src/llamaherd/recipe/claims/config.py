"""How much is made for the claims."""

from pydantic import Field

from ...core.config import Config


class ClaimsConfig(Config):
    """What `llamaherd claims` makes beyond the runs; everything else is as in the recipe."""

    batch_pairs: int = Field(400, ge=1)
    """Comparisons of a reward model that learns from one batch alone; of fewer all are taken."""
