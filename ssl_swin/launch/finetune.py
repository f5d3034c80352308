"""The fine-tuning job (L3)."""

from functools import partial

from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from ssl_swin.backbone import save_classifier
from ssl_swin.classifier import Classifier
from ssl_swin.data.batch import collate_labeled
from ssl_swin.data.loading import Reader
from ssl_swin.data.samples import LabeledSamples
from ssl_swin.data.transforms import CentreCropView
from ssl_swin.launch.setup import (
    Run,
    build_encoder,
    check_labelled,
    fit,
    make_trainer,
    open_data,
    open_run,
)
from ssl_swin.launch.summary import finish, training_facts
from ssl_swin.model_card import classifier_card
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.finetune import FinetuneModule


def main(cfg: DictConfig) -> None:
    """Fine-tunes, keeps the best epoch by validation top-1, and leaves a classifier."""
    run = open_run(cfg)
    encoder = build_encoder(
        cfg, drop_path_rate=cfg.drop_path_rate, grad_checkpointing=cfg.grad_checkpointing
    )
    readers = open_data(cfg)
    classes = check_labelled(readers, ("val",))
    model = Classifier(encoder, num_classes=len(classes))
    module = FinetuneModule(
        model,
        optimizer=instantiate(cfg.optim),
        schedule=instantiate(cfg.schedule),
        mean=list(cfg.data.mean),
        std=list(cfg.data.std),
        seed=cfg.seed,
        **cfg.mixing,
    )
    data = _data_module(cfg, readers, encoder.img_size_px)
    trainer = make_trainer(run)
    fit(run, trainer, module, data)
    _test_best(trainer, module, data)
    _hand_off(run, trainer, model, readers["train"], classes)
    path = run.folder.path
    finish(
        run,
        trainer,
        results=[
            ("best", f"{path}/checkpoints/best.ckpt"),
            ("classifier", f"{path}/classifier/"),
            ("", f'timm.create_model("local-dir:{path}/classifier", pretrained=True)'),
        ],
        next_commands=["python finetune.py --multirun seed=0,1,2 ...  # how much is chance"],
    )


def _data_module(
    cfg: DictConfig, readers: dict[str, Reader], size_px: tuple[int, int]
) -> ImageDataModule:
    samples = partial(
        LabeledSamples, channels=cfg.data.channels, dtype=cfg.data.dtype, seed=cfg.seed
    )
    return ImageDataModule(
        readers,
        train_samples=samples(instantiate(cfg.augment)(size_px)),
        eval_samples=samples(CentreCropView(size_px)),
        collate=collate_labeled,
        batch_size=cfg.batch_size,
        num_workers=cfg.num_workers,
        seed=cfg.seed,
    )


def _test_best(trainer: Trainer, module: FinetuneModule, data: ImageDataModule) -> None:
    """Puts the best weights back, and measures them on the test split where there is one."""
    best = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    if best:
        state = trainer.strategy.load_checkpoint(best, weights_only=True)["state_dict"]
        module.load_state_dict(state)
    if "test" in data.readers:
        trainer.test(module, datamodule=data, verbose=False)
    else:
        trainer.validate(module, datamodule=data, verbose=False)


def _hand_off(
    run: Run, trainer: Trainer, model: Classifier, reader: Reader, classes: tuple[str, ...]
) -> None:
    if not trainer.is_global_zero:
        return
    facts = training_facts(run, trainer, reader, f"classification, from {run.cfg.backbone}")
    save_classifier(
        run.folder.path / "classifier",
        model,
        classes=classes,
        mean=list(run.cfg.data.mean),
        std=list(run.cfg.data.std),
        card=classifier_card(model.encoder, facts, classes),
    )
