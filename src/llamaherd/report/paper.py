"""The paper's own numbers that stand beside ours, in grey. Read off a figure where marked, hence approximate."""

REWARD_ACCURACY = {
    "helpfulness": {"significantly": 0.807, "better": 0.675, "slightly": 0.609, "negligibly": 0.547, "all": 0.632},
    "safety": {"significantly": 0.943, "better": 0.763, "slightly": 0.657, "negligibly": 0.553, "all": 0.645},
}
"""Each reward model on its own test set (table 8)."""

REWARD_ACCURACY_OTHER = {
    "helpfulness": {"significantly": 0.899, "better": 0.732, "slightly": 0.638, "negligibly": 0.545, "all": 0.628},
    "safety": {"significantly": 0.646, "better": 0.575, "slightly": 0.538, "negligibly": 0.522, "all": 0.562},
}
"""Each reward model on the other domain's test set (table 8)."""

REWARD_ACCURACY_70B = (0.51, 0.634)
"""All pairs, from the first batch to the last of 14 (figure 6, read off)."""

GRADE_SHARES = {
    "batch 1": {"significantly": 0.183, "better": 0.277, "slightly": 0.29, "negligibly": 0.25},
    "batch 14": {"significantly": 0.09, "better": 0.213, "slightly": 0.312, "negligibly": 0.385},
}
"""Shares of the four grades in the first and the last weekly batch (figure 25, read off)."""

WIN_RATE = {
    "v0": (0.54, 0.48), "v1": (0.61, 0.48), "v2": (0.63, 0.45), "v3": (0.65, 0.54), "v4": (0.67, 0.59),
    "v5-rejection": (0.70, 0.67), "v5": (0.78, 0.76),
}  # fmt: skip
"""Helpful and harmless win rate against ChatGPT, Meta's reward models as judge (figure 11, read off); v0 is SFT-v2."""

WIN_RATE_GPT4 = {
    "v0": (0.34, 0.32), "v1": (0.42, 0.43), "v2": (0.42, 0.32), "v3": (0.48, 0.38), "v4": (0.48, 0.46),
    "v5-rejection": (0.55, 0.55), "v5": (0.67, 0.61),
}  # fmt: skip
"""The same with GPT-4 as judge (figure 11, read off)."""

GHOST_TURNS = {2: (1.0, 1.0), 4: (0.1, 1.0), 6: (0.0, 1.0), 20: (0.0, 1.0)}
"""Attributes remembered at a turn: baseline, with Ghost Attention (section 7, human test)."""

FALSE_REFUSAL_BORDERLINE = 0.272
"""Borderline prompts refused with all safety data (figure 33, read off)."""

VIOLATION_70B = {"all": 0.04, "single turn": 0.02, "multi turn": 0.085}
"""Violations of the 70B chat model (section 11, read off)."""

DISTILLED_REWARD_GAIN = 0.12
"""Median safety reward with a preprompt and answer template minus without (section 9, read off)."""

SAFETY_DATA = {
    "safety reward": {0: 0.680, 1: 0.693, 10: 0.724, 25: 0.739, 50: 0.762, 100: 0.773},
    "helpfulness reward": {0: 0.586, 1: 0.586, 10: 0.586, 25: 0.586, 50: 0.586, 100: 0.583},
    "false refusals": {0: 0.150, 1: 0.167, 10: 0.178, 25: 0.217, 50: 0.233, 100: 0.272},
}
"""Mean rewards and false refusals on borderline prompts over the percentage of the safety data (figures 15 and 33, read off)."""

SELF_BLEU_AT_1_4 = {
    "factual": {"v0": 0.77, "v1": 0.83, "v2": 0.88, "v3": 0.93},
    "creative": {"v0": 0.755, "v1": 0.80, "v2": 0.82, "v3": 0.85},
}
"""Self-BLEU of 25 answers at temperature 1.4 (figure 21, read off); v0 is SFT."""

LANGUAGES = {"en": 0.897, "unknown": 0.0838, "de": 0.0017, "fr": 0.0016, "sv": 0.0015, "zh": 0.0013, "es": 0.0013, "ru": 0.0013}
"""Shares of the documents, the eight largest of table 10."""

PRONOUNS = {
    "gendered": {"any": 0.7523, "she": 0.2845, "he": 0.5073, "unspecified": 0.8638},
    "person": {"any": 0.9447, "first": 0.7071, "second": 0.6180, "third": 0.9307},
}
"""Shares of the English documents; she, he and unspecified of those with any of the three (table 9)."""

TOXIC_DOCUMENTS = 0.002
"""Documents scored 0.5 or more by a trained classifier (section 4.1)."""

CO2_TONNES, GPU_HOURS = 539.0, 3_311_616
"""Pretraining of all sizes (table 2)."""

BENCHMARKS_7B = {
    "boolq": 0.774, "piqa": 0.788, "hellaswag": 0.772, "winogrande": 0.692, "arc-easy": 0.752, "arc-challenge": 0.459, "openbookqa": 0.586,
}  # fmt: skip
"""Accuracy of the 7B base model, without examples (table 20)."""
