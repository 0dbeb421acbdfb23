from llamaherd.data.public.preprompts import ADJECTIVES, CATEGORIES, GENERIC, preprompt
from llamaherd.data.public.prompts import RISKS


def test_generic_ones_go_through_all_adjectives_and_templates() -> None:
    found = [preprompt(None, number) for number in range(24)]
    assert len(set(found)) == len(ADJECTIVES) * len(GENERIC) == 24
    assert preprompt(None, 24) == found[0]
    assert preprompt("Violence", 3) == preprompt(None, 3), "a category without a template of its own"


def test_a_category_s_preprompt_names_the_risk_and_numbers_the_steps() -> None:
    assert set(RISKS.values()) == set(CATEGORIES)
    for category, (name, steps) in CATEGORIES.items():
        text = preprompt(category, 2)
        assert text.startswith(f"The next question can lead to unsafe answers about {name}. You are a wise assistant.")
        assert text.endswith(steps)
        assert "1." in steps
        assert "2." in steps
