"""The pretraining job."""

import shlex
from collections.abc import Callable
from functools import partial

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from torch import Tensor

from ssl_swin.data.batch import collate_masked
from ssl_swin.data.loading.protocol import Reader
from ssl_swin.data.samples import MaskedSamples
from ssl_swin.data.transforms import CentreCropView
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.windows.layout import Packing
from ssl_swin.jobs.settings import PretrainSettings
from ssl_swin.jobs.summary import finish, training_facts
from ssl_swin.launch.build import open_data
from ssl_swin.launch.command_line import command
from ssl_swin.launch.compiling import compile_blocks
from ssl_swin.launch.fitting import fit, make_trainer
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run, open_run
from ssl_swin.masking import mask_grid, num_masked_units
from ssl_swin.objectives.simmim import MaskedImageModel, SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.pretrain import PretrainModule
from ssl_swin.weights.backbone import save_backbone
from ssl_swin.weights.cards import backbone_card
from ssl_swin.weights.formats.simmim_head import save_simmim_head


def main(cfg: DictConfig) -> None:
    """Pretrains, draws, and leaves a backbone."""
    run = open_run(cfg, PretrainSettings)
    encoder: Encoder = instantiate(cfg.model)
    model: MaskedImageModel = instantiate(cfg.objective.model)(encoder)
    if cfg.compile:
        compile_blocks(encoder)
    units = mask_grid(
        encoder.img_size_px, cfg.objective.mask_unit_px, patch_size_px=encoder.patch_size_px
    )
    if isinstance(model, SparseSimMIM):
        model.check_unit(cfg.objective.mask_unit_px)
    masked = num_masked_units(units[0] * units[1], cfg.objective.mask_ratio)
    say(
        f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{masked} of {units[0] * units[1]} units of {cfg.objective.mask_unit_px} px masked"
    )
    readers = open_data(cfg)
    pack = model.encoder.windows.pack if isinstance(model, SparseSimMIM) else None
    data = pretrain_data(cfg, readers, encoder, units, pack=pack)
    module = PretrainModule(
        model,
        optimizer=instantiate(cfg.optim),
        schedule=instantiate(cfg.schedule),
        mean=list(cfg.data.mean),
        std=list(cfg.data.std),
        seed=cfg.seed,
    )
    trainer = make_trainer(run)
    fit(run, trainer, module, data)
    _hand_off(run, trainer, model, readers["train"])
    _conclude(run, trainer)


def pretrain_data(
    cfg: DictConfig,
    readers: dict[str, Reader],
    encoder: Encoder,
    units: tuple[int, int],
    pack: Callable[[Tensor], Packing] | None = None,
) -> ImageDataModule:
    """Loaders of masked images for an encoder, whose sizes alone matter; `pack` plans its masks."""
    masked_samples = partial(
        MaskedSamples,
        channels=cfg.data.channels,
        dtype=cfg.data.dtype,
        mask_units=units,
        mask_ratio=cfg.objective.mask_ratio,
        seed=cfg.seed,
    )
    return ImageDataModule(
        readers,
        train_samples=masked_samples(instantiate(cfg.augment)(encoder.img_size_px)),
        eval_samples=masked_samples(CentreCropView(encoder.img_size_px)),
        collate=partial(collate_masked, shared_mask=cfg.objective.shared_mask, pack=pack),
        batch_size=cfg.batch_size,
        num_workers=cfg.num_workers,
        seed=cfg.seed,
    )


def _hand_off(run: Run, trainer: Trainer, model: MaskedImageModel, reader: Reader) -> None:
    if not trainer.is_global_zero:
        return
    objective = run.cfg.objective
    method = "SimMIM" if isinstance(model, SimMIM) else "sparse SimMIM (visible cells only)"
    phrase = f"{method}, mask ratio {objective.mask_ratio}, units of {objective.mask_unit_px} px"
    if objective.model.normalize_target_window_px:
        phrase += f", target normalised over {objective.model.normalize_target_window_px} px"
    encoder = model.encoder
    card = backbone_card(encoder, training_facts(run, trainer, reader, phrase))
    data = run.cfg.data
    save_backbone(run.folder.backbone, encoder, mean=list(data.mean), std=list(data.std), card=card)
    if isinstance(model, SimMIM):  # the published formats hold its head, and know no other
        save_simmim_head(run.folder.backbone, model)


def _conclude(run: Run, trainer: Trainer) -> None:
    path = run.folder.path
    options = _data_options()
    finish(
        run,
        trainer,
        results=[
            ("pictures", f"{path}/reconstructions/"),
            ("backbone", f"{path}/backbone/"),
            ("", f'timm.create_model("local-dir:{path}/backbone", pretrained=True, num_classes=0)'),
        ],
        next_commands=[
            f"{command('linear_probe')} backbone={path} {options}",
            f"{command('finetune')} backbone={path} {options}",
        ],
    )


def _data_options() -> str:
    """The options by which this run was told of its data, for the commands to come."""
    hydra = HydraConfig.get()
    told = [option for option in hydra.overrides.task if option.startswith("data.")]
    return shlex.join([f"data={hydra.runtime.choices['data']}", *told])
