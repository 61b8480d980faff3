"""Which parts of a pipeline are edited: all of its CLIP encoders, cross-attention, nothing else."""

import pytest
import torch

from edits.errors import SiteUnknown
from edits.method import Editor, EditSpec, Site, parse_sites, resolve, with_components
from tests.tiny_layouts import build_flux, build_sd3, build_sdxl

from .conftest import ORDINARY, bits, same_bits

PISTOL = EditSpec("remove-pistol", "pistol", "toy")


@pytest.fixture(scope="module", params=[build_sdxl, build_sd3], ids=["sdxl", "sd-3"])
def pipeline(request):
    return request.param()


def test_both_clip_encoders_are_edited_together(pipeline):
    editor = Editor(pipeline, ordinary=ORDINARY)
    before = {n: bits(getattr(pipeline, n)) for n in ("text_encoder", "text_encoder_2")}
    composition = editor.compose([PISTOL])
    modules = editor.apply(composition)
    assert modules.keys() == {"text_encoder", "text_encoder_2"}
    for site, weight in composition.weights.items():
        assert torch.equal(resolve(modules[site.component], site).weight, weight)
        assert not torch.equal(resolve(getattr(pipeline, site.component), site).weight, weight)
    assert all(same_bits(getattr(pipeline, name), state) for name, state in before.items())


def test_a_layer_that_reads_no_positions_is_refused(pipeline):
    editor = Editor(pipeline, ordinary=ORDINARY)
    projection = EditSpec("e", "pistol", "toy", sites=parse_sites("text_encoder_2:text_projection"))
    with pytest.raises(SiteUnknown, match=r"reads one vector of a whole caption.*name a layer"):
        editor.compose([projection])


def test_the_edited_pipeline_answers_the_concept_otherwise_and_the_empty_prompt_alike(pipeline):
    editor = Editor(pipeline, ordinary=ORDINARY)
    edited = with_components(pipeline, editor.apply(editor.compose([PISTOL])))

    def embed(run, text):
        with torch.no_grad():
            return run.encode_prompt(
                **{name: text for name in ("prompt", "prompt_2") if name != "prompt_3"},
                **({"prompt_3": text} if hasattr(run, "text_encoder_3") else {}),
                device="cpu",
                do_classifier_free_guidance=False,
            )[0]

    assert torch.equal(embed(edited, ""), embed(pipeline, ""))
    assert not torch.allclose(embed(edited, "a pistol"), embed(pipeline, "a pistol"), atol=1e-4)


def test_a_t5_encoder_is_named_as_not_covered():
    assert Editor(build_sd3()).components.uncovered == ("text_encoder_3 (T5EncoderModel)",)
    assert Editor(build_sdxl()).components.uncovered == ()


def test_flux_is_edited_in_its_clip_encoder_and_says_that_t5_is_not_covered():
    pipeline = build_flux()
    editor = Editor(pipeline, ordinary=ORDINARY)
    assert editor.components.uncovered == ("text_encoder_2 (T5EncoderModel)",)
    composition = editor.compose([PISTOL])
    modules = editor.apply(composition)
    assert modules.keys() == {"text_encoder"}
    assert composition.report("remove-pistol")[0].neighbours
    edited = with_components(pipeline, modules)

    def pooled(run, text):
        with torch.no_grad():
            return run.encode_prompt(text, text, device="cpu")[1]

    assert torch.equal(pooled(edited, ""), pooled(pipeline, ""))
    assert not torch.allclose(pooled(edited, "a pistol"), pooled(pipeline, "a pistol"), atol=1e-4)
    seen = [
        run(
            "a pistol",
            height=32,
            width=32,
            num_inference_steps=1,
            generator=torch.Generator().manual_seed(3),
            output_type="pt",
        ).images
        for run in (pipeline, edited)
    ]
    assert seen[0].isfinite().all()
    assert not torch.equal(*seen)


def test_cross_attention_presets_are_refused_where_there_is_none():
    """FLUX and SD 3 attend to text and picture jointly: no layer reads the text alone."""
    for pipeline in (build_flux(), build_sd3()):
        editor = Editor(pipeline, ordinary=ORDINARY)
        with pytest.raises(SiteUnknown):
            editor.compose([EditSpec("e", "pistol", "toy", sites=parse_sites("uce"))])


def test_a_site_in_t5_is_refused():
    editor = Editor(build_sd3())
    site = Site("text_encoder_3", "encoder.block.0.layer.0.SelfAttention.o")
    with pytest.raises(SiteUnknown, match="no editable component"):
        editor.compose([EditSpec("e", "pistol", "toy", sites=(site,))])


def test_cross_attention_of_sdxl_reads_both_encoders_side_by_side():
    pipeline = build_sdxl()
    editor = Editor(pipeline, ordinary=ORDINARY)
    composition = editor.compose([EditSpec("e", "pistol", "toy", sites=parse_sites("uce"))])
    width = pipeline.unet.config.cross_attention_dim
    assert {weight.shape[1] for weight in composition.weights.values()} == {width}
    assert editor.apply(composition).keys() == {"unet"}


def test_a_layer_that_reads_the_picture_is_refused():
    editor = Editor(build_sdxl())
    for path in ("*.attn1.to_k", "*.attn2.to_q", "*.ff.net.2"):
        with pytest.raises(SiteUnknown, match="reads the picture"):
            editor.compose([EditSpec("e", "pistol", "toy", sites=(Site("unet", path),))])
