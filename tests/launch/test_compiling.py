import pytest

from ssl_swin.errors import UserError
from ssl_swin.launch.compiling import compile_blocks


def test_compile_blocks__without_a_compiler(tiny_encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "my-c++ -O3")
    with pytest.raises(UserError, match=r"compile=true needs a C\+\+ compiler.* no my-c\+\+:"):
        compile_blocks(tiny_encoder())


def test_compile_blocks__with_the_compiler_that_cxx_names(tiny_encoder, monkeypatch, tmp_path):
    compiler = tmp_path / "my-c++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "my-c++ -O3")
    encoder = tiny_encoder()
    compile_blocks(encoder)
    assert encoder._is_compiled
