"""Restoring everything is the clean run, restoring nothing the corrupted one, to the last bit."""

import numpy as np
import pytest
import torch

from edits.method.captions import Caption
from edits.tracing.denoiser import Row, StepWindow, restoring
from edits.tracing.layout import Conditioning, Layout
from edits.tracing.plan import ROW_MULTIPLE
from edits.tracing.positions import position_groups
from edits.tracing.text_encoder import MODULES, ROWS, TextRuns, TextSite, subject_noise
from tests.tiny_layouts import LAYOUTS, build_layout

TEXT = "a photo of a pistol on a red background"
CAPTION = Caption(TEXT, TEXT.index("pistol"), TEXT.index("pistol") + len("pistol"))
STEPS, GUIDANCE = 3, 3.0


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    return Layout.of(build_layout(request.param))


@pytest.fixture(scope="module")
def runs(layout):
    return TextRuns(layout, CAPTION, noise=3.0, draw="0/0")


def draw(layout, conditioning, rows=None, **window):
    """Pictures of the rows, in a batch filled up as the tracer fills its batches."""
    wanted = len(conditioning)
    filled = [*range(wanted), *[0] * (-wanted % ROW_MULTIPLE)]
    rows = rows or [Row()] * wanted
    with restoring(layout, [rows[i] for i in filled], **window):
        pictures = layout.draw(
            conditioning.pick(filled),
            layout.unconditional(),
            seeds=[7] * len(filled),
            steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="pt",
        )
    return list(pictures[:wanted])


def test_noise_on_the_subject_changes_the_picture(layout, runs):
    clean, corrupted = draw(layout, Conditioning.stack([runs.clean, runs.corrupted]))
    assert not torch.equal(clean, corrupted)


def test_restoring_every_site_of_the_text_encoders_gives_the_clean_picture(layout, runs):
    restored = runs.restored([runs.everything(), frozenset()])
    assert restored.row_bytes(0) == runs.clean.row_bytes(0)
    clean, everything = draw(layout, Conditioning.stack([runs.clean, restored.pick([0])]))
    assert torch.equal(clean, everything)


def test_restoring_no_site_of_the_text_encoders_gives_the_corrupted_picture(layout, runs):
    restored = runs.restored([frozenset(), runs.everything()])
    assert restored.row_bytes(0) == runs.corrupted.row_bytes(0)
    corrupted, nothing = draw(layout, Conditioning.stack([runs.corrupted, restored.pick([0])]))
    assert torch.equal(corrupted, nothing)


@pytest.mark.parametrize("branches", ["both", "conditional"])
def test_restoring_every_module_of_the_denoiser_gives_the_clean_picture(layout, runs, branches):
    everything = frozenset(unit.path for unit in layout.units)
    rows = [Row(), Row(restored=everything, source=0), Row()]
    conditioning = Conditioning.stack([runs.clean, runs.corrupted, runs.corrupted])
    clean, restored, corrupted = draw(layout, conditioning, rows, branches=branches)
    assert torch.equal(clean, restored)
    assert not torch.equal(clean, corrupted)


def test_restoring_no_module_of_the_denoiser_gives_the_corrupted_picture(layout, runs):
    everything = frozenset(unit.path for unit in layout.units)
    conditioning = Conditioning.stack([runs.clean, runs.corrupted, runs.corrupted])
    plain = draw(layout, conditioning)
    none = draw(layout, conditioning, [Row(), Row(), Row(restored=everything, source=0)],
                window=StepWindow(STEPS, None))  # fmt: skip
    assert torch.equal(none[1], plain[1])
    assert torch.equal(none[2], plain[1])


def test_a_window_of_steps_restores_less_than_all_steps(layout, runs):
    everything = frozenset(unit.path for unit in layout.units)
    conditioning = Conditioning.stack([runs.clean, runs.corrupted, runs.corrupted])
    rows = [Row(), Row(), Row(restored=everything, source=0)]
    clean, corrupted, late = draw(layout, conditioning, rows, window=StepWindow(1, None))
    assert not torch.equal(late, corrupted)
    assert not torch.equal(late, clean)


def test_layers_below_a_restored_one_are_not_run_again(layout, runs):
    encoder = layout.encoders[0]
    top = len(encoder.layers) - 1
    calls = []
    handles = [
        part.self_attn.register_forward_hook(lambda *_call, number=number: calls.append(number))
        for number, part in enumerate(encoder.layers)
    ]
    others = [
        part.self_attn.register_forward_hook(lambda *_call: calls.append("another encoder"))
        for other in layout.encoders[1:]
        for part in other.layers
    ]
    runs.restored([frozenset([TextSite(encoder.component, top, "mlp", "last")])])
    for handle in (*handles, *others):
        handle.remove()
    assert calls == [top]


def test_a_resumed_run_equals_a_run_of_all_layers(layout, runs):
    """The oracle: the whole stack with hooks, nothing skipped."""
    for encoder in layout.encoders:
        for number, part in enumerate(encoder.layers):
            for module in MODULES:
                site = TextSite(encoder.component, number, module, "last")
                fast = runs.restored([frozenset([site])])
                slow = _whole(layout, runs, encoder, part.module(module), site)
                assert torch.equal(fast.prompt, slow.prompt)
                if slow.pooled is not None:
                    assert torch.equal(fast.pooled, slow.pooled)


def _whole(layout, runs, encoder, module, site):
    clean = []
    grab = module.register_forward_hook(
        lambda _m, _a, out: clean.append(out[0] if isinstance(out, tuple) else out)
    )
    layout.encode([TEXT] * ROWS)
    grab.remove()
    place = position_groups(encoder, CAPTION, ("last",), param="caption")["last"][0]

    def put(_module, _arguments, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, place] = clean[0][:, place]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handles = [module.register_forward_hook(put)]
    for other in layout.encoders:
        noise = subject_noise(other, CAPTION, noise=3.0, draw="0/0")
        for table in other.embeddings:
            handles.append(
                table.register_forward_hook(lambda _m, _a, out, noise=noise: out + noise)
            )
    slow = layout.encode([TEXT] * ROWS)
    for handle in handles:
        handle.remove()
    return slow.pick([0])


def test_the_clean_picture_is_the_pipelines_own(layout):
    own = layout.pipeline(
        TEXT,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    (mine,) = layout.draw(
        layout.encode([TEXT]),
        layout.unconditional(),
        seeds=[7],
        steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
    )
    assert np.array_equal(mine, own)
