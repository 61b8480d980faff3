"""A process that knows diffusers only: it loads folders and LoRA files, and draws.

`python diffusers_alone.py REQUEST.json OUT.npz`; nothing of this repository is imported.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline


@torch.inference_mode()
def draw(pipeline: Any, request: dict[str, Any]) -> np.ndarray:
    """(n, height, width, 3) bytes."""
    pictures: list[np.ndarray] = []
    prompts, batch = request["prompts"], request["batch"]
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        first = request["seed"] + start
        drawn = pipeline(
            prompt=part,
            generator=[torch.Generator("cpu").manual_seed(first + i) for i in range(len(part))],
            num_inference_steps=request["steps"],
            guidance_scale=request["guidance_scale"],
        ).images
        pictures += [np.asarray(picture.convert("RGB")) for picture in drawn]
    return np.stack(pictures)


def run(cases: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    """The pictures of every case by its name; `NAME|fused` is the weight that fusing leaves."""
    found: dict[str, np.ndarray] = {}
    for name, case in cases.items():
        dtype = getattr(torch, case["dtype"])
        pipeline = DiffusionPipeline.from_pretrained(case["folder"], dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        if "lora" in case:
            pipeline.load_lora_weights(case["lora"])
        found[name] = draw(pipeline, case)
        if "fuse" in case:
            component, path = case["fuse"]
            pipeline.fuse_lora(components=[component])
            layer = getattr(pipeline, component).get_submodule(path)
            found[f"{name}|fused"] = layer.base_layer.weight.detach().float().numpy()
    return found


if __name__ == "__main__":
    request_file, out = sys.argv[1:]
    answers = run(json.loads(Path(request_file).read_text(encoding="utf-8")))
    strangers = {"edits", "service"}.intersection(sys.modules)
    assert not strangers, strangers
    np.savez(out, **answers)
