"""Any model of timm by its name: ``timm:convnext_tiny``."""

from __future__ import annotations

from os import PathLike
from typing import Any

from torch import Tensor, nn

from mixlab.baselines.base import Baseline, BaselineConfig, register_baseline
from mixlab.baselines.loading import filtered, import_timm, load_baseline
from mixlab.errors import Quoted, UserError, expected, nearest
from mixlab.weights import LoadReport


@register_baseline("timm")
class TimmModel(Baseline):
    """A model of timm, as timm builds it: ``timm:NAME``, 2D.

    ``image_size`` goes to networks that are built for one size (``img_size``), ``dropout`` is timm's ``drop_rate``,
    ``drop_path_rate`` its own. MACs are counted by torch: see :meth:`Baseline.cost`.

    Raises:
        UserError: timm is missing or has no such model, or the model refuses an option.
    """

    takes = frozenset({"dropout", "image_size", "drop_path_rate"})
    file_prefix = "body."
    body: Any  # a class of timm's
    family = "timm:NAME, a name of timm.list_models()"

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.name = self.hub_name = config.architecture.partition(":")[2]
        where = f"model {config.architecture}"
        timm = import_timm(where)
        if config.spatial_dims != 2:
            raise expected(where, "2D images: timm has no other models", Quoted(f"{config.spatial_dims}D"), "resnet18")
        if self.name.partition(".")[0] not in timm.list_models():
            close = nearest(self.name, timm.list_models())
            raise expected(where, "a name of timm.list_models()", self.name, " or ".join(f"timm:{n}" for n in close))
        self.body = self._build(timm, config, where)
        if config.features_only:
            info = self.body.feature_info.get_dicts()
            self.feature_info = [
                {"num_chs": i["num_chs"], "reduction": (i["reduction"],) * 2, "module": f"body.{i['module']}"}
                for i in info
            ]

    def _build(self, timm: Any, config: BaselineConfig, where: str) -> nn.Module:
        options: dict[str, Any] = {"in_chans": config.in_channels}
        if config.features_only:
            options["features_only"] = True
        else:
            options["num_classes"] = config.num_classes
        if config.dropout:
            options["drop_rate"] = config.dropout
        if config.drop_path_rate is not None:
            options["drop_path_rate"] = config.drop_path_rate
        if config.image_size is not None and self._one_size(timm):
            options["img_size"] = config.image_size
        try:
            return timm.create_model(self.name, **options)
        except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
            if isinstance(error, UserError):
                raise
            said = next(iter(str(error).splitlines()), type(error).__name__)
            got = Quoted(f"{', '.join(f'{k}={v!r}' for k, v in options.items())} ({said})")
            raise expected(where, "options that this model of timm takes", got) from error

    def _one_size(self, timm: Any) -> bool:
        """Whether the model is built for images of one size."""
        entry = timm.models.get_pretrained_cfg(self.name)
        return bool(entry is not None and entry.fixed_input_size)

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]
        """timm's classifier."""
        if self.config.features_only:
            return None
        found = self.body.get_classifier()
        return found if isinstance(found, nn.Module) else nn.ModuleList(found)  # distilled models have two

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        self.check(x)
        return list(self.body(x))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.check(x)
        return self.body(x)

    def no_weight_decay(self) -> set[str]:
        listed = getattr(self.body, "no_weight_decay", set)
        return {f"body.{name}" for name in listed()}

    def load(self, source: str | PathLike[str]) -> LoadReport:
        """Load a file as timm or the authors name it, through timm's own filter of names where it has one.

        Raises:
            UserError: the file does not fit, or the model returns feature maps, for which timm renames its layers.
        """
        if self.config.features_only:
            raise expected(
                f"weights of {self.config.architecture}", "a model with a head", Quoted("features_only=True")
            )
        cfg: dict[str, Any] = self.body.pretrained_cfg
        stem, head = (_first(cfg.get(key)) for key in ("first_conv", "classifier"))
        notes: list[str] = []
        return load_baseline(
            self,
            source,
            stem=f"body.{stem}.weight",
            classifier=f"body.{head}",
            prefix=self.file_prefix,
            renamed=lambda state: filtered(state, self.body, notes),
            notes=notes,
        )


def _first(names: Any) -> str:
    """Models of two classifiers name both."""
    return str(names if isinstance(names, str) else names[0] if names else "")
