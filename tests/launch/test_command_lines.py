"""Over a thousand command lines and Python calls: one clear message and exit code 2, or a run.

`command_lines.yaml` lists them. Each runs in this process up to where the folder of a run would be
made; one that is refused has written nothing. The slow test prints a table of all of them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from command_lines import JOBS, Line, generated, listed
from typed import VALID, Outcome, make_world, typed_here

from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.suggestions import dotted_keys

LINES = listed(Path(__file__).with_name("command_lines.yaml"))
FIRST_TYPED = [line for line in LINES if line.before and line.program != "ssl-swin"]


@pytest.fixture(scope="module")
def run_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Line], Outcome]]:
    """What runs a line in a folder with images, shards, a backbone and broken files."""
    yield from runner(tmp_path_factory.mktemp("typed"), whole=False)


@pytest.fixture(scope="module")
def run_whole_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Line], Outcome]]:
    """The same, to the end of a job."""
    yield from runner(tmp_path_factory.mktemp("whole"), whole=True)


def runner(folder: Path, *, whole: bool) -> Iterator[Callable[[Line], Outcome]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world()
        with typed_here(patch, whole=whole) as run:
            yield run


def faults(lines: Sequence[Line], run_line: Callable[[Line], Outcome]) -> dict[Line, str]:
    """Return what is wrong with the outcomes of lines."""
    found = {}
    for line in lines:
        outcome = run_line(line)
        if fault := outcome.fault(line):
            found[line] = f"{line}: {fault}: {outcome.said[-600:]}"
    return found


@pytest.mark.parametrize("kind", sorted({line.kind for line in LINES}))
def test_line(kind: str, run_line: Callable[[Line], Outcome]) -> None:
    """Part of those of which version 0.1.0 made nothing good, and of the others."""
    telling = [line for line in FIRST_TYPED if line.kind == kind][::8]
    others = [line for line in LINES if line.kind == kind and not line.before][::32]
    assert not (wrong := faults([*telling, *others], run_line)), "\n".join(wrong.values())


@pytest.mark.slow
def test_every_line(run_line: Callable[[Line], Outcome]) -> None:
    register_resolvers()
    keys = {job: dotted_keys(compose_job(job, VALID[job])) for job in JOBS}
    lines = [*LINES, *(line for job in JOBS for line in generated(job, keys[job]))]
    wrong = faults(lines, run_line)
    print(table(lines, wrong))
    assert len(lines) > 1000
    assert not wrong, "\n".join(wrong.values())


@pytest.mark.slow
def test_every_accepted_line__to_the_end(run_whole_line: Callable[[Line], Outcome]) -> None:
    lines = [line for line in LINES if not line.is_refused and line.program in JOBS]
    wrong = faults(lines, run_whole_line)
    assert not wrong, "\n".join(wrong.values())


def table(lines: Sequence[Line], wrong: dict[Line, str]) -> str:
    """Return a table of how lines end, by kind."""
    counts: dict[str, Counter[str]] = {}
    for line in lines:
        count = counts.setdefault(line.kind, Counter())
        before = [f"{line.before} before"] if line.before else []
        count.update(["lines", *before, "refused" if line.is_refused else "accepted"])
        count.update(["wrong"] if line in wrong else [])
    total = sum(counts.values(), Counter[str]())
    columns = ("lines", "traceback before", "accepted before", "refused", "accepted", "wrong")
    rows = [
        [kind, *(str(count[column]) for column in columns)]
        for kind, count in {**counts, "all": total}.items()
    ]
    head = ["kind", "lines", "0.1.0: traceback", "0.1.0: accepted", "refused", "accepted", "wrong"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def test_table__counts() -> None:
    lines = [
        Line("a", "pretrain", "x", True, before="traceback"),
        Line("b", "python", "y()", False),
    ]
    assert table(lines, {lines[1]: "fault"}).splitlines()[2:] == [
        "| a | 1 | 1 | 0 | 1 | 0 | 0 |",
        "| b | 1 | 0 | 0 | 0 | 1 | 1 |",
        "| all | 2 | 1 | 0 | 1 | 1 | 1 |",
    ]
