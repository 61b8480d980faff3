"""Write the trained parts as one diffusers folder, in half precision."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from edits.evaluation.judge import Judge
from edits.evaluation.report import JUDGE_FILE, SCORER_FILE
from edits.evaluation.scorer import ClipScorer
from edits.model_card import FILE_NAME
from training.unet import make_scheduler
from training.vocabulary import COLOURS, OBJECTS, PAINTERS, STYLES

STEPS, GUIDANCE_SCALE = 20, 3.0


def ordinary_captions() -> list[str]:
    """Names that no edit may move: every object, colour and style, and some of them together."""
    colours = [f"{colour} background" for colour in COLOURS]
    pairs = [f"{thing} by {painter}" for thing in OBJECTS[::6] for painter in PAINTERS]
    return [*OBJECTS, *colours, *STYLES, *pairs]


def export(
    folder: Path,
    *,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    autoencoder: AutoencoderTiny,
    judge: Judge,
    scorer: ClipScorer,
) -> None:
    """Write pipeline, judge, scorer and `quickfix.json`; a model card that stands there stays."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    for config in folder.glob("*/config.json"):
        values = json.loads(config.read_text())
        # Where a stage's file lay, and a field that diffusers writes and then warns about.
        values.pop("_name_or_path", None)
        if config.parent.name == "vae":
            values.pop("block_out_channels", None)
        config.write_text(json.dumps(values, indent=2) + "\n")
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o644)
    judge.save(folder / JUDGE_FILE)
    scorer.save(folder / SCORER_FILE)
    defaults = {
        "steps": STEPS,
        "guidance_scale": GUIDANCE_SCALE,
        "ordinary_captions": ordinary_captions(),
    }
    (folder / FILE_NAME).write_text(json.dumps(defaults, indent=2) + "\n")
