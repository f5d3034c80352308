"""The pretraining job."""

from collections.abc import Mapping

from lightning.pytorch import Trainer
from omegaconf import DictConfig

from ssl_swin.data.loading.protocol import Split
from ssl_swin.jobs.loop import training_data, training_module
from ssl_swin.jobs.next_steps import after_pretraining
from ssl_swin.jobs.plan import tell_plan
from ssl_swin.jobs.settings import PretrainSettings
from ssl_swin.jobs.summary import finish, timm_line, training_facts
from ssl_swin.launch.build import open_data
from ssl_swin.launch.compiling import compile_blocks
from ssl_swin.launch.continuing import Start
from ssl_swin.launch.fitting import fit, make_trainer
from ssl_swin.launch.keeping import keep_folders
from ssl_swin.launch.kernels import take_kernels
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run, open_run
from ssl_swin.launch.targets import make
from ssl_swin.objectives.base import Objective
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.runs.what_stays import telling_what_stays
from ssl_swin.weights.backbone import save_backbone, save_extra_weights
from ssl_swin.weights.cards import backbone_card


def main(cfg: DictConfig) -> None:
    """Pretrain, draw, and leave a backbone."""
    run = open_run(cfg, PretrainSettings)
    start = Start(cfg, run.checkpoint)
    encoder = start.encoder
    objective: Objective = make(cfg.objective)(encoder)
    start.take_over(objective)
    num_parameters = sum(parameter.numel() for parameter in objective.parameters())
    say(f"model: {num_parameters / 1e6:.1f} M parameters, {objective.describe()}")
    readers = open_data(cfg, objective.members)
    data = training_data(cfg, readers, objective)
    trainer = make_trainer(run)
    module = training_module(cfg, objective)
    take_kernels(cfg, module, trainer.strategy.root_device)
    if cfg.compile:
        compile_blocks(encoder)
    if cfg.plan:
        tell_plan(run, trainer, module, data)
        return
    with telling_what_stays(run.folder, lambda: trainer.global_step):
        fit(run, trainer, module, data)
        _export(run, trainer, objective, readers["train"])
        keep_folders(run, trainer.loggers, "backbone", "reconstructions", "features")
        _conclude(run, trainer, readers)


def _export(run: Run, trainer: Trainer, objective: Objective, reader: Split) -> None:
    if not trainer.is_global_zero:
        return
    encoder, data = objective.encoder, run.cfg.data
    card = ""
    with SideFailures(run.folder.path, tell=say).allowed("the model card", "the backbone is whole"):
        facts = training_facts(run, trainer, reader, objective.describe())
        card = backbone_card(encoder, facts, objective.tags)
    folder = run.folder.backbone
    save_backbone(
        folder,
        encoder,
        mean=list(data.mean),
        std=list(data.std),
        card=card,
        crop_ratio=run.cfg.eval_crop_ratio,
    )
    save_extra_weights(folder, objective.extra_weights())


def _conclude(run: Run, trainer: Trainer, readers: Mapping[str, Split]) -> None:
    path = run.folder.path
    pictures = path / "reconstructions"
    finish(
        run,
        trainer,
        results=lambda: [
            *([("pictures", f"{pictures}/")] if pictures.is_dir() else []),
            ("backbone", f"{path}/backbone/"),
            ("", timm_line(run.folder.backbone, num_classes=0)),
        ],
        next_steps=lambda: after_pretraining(run, readers),
    )
