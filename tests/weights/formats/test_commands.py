import pytest
import torch
from saved_backbones import MEAN, STD, saved

from ssl_swin.cli import main
from ssl_swin.weights.backbone import load_backbone


def test_export_and_import__give_the_backbone_back(backbone, encoder, tmp_path, capsys):
    file, out = str(tmp_path / "ckpt.pth"), tmp_path / "again"
    assert main(["export", str(backbone), "--to", "simmim", file]) == 0
    assert f"wrote {file}" in capsys.readouterr().out

    options = ["--mean", *map(str, MEAN), "--std", *map(str, STD), "--format", "simmim"]
    assert main(["import", file, str(out), *options]) == 0

    printed = capsys.readouterr().out
    assert "dropped: encoder.layers.0.blocks.0.attn.relative_position_index and 7 more" in printed
    assert f"next: ssl-swin finetune backbone={out}" in printed
    loaded = load_backbone(out)
    images = torch.randn(1, 3, 128, 128)
    assert loaded.encoder.eval()(images).equal(encoder(images))
    assert (loaded.mean, loaded.std) == (MEAN, STD)
    before, after = ((f / "simmim.safetensors").read_bytes() for f in (backbone, out))
    assert before == after
    assert main(["export", str(out), "--to", "huggingface", str(tmp_path / "hf")]) == 0


@pytest.mark.parametrize("command", ["export", "import"])
def test_commands__write_over_nothing(command, backbone, tmp_path, capsys):
    options = ["--to", "swin"] if command == "export" else []
    assert main([command, str(backbone), str(tmp_path), *options]) == 2
    assert "exists already. Choose another name, or delete it" in capsys.readouterr().err


def test_import__prints_one_line_for_a_mistake(tmp_path, capsys):
    assert main(["import", str(tmp_path / "nowhere.pth"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"ssl-swin: there is no file {tmp_path / 'nowhere.pth'}\n"
    assert not (tmp_path / "out").exists()


def test_export__says_before_writing_what_cannot_be(tiny_encoder, tmp_path, capsys):
    folder = saved(tiny_encoder(), tmp_path / "backbone")
    assert main(["export", str(folder), "--to", "torchvision", str(tmp_path / "tv.pth")]) == 2
    assert "the model cannot be written for torchvision's Swin" in capsys.readouterr().err
    assert not (tmp_path / "tv.pth").exists()
