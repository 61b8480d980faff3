"""An edited layer that answers the pinned keys with the very bits of the pristine one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROUNDING = 32  # float epsilons by which a key at run time may differ from the one captured


class PinnedLinear(nn.Linear):
    """`W x + b`, and `W0 x + b` for every x in the span of the pinned keys.

    The solve already leaves that span still; but `W` and `W0` are sums in another order of other
    numbers, and round apart in the last bits. With this layer the empty prompt, which is the
    unconditional branch of guidance, has the pristine embedding bit for bit. The state is that of
    a plain nn.Linear: what is saved is `W` and `b`.
    """

    def __init__(self, pristine: nn.Linear, weight: Tensor, basis: Tensor) -> None:
        """weight (d_out, d_in); basis (r, d_in): orthonormal rows that span the pinned keys."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = pristine.in_features, pristine.out_features
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = pristine.bias
        self._pristine_weight: Tensor
        self._basis: Tensor
        self.register_buffer("_pristine_weight", pristine.weight.detach(), persistent=False)
        self.register_buffer("_basis", basis.to(weight.device, torch.float32), persistent=False)
        self._tolerance = max(_ROUNDING * torch.finfo(torch.float32).eps, self._own_rounding())

    def forward(self, input: Tensor) -> Tensor:
        """Keys (..., d_in) to outputs (..., d_out)."""
        edited = functional.linear(input, self.weight, self.bias)
        pristine = functional.linear(input, self._pristine_weight, self.bias)
        output: Tensor = torch.where(self._is_pinned(input), pristine, edited)
        return output

    def _is_pinned(self, keys: Tensor) -> Tensor:
        exact = keys.float()
        outside = exact - (exact @ self._basis.T) @ self._basis
        limit: Any = self._tolerance * exact.norm(dim=-1, keepdim=True)
        pinned: Tensor = outside.norm(dim=-1, keepdim=True) <= limit
        return pinned

    def _own_rounding(self) -> float:
        eps = torch.finfo(self.weight.dtype).eps
        return 0.0 if self.weight.dtype == torch.float32 else 2 * eps
