"""`ssl-swin recipes`: what conf/experiment/ holds, as its files' headers tell it.

A header is the comment at the top of a file: what the recipe trains, then one fact a line, each
`# KEY: text` with a key of `FACTS`. A line that is indented goes on where the one before it ends.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile

from ssl_swin.commands.show import CONFIG_FOLDER
from ssl_swin.errors import UserError

EXPERIMENTS = CONFIG_FOLDER / "experiment"
FACTS = ("source", "expected", "hardware", "batch", "command", "reproduced", "note")
UNSTATED = "not stated"


@dataclass(frozen=True)
class Recipe:
    """An experiment, without its settings."""

    name: str
    title: str
    facts: dict[str, str]  # those of FACTS that the header states

    @property
    def job(self) -> str:
        """The script that runs it, which its name starts with."""
        return self.name.partition("_")[0]


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "recipes",
        help="list the recipes of conf/experiment, or tell all about one",
        description="Lists every recipe: its job, its name, the accuracy to expect (ImageNet-1k "
        "top-1 unless it says otherwise), and whether we have reproduced it. With a name: where "
        "it comes from, what it needs, and the command.",
    )
    parser.add_argument("name", nargs="?", help="of one recipe")
    return parser


def run(args: argparse.Namespace) -> None:
    """Prints one line a recipe, or one recipe."""
    lines = table(read_recipes()) if args.name is None else page(find_recipe(args.name))
    print("\n".join(lines))


def read_recipes() -> list[Recipe]:
    """Reads the headers of all experiments, pretraining first.

    Raises:
        UserError: If the YAML files are not there.
    """
    paths = sorted(EXPERIMENTS.glob("*.yaml"))
    if not paths:
        raise UserError(
            f"no recipes in {EXPERIMENTS}: `recipes` needs the folder conf/ beside the package. "
            "Install it from a clone: pip install -e ."
        )
    recipes = (read_header(path.stem, path.read_text(encoding="utf-8")) for path in paths)
    return sorted(recipes, key=lambda recipe: recipe.job, reverse=True)


def find_recipe(name: str) -> Recipe:
    """Reads the header of one experiment.

    Raises:
        UserError: If there is none of this name, with the nearest names.
    """
    recipes = {recipe.name: recipe for recipe in read_recipes()}
    if name not in recipes:
        close = get_close_matches(name, recipes, n=3, cutoff=0.6)
        nearest = f", did you mean {' or '.join(close)}?" if close else ";"
        raise UserError(f"there is no recipe {name}{nearest} `ssl-swin recipes` lists them all")
    return recipes[name]


def read_header(name: str, text: str) -> Recipe:
    """Makes a recipe of the comment at the top of an experiment's file."""
    comment = [line[1:] for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    title, facts, key = "", dict[str, str](), ""
    for line in comment:
        if fact := re.fullmatch(rf" ({'|'.join(FACTS)}): (.*)", line):
            key = fact[1]
            facts[key] = fact[2]
        elif key and line.startswith("  "):
            facts[key] += "\n" + line.strip()
        elif not line.startswith(" @package"):
            title = f"{title} {line.strip()}".strip()
    return Recipe(name, title or UNSTATED, facts)


def table(recipes: list[Recipe]) -> Iterator[str]:
    """Gives one line a recipe: job, name, expected number, reproduced or not."""
    rows = [
        (recipe.job, recipe.name, *(_first_line(recipe, key) for key in ("expected", "reproduced")))
        for recipe in recipes
    ]
    rows.insert(0, ("job", "recipe", "expected", "reproduced"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def page(recipe: Recipe) -> Iterator[str]:
    """Gives the lines of a recipe's header, and last its command, ready to be copied."""
    yield f"{recipe.name}: {recipe.title}"
    told = [key for key in FACTS if key in recipe.facts and key != "command"]
    for key in told:
        yield f"{key + ':':<12}" + recipe.facts[key].replace("\n", "\n" + " " * 12)
    if "command" in recipe.facts:
        yield ""
        yield recipe.facts["command"].replace("\n", "\n    ")


def _first_line(recipe: Recipe, key: str) -> str:
    return recipe.facts.get(key, UNSTATED).partition("\n")[0]
