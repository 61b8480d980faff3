"""Passes of a UNet recorded as CUDA graphs: one launch in the place of a thousand.

A pass of few rows takes a GPU less time than Python needs to launch it (docs/benchmarks.md, "On a
GPU"). Runs on a GPU only; the tests of it are in tests/service/test_gpu.py.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MAX_ROWS", "CudaGraphs"]

MAX_ROWS = 16  # with more the launches are long over when the GPU is done
_WARM_PASSES = 3  # libraries choose their kernels in the first ones, which no graph may hold


class _Recording:
    """One pass with its inputs and its output at fixed places."""

    def __init__(self, unet: nn.Module, inputs: tuple[Tensor, ...], pool: Any) -> None:
        self._inputs = inputs
        latents, timesteps, embeddings = inputs
        stream = torch.cuda.Stream(latents.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(latents.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_PASSES):
                unet(latents, timesteps, encoder_hidden_states=embeddings, return_dict=False)
        torch.cuda.current_stream(latents.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=stream):
            self._output: Tensor = unet(
                latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
            )[0]

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for place, given in zip(self._inputs, inputs, strict=True):
            place.copy_(given)
        self._graph.replay()
        return self._output.clone()  # the next replay writes there


class CudaGraphs:
    """The pristine UNet's passes of 1 to `MAX_ROWS` rows at one size, recorded when this is made.

    Its weights must stay where they are, as they do: an edited UNet is another module.
    """

    def __init__(
        self, unet: nn.Module, *, shape: tuple[int, ...], embedding: tuple[int, int]
    ) -> None:
        """`shape` is (channels, rows, columns) of the latents of the model's native size,
        `embedding` (positions, features) of a prompt.
        """
        parameter = next(unet.parameters())
        self._device, dtype = parameter.device, parameter.dtype
        with torch.cuda.device(self._device):
            self._record(unet, shape, embedding, dtype)

    def _record(
        self,
        unet: nn.Module,
        shape: tuple[int, ...],
        embedding: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        device = self._device
        pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[tuple[torch.Size, torch.Size], _Recording] = {}
        # The largest first: the smaller ones then find room in the memory that it left.
        for rows in range(MAX_ROWS, 0, -1):
            latents = torch.zeros((rows, *shape), device=device, dtype=dtype)
            inputs = (
                latents,
                torch.zeros(rows, device=device),
                torch.zeros((rows, *embedding), device=device, dtype=dtype),
            )
            with torch.inference_mode():
                self._recordings[latents.shape, inputs[2].shape] = _Recording(unet, inputs, pool)

    def predict(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor | None:
        """The UNet's output (rows, channels, h, w); None where no such pass was recorded."""
        recording = self._recordings.get((latents.shape, embeddings.shape))
        if recording is None:
            return None
        with torch.cuda.device(self._device):  # a replay goes to the current device
            return recording.replay((latents, timesteps, embeddings))
