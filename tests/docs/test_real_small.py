"""docs/real-small.md lists every public file that the recipe may read, and names what there is."""

import re
from pathlib import Path

from llamaherd.data.public.sources import SOURCES
from llamaherd.recipe.chain import chain
from llamaherd.recipe.config import load_recipe
from llamaherd.recipe.public import FILES

PAGE = (Path(__file__).parents[2] / "docs" / "real-small.md").read_text("utf-8")


def row(name: str) -> str:
    """A file's row of the table but for its form, which only people can say."""
    source = SOURCES[name]
    repository, _, commit = source.repository.partition("@")
    return f"| `{name}` | [{repository}](https://github.com/{repository}) at `{commit}` | `{source.path}` | {source.licence} | "


def test_the_table_of_files_is_that_of_the_package() -> None:
    table = PAGE.partition("<!-- files -->\n")[2].partition("<!-- end of files -->")[0].splitlines()[2:]
    assert [line[: len(row(name))] for line, name in zip(table, SOURCES, strict=True)] == [row(name) for name in SOURCES]


def test_every_artifact_and_every_recipe_is_named() -> None:
    told = set(re.findall(r"`([\w*-]+)`", PAGE))
    for step in chain(load_recipe("real-small"), Path("run")):
        assert step.name in told or f"*-{step.name.rpartition('-')[2]}" in told, step.name
    for name in re.findall(r"llamaherd run (real-[\w-]+)", PAGE):
        load_recipe(name)


def test_folders_of_ones_own_are_described() -> None:
    for name, files in FILES.items():
        about = PAGE.partition(f"- `own.{name}`:")[2].partition("\n- ")[0].partition("\n\n")[0]
        assert [file for file in files if f"`{file}`" not in about] == []


def test_the_example_is_a_recipe(tmp_path: Path) -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.yaml").write_text(text, "utf-8")
    mine, like = load_recipe(str(tmp_path / "mine.yaml")), load_recipe("real-small")
    assert mine.model_dump(exclude={"own", "shards"}) == like.model_dump(exclude={"own", "shards"})
    assert mine.shards.weights == {}
