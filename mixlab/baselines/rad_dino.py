"""RAD-DINO: a frozen foundation model of chest X-rays with a linear probe, from weights that the user has."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from mixlab.architectures import Published
from mixlab.baselines.base import Baseline, BaselineConfig, register_baseline
from mixlab.baselines.loading import State, filtered, import_timm, load_baseline
from mixlab.errors import Quoted, expected
from mixlab.weights import LoadReport

TIMM_NAME, PATCH, SIZE = "vit_base_patch14_dinov2", 14, 518
FILES = ("model.safetensors", "backbone_compatible.safetensors", "pytorch_model.bin")
"""Files of the published folder that hold the network, best first."""
MASK = "mask_token"
_PROJECTIONS = {"attention.attention.{}": ("query", "key", "value"), "attention.{}_proj": ("q", "k", "v")}
_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm": "norm",
}


@register_baseline("rad_dino")
class RadDino(Baseline):
    """RAD-DINO, a DINOv2 ViT-B/14 trained on chest X-rays: frozen; a linear layer on its class token is trained.

    A comparison arm with other data and other size than a mixer's, to be read as such. It needs a file of weights:
    ``model.safetensors`` of ``microsoft/rad-dino`` on the Hugging Face hub, or the folder that holds it; the layout of
    Hugging Face's and that of DINOv2's own repository are both read. The network is timm's (``pip install
    'mixlab[timm]'``). Images are 2D, their sides multiples of 14; the positions are interpolated from the published
    518 x 518. Images are normalised by their own data set's statistics, as all are here.

    Source: Perez-Garcia et al., Exploring Scalable Medical Image Encoders Beyond Text Supervision (arXiv:2401.10815).
    """

    takes = frozenset({"image_size", "dropout"})
    file_prefix = "body."
    published = Published(paper="arXiv:2401.10815", repository="microsoft/rad-dino", image_size=SIZE)
    head: nn.Module
    needs_weights = "model.safetensors of microsoft/rad-dino (huggingface.co), downloaded by you"

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        timm = import_timm("model rad_dino")
        if config.spatial_dims != 2:
            raise expected("model rad_dino", "2D images", Quoted(f"{config.spatial_dims}D"), "resnet18")
        if config.features_only:
            hint = "features_only=False"
            raise expected("model rad_dino", "a class: it has one resolution", Quoted("features_only=True"), hint)
        size = SIZE if config.image_size is None else config.image_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if any(side % PATCH for side in sides):
            near = max(round(sides[0] / PATCH), 1) * PATCH
            raise expected("model rad_dino image_size", f"sides that are multiples of {PATCH}", size, f"{near}")
        self.body = timm.create_model(TIMM_NAME, num_classes=0, in_chans=config.in_channels, img_size=sides)
        self.body.requires_grad_(False)
        self.dropout = nn.Dropout(config.dropout)
        width = self.body.num_features
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        self.feature_info = [{"num_chs": width, "reduction": (PATCH, PATCH), "module": "body"}]
        self.events.append(
            {
                "kind": "model",
                "message": "rad_dino is frozen: a linear layer on its class token learns; images are normalised "
                "by their own set's statistics, not by those of its pre-training",
            }
        )

    def train(self, mode: bool = True) -> RadDino:
        """The frozen network stays in evaluation mode."""
        super().train(mode)
        self.body.eval()
        return self

    def forward_features(self, x: Tensor) -> Tensor:
        """The normalised class token ``(B, 768)``."""
        self.check(x)
        with torch.no_grad():
            return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.forward_features(x)))

    def load(self, source: str | PathLike[str]) -> LoadReport:
        """Load a file, or the folder that holds it.

        Raises:
            UserError: there is no such file, or it holds another network.
        """
        notes: list[str] = []

        def renamed(state: State) -> State:
            notes.extend(f"{key} left out: it hides patches in pre-training" for key in state if key.endswith(MASK))
            return filtered(to_timm({k: v for k, v in state.items() if not k.endswith(MASK)}), self.body, notes)

        stem = "body.patch_embed.proj.weight"
        file = weights_file(source)
        prefix = self.file_prefix
        return load_baseline(self, file, stem=stem, classifier="head", prefix=prefix, renamed=renamed, notes=notes)


def weights_file(path: str | PathLike[str]) -> Path:
    """The file, or the one of the published names in a folder.

    Raises:
        UserError: there is none.
    """
    place = Path(path).expanduser()
    found = [place / name for name in FILES if (place / name).is_file()] if place.is_dir() else [place]
    if not found or not found[0].is_file():
        got = Quoted(f"no {' or '.join(FILES)} in {place}" if place.is_dir() else f"no file {place}")
        hint = "downloading model.safetensors of microsoft/rad-dino from huggingface.co and giving its path"
        raise expected("weights of rad_dino", "a local file or folder", got, hint)
    return found[0]


def to_timm(state: State) -> dict[str, Tensor]:
    """Hugging Face's names of a DINOv2 model as timm's; a state dict with other names stays as it is.

    Queries, keys and values are one matrix in timm.
    """
    if "embeddings.cls_token" not in state:
        return dict(state)
    named = dict(state)
    for form, parts in _PROJECTIONS.items():
        for kind in ("weight", "bias"):
            ends = [f"{form.format(part)}.{kind}" for part in parts]
            for key in [k for k in named if k.endswith(f".{ends[0]}")]:
                layer = key.removesuffix(ends[0])
                if all(f"{layer}{end}" in named for end in ends):
                    named[f"{layer}attn.qkv.{kind}"] = torch.cat([named.pop(f"{layer}{end}") for end in ends])
    return {_renamed(key): value for key, value in named.items()}


def _renamed(key: str) -> str:
    key = re.sub(r"^encoder\.layer\.(\d+)\.", r"blocks.\1.", key)
    for theirs, ours in _NAMES.items():
        key = re.sub(rf"(^|\.){re.escape(theirs)}(?=\.|$)", rf"\g<1>{ours}", key)
    return key
