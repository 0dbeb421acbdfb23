from llamaherd.checkpoints.card import model_card
from llamaherd.measures.intervals import nothing, rate
from llamaherd.model.config import ModelConfig

CONFIG = ModelConfig(dim=16, layers=2, heads=4, kv_heads=2, ffn=24, vocab_size=320, context=1024)
MADE = {"stage": "sft", "config": {"epochs": 2}, "parents": {"base": "ab" * 32, "world": "cd" * 32}, "seed": 7}


def test_what_a_card_says() -> None:
    facts = {"trained_tokens": 71000, "loss": 1.39935, "kl": rate(3, 10), "share": nothing(), "stopped": None, "looks": [1], "final": True}
    card = model_card("v3: chat model", "text-generation", CONFIG, 1234567, MADE, facts)
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# v3: chat model\n")
    for part in (
        "1,234,567 parameters: width 16, 2 layers, 4 heads that share 2 key-value heads,\nvocabulary 320, context 1,024 tokens.",
        "- stage: sft\n- from: base (abababababab), world (cdcdcdcdcdcd)\n- seed: 7\n",
        "- trained tokens: 71,000\n- loss: 1.399\n- kl: 0.3 (95% interval 0.108 to 0.603)\n- share: not measured\n- final: true\n",
        "## What it is for\n", "## Limits\n",
    ):  # fmt: skip
        assert part in card
    assert "looks" not in card
    assert "stopped" not in card
