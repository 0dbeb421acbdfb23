"""Browsers that signed in: over a new start, to their end, and where nothing can be written."""

import stat
import time

from llamaherd.serve import sessions
from llamaherd.serve.keys import digest
from llamaherd.serve.sessions import Sessions

ANN, BEN = digest(b"ann"), digest(b"ben")


def test_they_outlive_the_server_and_only_hashes_are_kept(tmp_path) -> None:
    begun = Sessions(tmp_path, 3600).begin(ANN)
    text = (tmp_path / "sessions.json").read_text("utf-8")
    assert begun not in text
    assert digest(begun.encode()).hex() in text
    assert stat.S_IMODE((tmp_path / "sessions.json").stat().st_mode) == 0o600
    again = Sessions(tmp_path, 3600)
    assert again.key_hash(begun.encode()) == ANN
    assert again.key_hash(begun.encode() + b"x") is None
    again.end(begun.encode())
    again.end(b"no session")
    assert again.key_hash(begun.encode()) is None
    assert Sessions(tmp_path, 3600).key_hash(begun.encode()) is None


def test_they_end_in_time_and_are_forgotten(tmp_path) -> None:
    short = Sessions(tmp_path, 0.05)
    begun = short.begin(ANN)
    assert short.key_hash(begun.encode()) == ANN
    time.sleep(0.06)
    assert short.key_hash(begun.encode()) is None
    Sessions(tmp_path, 3600).begin(BEN)
    assert digest(begun.encode()).hex() not in (tmp_path / "sessions.json").read_text("utf-8")


def test_servers_of_one_folder_keep_each_others(tmp_path) -> None:
    one, other = Sessions(tmp_path, 3600), Sessions(tmp_path, 3600)
    of_one, of_other = one.begin(ANN), other.begin(BEN)
    new = Sessions(tmp_path, 3600)
    assert (new.key_hash(of_one.encode()), new.key_hash(of_other.encode())) == (ANN, BEN)


def test_one_key_pushes_nobody_else_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "MOST_OF_A_KEY", 3)
    kept = Sessions(tmp_path, 3600)
    of_ann = kept.begin(ANN)
    of_ben = [kept.begin(BEN) for _ in range(5)]
    assert kept.key_hash(of_ann.encode()) == ANN
    assert [kept.key_hash(one.encode()) for one in of_ben] == [None, None, BEN, BEN, BEN]


def test_a_damaged_file_signs_everybody_out(tmp_path, caplog) -> None:
    begun = Sessions(tmp_path, 3600).begin(ANN)
    for damage in ("{", "[]", '{"a": 1}', '{"a": ["zz", 9e99]}', '{"a": ["ab", 9e99]}', '{"a": ["ab", "x"]}'):
        (tmp_path / "sessions.json").write_text(damage, "utf-8")
        kept = Sessions(tmp_path, 3600)
        assert kept.key_hash(begun.encode()) is None
        assert "not a file of sessions" in caplog.text
        caplog.clear()
        assert kept.key_hash(kept.begin(BEN).encode()) == BEN


def test_where_nothing_can_be_written_they_last_as_long_as_the_server(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    kept = Sessions(tmp_path / "file", 3600)  # no folder, also for root
    begun = [kept.begin(ANN), kept.begin(BEN)]
    assert [kept.key_hash(one.encode()) for one in begun] == [ANN, BEN]
    kept.end(begun[0].encode())
    assert kept.key_hash(begun[0].encode()) is None
    assert len(caplog.records) == 1
    assert "a new start signs everybody out" in caplog.text
