"""`quickfix onnx`: the graphs that a service with backend onnx would export at its first start."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edits.terminal import rows_table, show


class Dtype(StrEnum):
    """What graphs may be in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def onnx(
    model: Annotated[str, typer.Option(help="Pipeline folder or hub id.")] = "models/demo",
    out: Annotated[
        Path, typer.Option(help="Folder of graphs; a service looks in `onnx` of its state dir.")
    ] = Path(".quickfix/onnx"),
    dtype: Annotated[
        Dtype, typer.Option(help="QUICKFIX_DTYPE of the service that will use them.")
    ] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option(help="Where to trace: cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Export UNet and VAE decoder as ONNX graphs, so that a service need not do it at start."""
    import torch

    from edits.graphs.cache import cached_graphs
    from edits.loading import load_pipeline

    pipeline = load_pipeline(model, device=device, dtype=getattr(torch, dtype.value))
    graphs = cached_graphs(pipeline, out)
    document = {
        "digest": graphs.digest,
        "folder": str(out / graphs.digest),
        "dtype": dtype.value,
        "bytes": graphs.size,
        "exported": graphs.seconds > 0,
        "seconds": round(graphs.seconds, 2),
        "replaced": graphs.replaced,
    }
    show(document, as_json, rows_table("ONNX graphs", [document]))
