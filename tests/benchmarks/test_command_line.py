import pytest

from benchmarks.step import __main__ as step


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--img-size-px 100", "an image side of 100 px does not divide"),
        ("--device abacus", "device must be auto, cpu or cuda, got 'abacus'"),
        ("--rounds 0", "--rounds: must be at least 1, got 0"),
        ("--batch-size 0", "--batch-size: must be at least 1, got 0"),
        ("--model swin_x", "unknown model 'swin_x'; known: swin_b"),
        ("--reference missing", "missing is not a checkout of microsoft/SimMIM"),
    ],
)
def test_step__a_wrong_word_ends_in_one_message(capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        step.main(["--variants", "timm", "--precision", "fp32", *words.split()])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_step__a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        step.main(["--device", "cuda"])
    assert stopped.value.code == 2
    assert "torch sees no CUDA GPU here" in capsys.readouterr().err
