from pathlib import Path

import pytest

from llamaherd.core.errors import UserError
from llamaherd.data.public.sources import SOURCES, VARIABLE, public_files, public_folder


def test_the_folder_is_the_one_given_or_the_variable_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert public_folder(None) == tmp_path
    other = tmp_path / "other"
    with pytest.raises(UserError, match="other: no such folder of public data"):
        public_folder(other)
    other.mkdir()
    assert public_folder(other) == other
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(UserError, match=f"no folder of public data: set {VARIABLE} or data"):
        public_folder(None)


def test_all_that_are_absent_are_named_with_whence_they_come(tmp_path: Path) -> None:
    names = list(SOURCES)[:3]
    there = tmp_path / names[1]
    there.parent.mkdir(parents=True)
    there.touch()
    with pytest.raises(UserError) as refused:
        public_files(tmp_path, names)
    said = str(refused.value)
    assert "2 public files are absent" in said
    for name in names:
        assert (name in said) == (name != names[1])
    assert f"github.com/{SOURCES[names[0]].repository}, {SOURCES[names[0]].path}" in said
    for name in names:
        (tmp_path / name).touch()
    assert public_files(tmp_path, names) == {name: tmp_path / name for name in names}


def test_every_file_of_the_table_is_there(data: Path) -> None:
    assert set(public_files(data, SOURCES)) == set(SOURCES)
