"""The pipeline's own modules, run eagerly or, on a GPU, compiled or from recorded passes."""

from typing import Any

import torch
from torch import Tensor, nn

from edits.graphs import VaeDecoder
from service.generation.backends.cuda_graphs import CudaGraphs

__all__ = ["TorchBackend", "embedding_shape", "unet_layout"]


def embedding_shape(pipeline: Any) -> tuple[int, int]:
    """(positions, features) of one prompt; a UNet's own width may be one for each of its blocks."""
    return int(pipeline.tokenizer.model_max_length), int(pipeline.text_encoder.config.hidden_size)


def unet_layout(device: torch.device) -> torch.memory_format:
    """The layout in which one guided image's pass takes less time there, by the kind of processor.

    Never by a trial: replicas of one kind must draw the same to the bit. Channels last takes 6 to
    17 % off any pass with AVX2; with AVX-512 it takes 5 % off a pass of one row, puts 1 to 9 % on
    one of two, and changes larger ones little (docs/adr/0011, benchmarks/onnx_step.py). On a GPU it
    is slower from 8 rows on (benchmarks/gpu_step.py).
    """
    if device.type == "cpu" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return torch.channels_last
    return torch.contiguous_format


class TorchBackend:
    """On a CPU convolutions are in the layout that is faster there, with the same numbers.

    `compiled` runs the pristine UNet through torch.compile, `cuda_graphs` replays its passes of few
    rows; an edited one always runs eagerly.
    """

    name = "torch"
    supports_edited_unet = True

    def __init__(self, pipeline: Any, *, compiled: bool = False, cuda_graphs: bool = False) -> None:
        self._device: torch.device = pipeline.unet.device
        on_cpu = self._device.type == "cpu"
        self._unet_layout = unet_layout(self._device)
        # A decoding takes two thirds of the time so (benchmarks/onnx_step.py).
        self._vae_layout = torch.channels_last if on_cpu else torch.contiguous_format
        self._pristine: nn.Module = pipeline.unet.to(memory_format=self._unet_layout)
        self._decoder = VaeDecoder(pipeline.vae.to(memory_format=self._vae_layout))
        self._unet: Any = (
            torch.compile(self._pristine, dynamic=True) if compiled else self._pristine
        )
        self.provider = str(self._device)
        # What follows runs on a GPU only: tests/service/test_gpu.py.
        self._decoding: torch.cuda.Stream | None = None
        if not on_cpu:
            self._decoding = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._graphs: CudaGraphs | None = None
        if compiled or cuda_graphs:
            config = pipeline.unet.config
            side = config.sample_size
            shape = (int(config.in_channels), *((side, side) if isinstance(side, int) else side))
            embedding = embedding_shape(pipeline)
            if cuda_graphs:
                self._graphs = CudaGraphs(self._pristine, shape=shape, embedding=embedding)
            else:
                self._compile(shape, embedding)

    @torch.inference_mode()
    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeddings: Tensor,
        *,
        unet: nn.Module | None = None,
    ) -> Tensor:
        """The UNet's output (rows, channels, h, w)."""
        latents = latents.contiguous(memory_format=self._unet_layout)
        noise: Tensor | None = None
        if unet is None and self._graphs is not None:
            noise = self._graphs.predict(latents, timesteps, embeddings)
        if noise is None:
            run = self._unet if unet is None else unet
            noise = run(latents, timesteps, encoder_hidden_states=embeddings, return_dict=False)[0]
        return self._finished(noise.contiguous())

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (rows, 3, H, W) in [-1, 1]."""
        if self._decoding is None:
            return self._decoded(latents)
        # On a stream of its own: on that of the passes they would wait for it.
        self._decoding.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._decoding):
            return self._finished(self._decoded(latents))

    def _decoded(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self._decoder(latents.contiguous(memory_format=self._vae_layout))
        return pixels.contiguous()

    def _finished(self, result: Tensor) -> Tensor:
        """What was computed, once it is: a step's time and its failures are its own."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return result

    def _compile(self, shape: tuple[int, ...], embedding: tuple[int, ...]) -> None:
        """Compile now what the first requests would wait for: one row, and several."""
        options: Any = {"device": self._device, "dtype": next(self._pristine.parameters()).dtype}
        for rows in (1, 2, 3):
            self.predict(
                torch.zeros((rows, *shape), **options),
                torch.zeros(rows, device=self._device),
                torch.zeros((rows, *embedding), **options),
            )
