"""From where on the doctor calls a figure wrong, and why from there."""

from pydantic import Field

from ..core.config import Config
from ..measures.intervals import FEWEST


class Thresholds(Config):
    """Every figure is held against one of these; whole intervals, not middles, decide wherever there is an interval."""

    fewest: int = Field(FEWEST, ge=2)
    """Observations below which nothing is said of a share, as everywhere in this package: an interval of fewer is no interval."""
    chance: float = 0.5
    """Of a choice between two: a reward model or an annotator whose interval reaches down to it may as well guess."""
    fall_with_grade: float = 0.1
    """Accuracy on clear pairs (significantly, better) less that on unclear ones: the paper's falls by 0.4 (table 8), labels at random by 0;
    wrong where even the interval's upper end stays below this."""
    clear_enough: float = 0.9
    """Accuracy on clear pairs from which on there is nothing left to fall from: such comparisons are easy throughout."""
    longer_excess: float = 0.25
    """How much more often than the annotators a model may prefer the longer answer: models sharpen what annotators lean to by 0.1
    to 0.2 in healthy runs of the miniature."""
    longer_most: float = 0.85
    """Share of pairs in which the longer answer wins from which on length alone decides, for the model or in the comparisons."""
    miscalibration: float = 0.15
    """Mean confidence less accuracy, either way. Differences of scores are trained to be log-odds; margins push them apart, too few steps
    leave them together, and healthy runs of the miniature stay within this."""
    gate_fires: float = 0.2
    """Share of answers to harmless prompts under the gate's 0.15: each of them is rewarded for safety where help was asked for.
    Healthy runs of the miniature, whose answers are rude at times, have 0 to 0.13."""
    kl_near: float = 0.9
    """Share of the KL budget that is as good as over it: the next iteration may be."""
    kl_jump: float = 0.25
    """Share of the budget gained in one iteration: four like it spend it all, and no look comes in time."""
    kl_negative_nats: float = 0.05
    """Mean k1 below minus this, with its interval, is no noise: answers are not drawn from the policy that is trained."""
    kl_unmoved_nats: float = 0.01
    """A policy that is no further from its start after all iterations, and never clipped, has learned nothing."""
    trend: float = 1.96
    """Standard deviations of Mann and Kendall's test from which on a rise or a fall over iterations is no accident (95%)."""
    entropy_left: float = 0.2
    """Share of its entropy per token that a policy may come down to; reward is mostly gained by the first halving."""
    length_factor: float = 2.5
    """Answers that many times as long, or as short, as at the start say something else than was learned from people."""
    unfinished: float = 0.2
    """Share of answers cut off at the length limit. They get the lowest reward, and a fifth of them bends the whole batch."""
    never_ends: float = 0.9
    """Unfinished share from which on the end of sequence was not learned at all, rather than answers being long."""
    clipped: float = 0.3
    """Share of tokens outside the clip range, mean over the updates: most of the gradient is thrown away, the step is too large."""
    sampling_gap_nats: float = 0.1
    """Between the sampler's and the trainer's log-probability of a token, for runs that declare no limit of their own: half of what the
    clip range of 0.2 allows an update to do."""
    distinct: float = 0.15
    """Of the answers to one prompt after its first, the share that says something new (healthy runs of the miniature: 0.6). Below it,
    the best of K is a best of hardly two."""
    same: float = 0.5
    """Share of one and the same answer among all answers to different prompts; healthy runs of the miniature have up to 0.18."""
    leak: float = 0.01
    """Share of test prompts that are training prompts too. More are no accident of drawing."""
    grades_moved: float = 0.25
    """Share of comparisons that lie under another grade than in the batches before (half the sum of differences). The paper's own moved
    by 0.1 over its batches, as answers became better and closer."""
    grades_chi2: float = 16.27
    """And surely so: chi-square of four grades (three degrees of freedom) from which on chance alone does it once in 1,000 times."""
    most_dialogues: int = Field(100_000, ge=1)
    """Dialogues that are rendered again to see what was trained of them, for one model; more take too long."""
