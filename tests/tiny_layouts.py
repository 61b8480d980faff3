"""Random pipelines with the exact layouts of SDXL, Stable Diffusion 3 and FLUX, and a tiny CLIP.

They draw noise. Captions and noise change the pictures clearly, so that a hook, a cut or a swap
that does nothing can be told from one that does something.
"""

import json
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.tiny_pipeline import (
    HIDDEN,
    NATIVE_PIXELS,
    POSITIONS,
    STEPS,
    build_pipeline,
    build_tokenizer,
    spread,
)

TinyLayout = Literal["sd-1.x", "sd-2.x", "sdxl", "sd-3"]
LAYOUTS: tuple[TinyLayout, ...] = ("sd-1.x", "sd-2.x", "sdxl", "sd-3")

HIDDEN_2 = 48
PROJECTION, PROJECTION_2 = 24, 40
LAYERS, LAYERS_2, LAYERS_T5 = 3, 4, 2
T5_WIDTH = 96
TIME_WIDTH = 8
CLIP_PROJECTION = 16
_LATENT = NATIVE_PIXELS // 4
_LONGEST_WHOLE_WORD = 6


def build_t5_tokenizer() -> T5Tokenizer:
    """A Unigram tokenizer for the captions of the CLIP one.

    Words of more than six letters come in two pieces (`▁pai` `nting`), unknown ones letter by
    letter. As in T5: id 0 pads, id 1 ends, nothing starts, case counts.
    """
    clip = build_tokenizer("sd-1.x")
    ends = (token.removesuffix("</w>") for token in clip.get_vocab() if token.endswith("</w>"))
    words = sorted(word for word in ends if len(word) > 1)
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pieces: dict[str, float] = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -3.0}
    pieces |= dict.fromkeys(letters, -9.0)
    for word in words:
        half = len(word) if len(word) <= _LONGEST_WHOLE_WORD else len(word) // 2
        pieces["▁" + word[:half]] = -2.0
        if word[half:]:
            pieces[word[half:]] = -2.0
    return T5Tokenizer(vocab=list(pieces.items()), extra_ids=0, model_max_length=512)


def build_sdxl(*, seed: int = 0) -> StableDiffusionXLPipeline:
    """SDXL: two CLIP encoders side by side in the width, pooled text and sizes beside the time."""
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = build_tokenizer("sd-1.x"), build_tokenizer("sd-2.x")
    text_encoder = CLIPTextModel(_text_config(tokenizer, HIDDEN, LAYERS, PROJECTION, "quick_gelu"))
    text_encoder_2 = CLIPTextModelWithProjection(
        _text_config(tokenizer_2, HIDDEN_2, LAYERS_2, PROJECTION_2, "gelu")
    )
    spread(text_encoder)
    spread(text_encoder_2)
    unet = UNet2DConditionModel(
        sample_size=_LATENT,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=HIDDEN + HIDDEN_2,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=6 * TIME_WIDTH + PROJECTION_2,
        norm_num_groups=8,
    )
    _heed_text(unet)
    vae = _build_vae(latent_channels=4, scaling_factor=0.13025)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    _freeze(pipeline)
    return pipeline


def build_sd3(*, seed: int = 0) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3: CLIP and T5 encoders one after another, joint attention, flow steps."""
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = build_tokenizer("sd-1.x"), build_tokenizer("sd-2.x")
    tokenizer_3 = build_t5_tokenizer()
    text_encoder = CLIPTextModelWithProjection(
        _text_config(tokenizer, HIDDEN, LAYERS, PROJECTION, "quick_gelu")
    )
    text_encoder_2 = CLIPTextModelWithProjection(
        _text_config(tokenizer_2, HIDDEN_2, LAYERS_2, PROJECTION_2, "gelu")
    )
    spread(text_encoder)
    spread(text_encoder_2)
    text_encoder_3 = _t5_encoder(tokenizer_3)
    transformer = SD3Transformer2DModel(
        sample_size=_LATENT,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=PROJECTION + PROJECTION_2,
        pos_embed_max_size=2 * _LATENT,
    )
    _heed_text(transformer)
    vae = _build_vae(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609)
    pipeline = StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        text_encoder_3=text_encoder_3,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=tokenizer_3,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    _freeze(pipeline)
    return pipeline


def build_flux(*, seed: int = 0) -> FluxPipeline:
    """FLUX.1: of CLIP it takes the pooled embedding alone, the sequence comes from T5."""
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = build_tokenizer("sd-1.x"), build_t5_tokenizer()
    text_encoder = CLIPTextModel(_text_config(tokenizer, HIDDEN, LAYERS, PROJECTION, "quick_gelu"))
    spread(text_encoder)
    text_encoder_2 = _t5_encoder(tokenizer_2)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=HIDDEN,
        axes_dims_rope=(4, 4, 8),
    )
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_build_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )
    _freeze(pipeline)
    return pipeline


def _t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=T5_WIDTH,
            d_kv=8,
            d_ff=2 * T5_WIDTH,
            num_layers=LAYERS_T5,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )


def build_untraceable(*, seed: int = 0) -> DDPMPipeline:
    """A pipeline without captions: no text encoder, an unconditional UNet."""
    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=_LATENT,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipeline = DDPMPipeline(unet=unet, scheduler=DDPMScheduler())
    _freeze(pipeline)
    return pipeline


def build_layout(layout: TinyLayout, *, seed: int = 0) -> DiffusionPipeline:
    """A pipeline of one layout whose pictures heed their captions."""
    if layout == "sdxl":
        return build_sdxl(seed=seed)
    if layout == "sd-3":
        return build_sd3(seed=seed)
    pipeline = build_pipeline(layout, seed=seed)
    _heed_text(pipeline.unet)
    return pipeline


def write_layout(folder: Path, layout: TinyLayout, *, seed: int = 0) -> Path:
    """A pipeline folder with its `quickfix.json`, loadable by `from_pretrained`."""
    build_layout(layout, seed=seed).save_pretrained(folder)
    card = {
        "steps": STEPS,
        "guidance_scale": 3.0,
        "ordinary_captions": ["cat", "robot", "house", "tree"],
    }
    (folder / "quickfix.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def write_clip_model(folder: Path, *, seed: int = 0) -> Path:
    """A random CLIP with its processor, loadable by `CLIPModel` and `CLIPProcessor`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer("sd-1.x")
    text = _text_config(tokenizer, HIDDEN, LAYERS, CLIP_PROJECTION, "quick_gelu")
    model = CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(),
            vision_config={
                "hidden_size": HIDDEN,
                "intermediate_size": 2 * HIDDEN,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": NATIVE_PIXELS,
                "patch_size": 8,
                "projection_dim": CLIP_PROJECTION,
            },
            projection_dim=CLIP_PROJECTION,
        )
    )
    spread(model)
    embeddings = model.vision_model.embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.normal_(0.0, 0.5)
        embeddings.position_embedding.weight.mul_(0.1)
    model.requires_grad_(False).eval()
    model.save_pretrained(folder)
    images = CLIPImageProcessorPil(
        size={"shortest_edge": NATIVE_PIXELS},
        crop_size={"height": NATIVE_PIXELS, "width": NATIVE_PIXELS},
    )
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def _text_config(
    tokenizer: CLIPTokenizer, hidden: int, layers: int, projection: int, activation: str
) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=projection,
        max_position_embeddings=POSITIONS,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _build_vae(
    *, latent_channels: int, scaling_factor: float, shift_factor: float | None = None
) -> AutoencoderKL:
    """SD 3's has a shift and no 1x1 convolutions around the latents."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=NATIVE_PIXELS,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=shift_factor is None,
        use_post_quant_conv=shift_factor is None,
    )


def _heed_text(denoiser: UNet2DConditionModel | SD3Transformer2DModel) -> None:
    """Larger text values, sharper attention: with torch's own weights the text hardly shows."""
    gains = {
        "attn2.to_v.weight": 3.0,
        "attn2.to_out.0.weight": 3.0,
        "add_embedding.linear_2.weight": 3.0,
        ".attn.to_q.weight": 3.0,
        ".attn.add_k_proj.weight": 3.0,
        ".attn.add_v_proj.weight": 2.0,
        ".attn.to_out.0.weight": 2.0,
    }
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            for ending, gain in gains.items():
                if name.endswith(ending):
                    parameter.mul_(gain)
            if name.endswith(("norm1.linear.bias", "norm1_context.linear.bias")):
                parameter.normal_(0.0, 0.5)


def _freeze(pipeline: DiffusionPipeline) -> None:
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            component.requires_grad_(False).eval()
