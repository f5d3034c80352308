"""The fine-tuning job."""

from collections.abc import Mapping, Sequence
from functools import partial

from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from ssl_swin.data.batch import collate_labeled
from ssl_swin.data.loading.few_labels import FewLabels, keep_few_labels
from ssl_swin.data.loading.protocol import Reader
from ssl_swin.data.samples import LabeledSamples
from ssl_swin.data.transforms import CentreCropView
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.jobs.settings import FinetuneSettings
from ssl_swin.jobs.summary import finish, training_facts
from ssl_swin.launch.build import build_encoder, check_labelled, open_data
from ssl_swin.launch.command_line import command
from ssl_swin.launch.compiling import compile_blocks
from ssl_swin.launch.fitting import fit, make_trainer
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run, open_run
from ssl_swin.tasks.classification import Classifier
from ssl_swin.training.callbacks.ema import WeightEma
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.finetune import FinetuneModule
from ssl_swin.weights.backbone import save_classifier
from ssl_swin.weights.cards import classifier_card


def main(cfg: DictConfig) -> None:
    """Fine-tunes, keeps the best epoch by validation top-1, and leaves a classifier."""
    run = open_run(cfg, FinetuneSettings)
    encoder = build_encoder(cfg)
    readers = open_data(cfg)
    classes = check_labelled(readers, ("val",))
    _keep_few_labels(cfg, readers)
    model = Classifier(encoder, num_classes=len(classes))
    if cfg.test_img_size_px is not None:
        _at_size(model, cfg.test_img_size_px)  # a wrong size shows before training
    if cfg.compile:
        compile_blocks(model.encoder)
    module = _module(cfg, model)
    data = _data_module(cfg, readers, encoder.img_size_px)
    trainer = make_trainer(run)
    if cfg.ema_decay is not None:
        trainer.callbacks.insert(0, WeightEma(cfg.ema_decay))  # type: ignore[attr-defined]
    fit(run, trainer, module, data)
    _restore_best(trainer, module)
    top1 = _top1_by_size(cfg, trainer, module, data)
    _hand_off(run, trainer, model, readers["train"], classes)
    path = run.folder.path
    finish(
        run,
        trainer,
        results=[
            ("top-1", top1),
            ("best", f"{path}/checkpoints/best.ckpt"),
            ("classifier", f"{path}/classifier/"),
            ("", f'timm.create_model("local-dir:{path}/classifier", pretrained=True)'),
        ],
        next_commands=[f"{command('finetune')} --multirun seed=0,1,2 ...  # how much is chance"],
    )


def _keep_few_labels(cfg: DictConfig, readers: dict[str, Reader]) -> None:
    """Reduces the training split to `cfg.labels`, and says so."""
    everything = readers["train"]
    readers["train"] = keep_few_labels(everything, FewLabels(**cfg.labels))
    if readers["train"] is not everything:
        say(f"labels: {readers['train'].num_samples} of {everything.num_samples} training images")


def _module(cfg: DictConfig, model: Classifier, suffix: str = "") -> FinetuneModule:
    return FinetuneModule(
        model,
        optimizer=instantiate(cfg.optim),
        schedule=instantiate(cfg.schedule),
        mean=list(cfg.data.mean),
        std=list(cfg.data.std),
        seed=cfg.seed,
        suffix=suffix,
        **cfg.mixing,
    )


def _data_module(
    cfg: DictConfig, readers: Mapping[str, Reader], size_px: tuple[int, int]
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


def _restore_best(trainer: Trainer, module: FinetuneModule) -> None:
    best = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    if best:
        state = trainer.strategy.load_checkpoint(best, weights_only=True)["state_dict"]
        module.load_state_dict(state)


def _top1_by_size(
    cfg: DictConfig, trainer: Trainer, module: FinetuneModule, data: ImageDataModule
) -> str:
    """Measures the test split, or without one the validation split, at each size asked for."""
    lines = []
    if cfg.test_img_size_px is not None:
        resized = _at_size(module.model, cfg.test_img_size_px)
        size_px = resized.encoder.img_size_px
        other = _module(cfg, resized, suffix=f"_at_{_side(size_px)}px")
        other_data = _data_module(cfg, data.readers, size_px)
        lines.append(_top1(trainer, other, other_data, size_px))
    # Last, since the run's closing lines tell the metrics of the last pass.
    lines.append(_top1(trainer, module, data, module.model.encoder.img_size_px))
    return ", ".join(reversed(lines))


def _top1(
    trainer: Trainer, module: FinetuneModule, data: ImageDataModule, size_px: tuple[int, int]
) -> str:
    split, measure = ("test", trainer.test) if "test" in data.readers else ("val", trainer.validate)
    metrics = measure(module, datamodule=data, verbose=False)[0]
    return f"{metrics[f'{split}/top1{module.suffix}']:.4f} on {split} at {_side(size_px)} px"


def _side(size_px: tuple[int, int]) -> str:
    height_px, width_px = size_px
    return str(height_px) if height_px == width_px else f"{height_px}x{width_px}"


def _at_size(model: Classifier, img_size_px: int | Sequence[int]) -> Classifier:
    """Gives the classifier for another input size, with the weights that this one has now."""
    encoder = resize_encoder(model.encoder, img_size_px=img_size_px)
    resized = Classifier(encoder, num_classes=model.head.out_features)
    resized.head.load_state_dict(model.head.state_dict())
    return resized


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
