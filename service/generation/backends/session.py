"""One ONNX graph on one device; tensors are bound by their addresses, so none is copied."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.capi import onnxruntime_pybind11_state
from torch import Tensor

from service.errors import BackendUnavailable

__all__ = ["BoundSession", "provider_of"]

_ELEMENTS = {torch.float32: np.float32, torch.float16: np.float16}

# It has one class for each status, and nothing above them but Exception.
_FAILURES = tuple(
    kind
    for kind in vars(onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)

# What its memory arena says: a batch that does not fit is halved, and not tried again for a while.
_NO_MEMORY = "Failed to allocate memory"


def provider_of(device: torch.device) -> str:
    """The execution provider that runs on `device`."""
    return "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"


class BoundSession:
    """A graph with one output. One thread at a time calls `run`.

    spin_microseconds: how long a thread that waits for the next operation of a run keeps its core;
    between two runs none does.
    Raises BackendUnavailable if onnxruntime would run it on another provider than `device`'s: by
    itself it falls back to the CPU without an error.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        threads: int,
        spin_microseconds: int = 0,
    ) -> None:
        self._device = device
        wanted = provider_of(device)
        options = ort.SessionOptions()
        options.log_severity_level = 3  # its warnings are of shape nodes that it keeps on the CPU
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        for key, value in (
            ("intra_op.allow_spinning", int(spin_microseconds > 0)),
            ("intra_op.spin_duration_us", spin_microseconds),
            ("force_spinning_stop", 1),
        ):
            options.add_session_config_entry(f"session.{key}", str(value))
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=[(wanted, _provider_options(device))]
            )
        except _FAILURES as error:
            raise BackendUnavailable(
                f"onnxruntime cannot load {path.parent.name} for {wanted}: {type(error).__name__}; "
                "export the graphs again with `quickfix onnx`, or use backend torch",
                param="QUICKFIX_BACKEND",
            ) from error
        self._session.disable_fallback()
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted:
            raise BackendUnavailable(
                f"onnxruntime runs on {self.provider}, {wanted} was asked for device {device}: its "
                "libraries are missing or of another version; install them, or set the device to "
                "cpu",
                param="QUICKFIX_BACKEND",
            )

    def run(self, inputs: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Fill `output`, contiguous and of the right shape, and return it.

        Raises RuntimeError when onnxruntime fails, torch.OutOfMemoryError when it lacks memory.
        """
        binding = self._session.io_binding()
        held = {name: tensor.contiguous() for name, tensor in inputs.items()}
        for name, tensor in held.items():
            binding.bind_input(name, *self._place(tensor))
        (name,) = (each.name for each in self._session.get_outputs())
        binding.bind_output(name, *self._place(output))
        if self._device.type == "cuda":
            # onnxruntime has a stream of its own: what torch has queued must be there first.
            # Not run by the tests: it needs a GPU.
            torch.cuda.current_stream(self._device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except RuntimeError as error:  # of a bound run it has no other class
            if _NO_MEMORY in str(error):
                raise torch.OutOfMemoryError("onnxruntime has no memory left") from error
            raise
        binding.synchronize_outputs()
        return output

    def _place(self, tensor: Tensor) -> tuple[str, int, type, tuple[int, ...], int]:
        kind, index = self._device.type, self._device.index or 0
        return kind, index, _ELEMENTS[tensor.dtype], tuple(tensor.shape), tensor.data_ptr()


def _provider_options(device: torch.device) -> dict[str, str]:
    if device.type != "cuda":
        return {}
    # Not run by the tests: it needs a GPU.
    return {
        "device_id": str(device.index or 0),
        # By default it searches for the best algorithm anew at every new number of rows.
        "cudnn_conv_algo_search": "HEURISTIC",
        # float32 is float32: who wants speed for digits asks for float16.
        "use_tf32": "0",
    }
