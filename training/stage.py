"""The loop that every training stage runs in: steps, learning rate, average weights, resume."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

FINAL_SHARE = 0.02
CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 50


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage trains. `decay` is the average weights' factor per step."""

    name: str
    steps: int
    learning_rate: float
    warmup: int = 100
    decay: float = 0.998
    weight_decay: float = 0.01

    def rate(self, step: int) -> float:
        """Learning rate at `step`: linear warm-up, then a cosine down to 2 per cent, by steps."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.learning_rate * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def train(
    plan: Plan,
    modules: Mapping[str, nn.Module],
    loss_at: Callable[[int], Tensor],
    folder: Path,
) -> None:
    """Minimise `loss_at(step)` over the modules' parameters; the modules end with average weights.

    A checkpoint under `folder` is written about every minute and at the end, so that a killed stage
    goes on where it was: `loss_at` must draw its batch from the step's number alone.
    """
    network = nn.ModuleDict(dict(modules))
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    checkpoint = folder / f"{plan.name}.ckpt"
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step = saved["average"], saved["step"]
        print(f"{plan.name}: goes on at step {step} of {plan.steps}", flush=True)

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
        }
        draft = checkpoint.with_suffix(".tmp")
        torch.save(state, draft)
        draft.replace(checkpoint)

    network.train()
    started, first, saved_at, running = time.monotonic(), step, time.monotonic(), None
    while step < plan.steps:
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        # Early averages would remember the random start: the decay grows with the steps taken.
        keep = min(plan.decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for key, value in network.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - keep)
                else:
                    average[key].copy_(value)
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if step % REPORT_STEPS == 0 or step == plan.steps:
            seconds = (time.monotonic() - started) / (step - first)
            print(
                f"{plan.name}: step {step}/{plan.steps} loss {running:.4f} "
                f"{seconds:.2f} s/step, {seconds * (plan.steps - step) / 60:.1f} min left",
                flush=True,
            )
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            save()
            saved_at = time.monotonic()
    save()
    network.load_state_dict(average)
    network.eval()
