"""What docs/SERVE.md says of the exported file and of the options is so."""

import importlib.util
import re
from pathlib import Path

import pytest
from serving_worlds import ROOT, write_run

from ssl_swin.cli import COMMANDS, main
from ssl_swin.commands import serve
from ssl_swin.commands.parsing import CommandParser

PAGE = (ROOT / "docs/SERVE.md").read_text()
TYPES = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}


@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="needs pip install 'ssl_swin[onnx]'"
)
@pytest.mark.slow
def test_triton_configuration__names_what_the_exported_file_has(tmp_path: Path) -> None:
    import onnxruntime

    write_run(tmp_path)
    out = tmp_path / "mine.onnx"
    assert main(["export", str(tmp_path / "run"), str(out), "--to", "onnx"]) == 0
    session = onnxruntime.InferenceSession(str(out))
    (config,) = re.findall(r"```protobuf\n(.*?)```", PAGE, re.DOTALL)
    entry = r'{kind} \[ {{ name: "(\w+)" data_type: (\w+) dims: \[ ([\d, ]+) \] }} \]'
    sizes = {"input": (224, 64), "output": (1000, 7)}  # on the page, and of the small network
    for kind, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
        ((name, dtype, dims),) = re.findall(entry.format(kind=kind), config)
        written, real = sizes[kind]
        (node,) = nodes
        assert (node.name, node.type) == (name, TYPES[dtype])
        of_one = [real if int(dim) == written else int(dim) for dim in dims.split(",")]
        assert node.shape == ["batch", *of_one], "of any batch size, which Triton adds"


def test_options_of_the_page__are_the_commands() -> None:
    parser = CommandParser()
    described = serve.add_parser(parser.add_subparsers())
    known = {option for action in described._actions for option in action.option_strings}
    text = PAGE.partition("## Other servers")[0]
    named = set(re.findall(r"`(--[\w-]+)", text)) - {"--time"}
    assert len(named) > 12 and named <= known
    assert serve in COMMANDS


@pytest.mark.parametrize(
    ("option", "default", "shown"),
    [
        ("timeout_s", 30, "which is 30 s"),
        ("max_request_mb", 64, "client_max_body_size 64m"),
        ("max_image_pixels", 50 * 10**6, "more than 50 million pixels"),
        ("port", 8000, "http://127.0.0.1:8000 "),
        ("host", "127.0.0.1", "http://127.0.0.1:8000 "),
    ],
)
def test_defaults_of_the_page__are_the_commands(option: str, default: object, shown: str) -> None:
    described = serve.add_parser(CommandParser().add_subparsers())
    assert described.get_default(option) == default
    assert shown in PAGE
