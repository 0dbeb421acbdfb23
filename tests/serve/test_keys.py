"""Keys: made once, kept as hashes, ended at once."""

import hashlib
import json
import stat

import pytest

from llamaherd.core.errors import UserError
from llamaherd.serve.keys import Keys


def test_a_key_opens_until_it_is_removed_and_only_its_hash_is_kept(tmp_path) -> None:
    state = tmp_path / "deep" / "state"
    key, at_work = Keys(state).add("ann"), Keys(state)
    assert at_work.owner(key.encode()) == "ann"
    other = Keys(state).add("ben")  # by another process
    assert at_work.owner(other.encode()) == "ben"
    text = (state / "keys.json").read_text("utf-8")
    assert key not in text
    assert json.loads(text)["ann"]["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert stat.S_IMODE((state / "keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    Keys(state).remove("ann")
    assert at_work.owner(key.encode()) is None
    assert at_work.names() == ["ben"]
    (state / "keys.json").unlink()
    assert at_work.owner(other.encode()) is None


def test_keys_are_256_random_bits(tmp_path) -> None:
    made = {Keys(tmp_path).add(f"user{number}") for number in range(20)}
    assert len(made) == 20
    assert {len(key) for key in made} == {len("lh-") + 43}  # 43 letters of 6 bits


@pytest.mark.parametrize("name", ["", "../x", "a b", "a\nb", "é", "-a", "x" * 65, "a/b"])
def test_names_that_are_none(tmp_path, name) -> None:
    with pytest.raises(UserError, match="is no name for a key"):
        Keys(tmp_path).add(name)
    assert not (tmp_path / "keys.json").exists()


def test_a_name_twice_an_unknown_one_and_a_damaged_file(tmp_path) -> None:
    keys = Keys(tmp_path)
    keys.add("ann")
    with pytest.raises(UserError, match="there is a key of ann already"):
        keys.add("ann")
    with pytest.raises(UserError, match=r"no key of 'anne' \(did you mean 'ann'\?\); there are ann"):
        keys.remove("anne")
    for damage in ("{", "[]", '{"ann": {"sha256": "zz"}}', '{"ann": 3}'):
        keys.file.write_text(damage, "utf-8")
        with pytest.raises(UserError, match=r"keys\.json"):
            keys.names()
        with pytest.raises(UserError):
            keys.owner(b"anything")
