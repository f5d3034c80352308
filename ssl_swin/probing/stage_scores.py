"""What the features of one stage are worth while training goes on, with labels and without."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_swin.probing.features import Features
from ssl_swin.probing.fitting import fit_linear_heads
from ssl_swin.probing.heads import head_accuracies
from ssl_swin.probing.knn import knn_predict
from ssl_swin.probing.representation import linear_cka, rankme, spread
from ssl_swin.probing.scoring import accuracy

LINEAR_BATCH_SIZE = 128
MOMENTUM = 0.9


@dataclass(frozen=True)
class QuickProbe:
    """Nearest neighbours and a linear classifier that take a second, for curves over a training.

    Attributes:
        k: Neighbours that vote, see `knn_predict`.
        temperature: Of their votes.
        linear_epochs: Passes of the linear classifier over the features.
        linear_base_lr: Its rate per 256 images, see `fit_linear_heads`.
    """

    k: int
    temperature: float
    linear_epochs: int
    linear_base_lr: float

    def top1(
        self, train: Features, val: Features, *, num_classes: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return accuracies on `val` in percent, `knn_top1` and `linear_top1`.

        Args:
            train: What is learnt from, two images or more.
            val: What is classified.
            num_classes: Labels lie in [0, num_classes).
            device: Where it is computed.

        Raises:
            UserError: If a label is not one of the classes.
        """
        scores = knn_predict(
            train,
            val.features.to(device),
            k=self.k,
            temperature=self.temperature,
            num_classes=num_classes,
        )
        with torch.enable_grad():
            heads = fit_linear_heads(
                train,
                num_classes=num_classes,
                optimizer="sgd",
                base_lrs=[self.linear_base_lr],
                batch_size=LINEAR_BATCH_SIZE,
                epochs=self.linear_epochs,
                warmup_epochs=0,
                weight_decay=0.0,
                momentum=MOMENTUM,
                seed=0,
                device=device,
            )
        (linear,) = head_accuracies(heads, val, device)
        return {"knn_top1": accuracy(scores, val.labels), "linear_top1": linear}


def label_free(features: Tensor, initial: Tensor | None) -> dict[str, float]:
    """Return `rankme`, `std_mean` and, beside initial features, `cka_to_init` of features.

    Args:
        features: float (N, C).
        initial: Those of the untrained network on the same images; None where they are not known.
    """
    found = {"rankme": rankme(features), "std_mean": spread(features)}
    if initial is not None:
        found["cka_to_init"] = linear_cka(features, initial)
    return found
