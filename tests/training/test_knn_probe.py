import pytest

from ssl_swin.training.callbacks.knn_probe import KnnProbe


def knn_probe(num_train_images: int = 12) -> KnnProbe:
    return KnnProbe(every_n_epochs=2, num_train_images=num_train_images, k=3, temperature=0.07)


def test_knn_probe__logs_every_stage_in_percent(pretrain, logged):
    trainer = pretrain(knn_probe(), max_epochs=3)
    for stage in (1, 2):  # dark from light is easy; of 6 images, all
        top1 = logged(trainer, f"probe/knn_top1/stage{stage}")
        assert list(top1) == [0, 6]  # untrained, and after the second epoch
        assert top1[0] == 100.0 and top1[6] > 60.0
    assert not logged(trainer, "probe/knn_top1/stage3")


def test_knn_probe__small_bank_has_all_classes(pretrain, logged):
    trainer = pretrain(knn_probe(num_train_images=4), max_epochs=1)
    assert logged(trainer, "probe/knn_top1/stage1") == {0: 100.0}


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"num_classes": 1}, {"num_val": 0}])
def test_knn_probe__does_nothing_without_labels_or_val(pretrain, options):
    trainer = pretrain(knn_probe(), **options)
    assert trainer.global_step == 6
    assert not any("knn" in name for name in trainer.loggers[0].file.columns)


def test_knn_probe__classifies_no_more_than_asked(pretrain, logged, monkeypatch):
    sizes = []

    def note(scores, labels):
        sizes.append(len(labels))
        return 0.0

    monkeypatch.setattr("ssl_swin.training.callbacks.knn_probe.accuracy", note)
    probe = KnnProbe(every_n_epochs=9, num_train_images=12, k=3, temperature=0.07, num_val_images=1)
    pretrain(probe, max_epochs=1)
    pretrain(knn_probe(), max_epochs=1)
    assert sizes == [4, 4, 6, 6]  # two stages each; one batch of four, then all
