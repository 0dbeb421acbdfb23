"""The paper's own numbers that stand beside ours, in grey. Read off a figure where marked, hence approximate."""

REWARD_ACCURACY = {
    "helpfulness": {"significantly": 0.807, "better": 0.675, "slightly": 0.609, "negligibly": 0.547, "all": 0.632},
    "safety": {"significantly": 0.943, "better": 0.763, "slightly": 0.657, "negligibly": 0.553, "all": 0.645},
}
"""Each reward model on its own test set (table 8)."""

REWARD_ACCURACY_OTHER = {"helpfulness": 0.628, "safety": 0.562}
"""Each reward model on the other domain's test set, all grades (table 8)."""

WIN_RATE = {
    "v0": (0.54, 0.48), "v1": (0.61, 0.48), "v2": (0.63, 0.45), "v3": (0.65, 0.54), "v4": (0.67, 0.59),
    "v5-rejection": (0.70, 0.67), "v5": (0.78, 0.76),
}  # fmt: skip
"""Helpful and harmless win rate against ChatGPT, Meta's reward models as judge (figure 11, read off); v0 is SFT-v2."""

GHOST_TURNS = {2: (1.0, 1.0), 4: (0.1, 1.0), 6: (0.0, 1.0), 20: (0.0, 1.0)}
"""Attributes remembered at a turn: baseline, with Ghost Attention (section 7, human test)."""

FALSE_REFUSAL_BORDERLINE = 0.272
"""Borderline prompts refused with all safety data (figure 33, read off)."""

VIOLATION_70B = {"all": 0.04, "single turn": 0.02, "multi turn": 0.085}
"""Violations of the 70B chat model (section 11, read off)."""

DISTILLED_REWARD_GAIN = 0.12
"""Median safety reward with a preprompt and answer template minus without (section 9, read off)."""
