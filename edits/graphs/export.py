"""Export of a UNet and a VAE decoder, and the digest that decides the graphs completely.

unet:        latents (rows, channels, h, w), timesteps (rows,), embeddings (rows, positions,
             features) -> noise (rows, channels, h, w)
vae_decoder: latents (rows, channels, h, w) -> pixels (rows, 3, H, W)

Rows, h, w and positions are free; timesteps are float32, everything else has the pipeline's dtype.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from torch import Tensor, nn

from edits.errors import GraphsUnexportable
from edits.graphs.attention import attention_in_one
from edits.method.fingerprint import module_digest

FORMAT: Final = "quickfix-onnx/v2"
OPSET = 18
DTYPES = (torch.float32, torch.float16)

UNET, VAE_DECODER = "unet/model.onnx", "vae_decoder/model.onnx"

_ROWS, _HEIGHT, _WIDTH = {0: "rows"}, {2: "height"}, {3: "width"}


class VaeDecoder(nn.Module):
    """Latents as a scheduler leaves them to pixels in [-1, 1], as diffusers' pipelines do it."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (rows, channels, h, w); pixels (rows, 3, H, W)."""
        latents = latents / self.vae.config.scaling_factor
        shift = getattr(self.vae.config, "shift_factor", None)
        if shift is not None:
            latents = latents + shift
        pixels: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return pixels


class _Denoiser(nn.Module):
    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        noise: Tensor = self.unet(
            latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
        return noise


def latent_unit(unet: Any) -> int:
    """Latents of a side come in multiples of this: what every halving of the UNet divides."""
    return int(2 ** (len(unet.config.block_out_channels) - 1))


def graphs_digest(pipeline: Any) -> str:
    """SHA-256 in hex over weights, configurations and what the export is done with."""
    facts = {
        "format": FORMAT,
        "opset": OPSET,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "unet": [module_digest(pipeline.unet), _structure(pipeline.unet)],
        "vae": [module_digest(pipeline.vae), _structure(pipeline.vae)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def write_graphs(pipeline: Any, folder: Path) -> None:
    """Write both graphs into `folder`, in the pipeline's dtype and on its device.

    Raises GraphsUnexportable for a dtype or a model that cannot be exported.
    """
    unet, dtype = pipeline.unet, pipeline.unet.dtype
    if dtype not in DTYPES:
        raise GraphsUnexportable(
            f"graphs are float32 or float16, the model is {dtype}; load it in one of them",
            param="dtype",
        )
    like = {"dtype": dtype, "device": unet.device}
    unit = latent_unit(unet)
    # Two rows and two different sides: a size that is 1, or equal to another, may be baked in.
    shape = (2, int(unet.config.in_channels), 2 * unit, 3 * unit)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(**like)
    timesteps = torch.tensor([1.0, 500.0], device=unet.device)
    width = unet.config.cross_attention_dim
    embeddings = torch.zeros(2, int(pipeline.tokenizer.model_max_length), int(width), **like)
    with attention_in_one(unet):
        _export(
            _Denoiser(unet),
            folder / UNET,
            {"latents": latents, "timesteps": timesteps, "embeddings": embeddings},
            output="noise",
            free={
                "latents": _ROWS | _HEIGHT | _WIDTH,
                "timesteps": _ROWS,
                "embeddings": _ROWS | {1: "positions"},
                "noise": _ROWS | _HEIGHT | _WIDTH,
            },
        )
    _export(
        VaeDecoder(pipeline.vae),
        folder / VAE_DECODER,
        {"latents": latents},
        output="pixels",
        free={
            "latents": _ROWS | _HEIGHT | _WIDTH,
            "pixels": _ROWS | {2: "pixel_height", 3: "pixel_width"},
        },
    )


def _export(
    module: nn.Module,
    path: Path,
    inputs: dict[str, Tensor],
    *,
    output: str,
    free: dict[str, dict[int, str]],
) -> None:
    path.parent.mkdir(parents=True)
    with warnings.catch_warnings():
        # The tracer warns of every branch on a shape, also of those that these sizes never take.
        warnings.simplefilter("ignore")
        try:
            # The tracing exporter: the same graph as the newer one's after onnxruntime's own
            # optimisation, in a tenth of the time, which a first start waits for.
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=[output],
                dynamic_axes=free,
                opset_version=OPSET,
                dynamo=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            raise GraphsUnexportable(
                f"{path.parent.name} cannot be exported to ONNX ({type(error).__name__}); "
                "use backend torch",
                param="backend",
            ) from error


def _structure(module: Any) -> dict[str, Any]:
    """The configuration without what says where it came from."""
    return {key: value for key, value in module.config.items() if not key.startswith("_")}
