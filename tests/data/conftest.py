import pytest
from hypothesis import settings

from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

# Times depend on who else uses the machine; they are no property of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def public_data(data):
    """Gives the path of a public data file, or skips the test."""

    def find(name):
        if not (data / name).is_file():
            pytest.skip(f"set LLAMAHERD_DATA to a folder that holds {name}")
        return data / name

    return find


WORDS = [
    "anna", "berta", "carl", "lives", "works", "likes", "in", "oslo", "rome",
    "paris", "as", "a", "baker", "nurse", "soup", "cake", "every", "day",
]  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer():
    """A small tokenizer for the words of these tests."""
    texts = [" ".join(WORDS[start:] + WORDS[:start]) for start in range(len(WORDS))]
    return train_tokenizer([*texts, "[INST] <<SYS>> <</SYS>> [/INST]"], TokenizerConfig(vocab_size=310))
