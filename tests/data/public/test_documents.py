import gzip
import json
from pathlib import Path

from llamaherd.data.public.documents import FILES, PIECE_CHARACTERS, groups, split


def zipped(path: Path, text: str) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


def test_a_book_is_cut_between_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    book = "\n".join(f"Line {number} of a long book." for number in range(1000))
    path = zipped(tmp_path / "novels.jsonl.gz", json.dumps({"text": book}) + "\n")
    (pieces,) = groups("novels", [path])
    assert "\n".join(pieces) == book
    assert all(PIECE_CHARACTERS <= len(piece) < PIECE_CHARACTERS + 500 for piece in pieces[:-1])


def test_articles_stories_pages_and_lines(tmp_path: Path) -> None:
    wiki = zipped(tmp_path / "w.txt.gz", "\n = One = \n A <unk> ( b ) did n't , 1 @,@ 000 .\n = Two = \n == Part == \n More .\n")
    assert list(groups("wikitext", [wiki])) == [("= One = \n A one (b) didn't, 1,000.",), ("= Two = \n == Part == \n More.\n",)]
    stories = zipped(tmp_path / "s.txt.gz", "First.\n<|endoftext|>\nSecond.<|endoftext|>\nCut o")
    assert list(groups("tinystories", [stories])) == [("First.",), ("Second.",)]
    pages = zipped(tmp_path / "c.jsonl.gz", '{"text": "A page."}\n{"text": " "}\n')
    assert list(groups("c4", [pages])) == [("A page.",)]
    lines = zipped(tmp_path / "l.txt.gz", "One article.\nAnother one.\n")
    assert list(groups("wikipedia", [lines])) == [("One article.",), ("Another one.",)]


def test_whole_groups_are_held_out_and_no_copy_of_them_is_trained_on() -> None:
    found = [(f"a{number}", f"b{number}") for number in range(40)] + [("same  text",), ("same text",)]
    for seed in range(20):
        trained, held = split("novels", found, 0.25, seed)
        names = {document.text[1:] for document in held if document.text[0] in "ab"}
        assert {(f"a{name}", f"b{name}") for name in names} <= set(found)
        assert {document.text for document in held} == {letter + name for name in names for letter in "ab"} | (
            {document.text for document in held if document.text.startswith("same")}
        )
        plain = [" ".join(document.text.split()) for document in trained]
        assert not {" ".join(document.text.split()) for document in held} & set(plain)
        assert (trained, held) == split("novels", found, 0.25, seed)
    assert len(split("novels", found, 0.0, 0)[1]) >= 1


def test_every_source_of_the_public_files_gives_documents(data: Path) -> None:
    for source, names in FILES.items():
        first = next(iter(groups(source, [data / names[0]])))
        assert sum(map(len, first)) > 200, source
