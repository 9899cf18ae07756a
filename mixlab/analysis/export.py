"""Models as graphs, for other runtimes."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from mixlab.errors import Quoted, expected
from mixlab.metaformer import MetaFormer
from mixlab.ops.windows import PerAxis, per_axis


def export_program(
    model: MetaFormer,
    image_size: PerAxis,
    *,
    dynamic_batch: bool = True,
    dynamic_size: tuple[int, int] | None = None,
) -> torch.export.ExportedProgram:
    """The model as one graph of ``torch.export``.

    Args:
        model: in evaluation mode.
        image_size: an example's height and width (depth), an int or one per axis; the only size unless
            ``dynamic_size``.
        dynamic_batch: leave the batch size free.
        dynamic_size: smallest and largest size per axis that the graph takes.

    Raises:
        UserError: the model is in training mode, or the image is too small for it.
    """
    if model.training:
        raise expected("export_program", "a model in evaluation mode", "training mode", "model.eval()")
    size = per_axis(image_size, model.config.spatial_dims, "image_size")
    model.stage_sizes(size)
    if dynamic_size is not None:
        low, high = dynamic_size
        if not low <= min(size) <= max(size) <= high:
            raise expected("export_program image_size", f"sizes from {low} to {high}, as dynamic_size says", size)
        if model.config.image_size is not None:
            raise expected("export_program dynamic_size", "a model of no fixed image_size", model.config.image_size)
    parameter = next(model.parameters())
    example = torch.randn(2, model.config.in_channels, *size, device=parameter.device, dtype=parameter.dtype)
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)} if dynamic_batch else {}
    if dynamic_size is not None:
        low, high = dynamic_size
        axes |= {i: torch.export.Dim(f"size{i - 2}", min=low, max=high) for i in range(2, 2 + len(size))}
    with torch.no_grad():
        # torch cannot prove its own conditions on views of maps whose sizes come out of strided convolutions; they
        # become checks at run time.
        return torch.export.export(
            model, (example,), dynamic_shapes=(axes,), prefer_deferred_runtime_asserts_over_guards=True
        )


def export_onnx(
    model: MetaFormer,
    path: str | PathLike[str],
    image_size: PerAxis,
    *,
    dynamic_batch: bool = True,
    check: bool = True,
) -> Path:
    """Write an ONNX file with input ``image`` ``(B, in_channels, *spatial)`` and output ``logits``.

    The graph has standard operators only: parts with operators of their own run on their PyTorch path while they are
    traced. The image size is the one given here; the batch is free.

    Args:
        model: in evaluation mode, on the CPU; fuse it first where it has a training form.
        path: the file to write.
        image_size: height and width (depth) of the images, an int or one per axis.
        dynamic_batch: leave the batch size free.
        check: run the file in onnxruntime on random images and compare with the model (1e-4 of the largest logit).

    Returns:
        The path.

    Raises:
        UserError: the model is in training mode or returns feature maps, onnx or onnxruntime is not installed, or the
            file computes something else than the model.
    """
    if model.head is None:
        raise expected("export_onnx", "a model that returns logits", "features_only=True")
    parameter = next(model.parameters())
    if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
        got = Quoted(f"{parameter.dtype} on {parameter.device}")
        raise expected("export_onnx", "a model in float32 on the CPU", got, "model.cpu().float()")
    try:
        import onnxruntime  # heavy, and needed here only
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise expected(
            "export_onnx", f"the package {error.name}", "none installed", "pip install mixlab[export]"
        ) from None
    graph = export_program(model, image_size, dynamic_batch=dynamic_batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own internals
        program = torch.onnx.export(graph, input_names=["image"], output_names=["logits"], verbose=False)
    assert program is not None, "the exporter returns a program when it is given no file"
    file = Path(path)
    program.save(file)
    if check:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        size = per_axis(image_size, model.config.spatial_dims, "image_size")
        images = torch.randn(3 if dynamic_batch else 2, model.config.in_channels, *size)
        (got,) = session.run(None, {"image": images.numpy()})
        with torch.inference_mode():
            want = model(images)
        difference = (torch.from_numpy(got) - want).abs().max().item()
        if not difference <= 1e-4 * max(want.abs().max().item(), 1.0):  # also when it is no number
            raise expected("export_onnx", "the model's logits from onnxruntime", f"a difference of {difference:.1e}")
    return file
