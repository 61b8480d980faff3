"""The artefact: small, exact within its bound, and only for the model that it was made from."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edits.errors import FingerprintMismatch, QuickFixError, SiteUnknown
from edits.export.artefact import TOLERANCE, read_artefact, read_card, write_artefact
from edits.export.edit_set import EditSet
from edits.export.lowrank import unit_roundoff
from edits.method import QUICKFIX, Editor, EditSpec, Site, parse_sites, resolve, weights_digest
from tests.export.compare import edit_set
from tests.export.conftest import PISTOL, random_encoder
from tests.tiny_layouts import build_sdxl
from tests.tiny_pipeline import build_pipeline

SIXTEEN_ALIASES = (
    *("gun", "handgun", "rifle", "revolver", "shotgun", "firearm", "sidearm", "musket"),
    *("carbine", "blaster", "derringer", "six shooter", "glock", "luger", "colt", "beretta"),
)


def weight_of(pipeline, site):
    return resolve(getattr(pipeline, site.component), site).weight.detach()


def off(weight, wanted):
    """The Frobenius norm of the difference, relative to what is wanted."""
    return float((weight.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.fixture
def written(demo, demo_edits, tmp_path):
    path = tmp_path / "edits.safetensors"
    return path, write_artefact(path, demo, demo_edits[0])


def changed(path, tensors=None, **fields):
    """The same file with other tensors or with other fields in what it says of itself."""
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["quickfix"])
    save_file(tensors or load_file(path), path, metadata={"quickfix": json.dumps(card | fields)})
    return path


def test_reading_gives_the_edited_weights_within_the_bound_that_the_file_states(
    demo, demo_edits, written
):
    path, (figures,) = written
    weights = read_artefact(path, demo)
    assert weights.keys() == demo_edits[0].weights.keys() == {QUICKFIX}
    found, wanted = weights[QUICKFIX], demo_edits[0].weights[QUICKFIX]
    assert found.dtype == torch.float32
    assert off(found, wanted) <= TOLERANCE + unit_roundoff(torch.float32)
    assert off(found, wanted) == pytest.approx(figures.error, rel=1e-2)
    assert off(weight_of(demo, QUICKFIX), wanted) > 0.5


def test_the_file_says_what_it_is_made_of(demo_edits, written):
    edits, (path, (figures,)) = demo_edits[0], written
    card = read_card(path)
    assert card.edits == ("remove-pistol@1", "remove-van-gogh@1")
    assert card.base == edits.base
    assert card.composition == edits.composition == weights_digest(edits.weights)
    assert card.dtype == "float32"
    assert card.errors == {str(QUICKFIX): figures.error}
    assert {name.rpartition(".")[2] for name in load_file(path)} == {"up", "down", "bits", "scale"}


def test_the_same_edits_make_the_same_bytes(demo, demo_edits, written, tmp_path):
    again = tmp_path / "again.safetensors"
    write_artefact(again, demo, demo_edits[0])
    assert again.read_bytes() == written[0].read_bytes()


def test_one_concept_with_two_aliases_stays_under_128_kib_at_the_size_of_sd_1(wide, tmp_path):
    edits, _ = edit_set(Editor(wide), [PISTOL])
    assert edits.weights[QUICKFIX].shape == (768, 768)
    path = tmp_path / "pistol.safetensors"
    (figures,) = write_artefact(path, wide, edits, max_kib=128)
    assert 15 < figures.rank < 40
    assert path.stat().st_size < 128 * 1024
    assert off(read_artefact(path, wide)[QUICKFIX], edits.weights[QUICKFIX]) < 2**-14


def test_a_budget_that_cannot_be_met_is_refused_and_nothing_is_written(wide, tmp_path):
    spec = replace(PISTOL, aliases=SIXTEEN_ALIASES)
    edits, _ = edit_set(Editor(wide), [spec])
    path = tmp_path / "guns.safetensors"
    with pytest.raises(QuickFixError, match=r"takes \d+\.\d KiB and 32 are allowed \(rank \d+"):
        write_artefact(path, wide, edits, max_kib=32)
    assert not path.exists()
    (loose,) = write_artefact(path, wide, edits, tolerance=2.0**-8)
    (tight,) = write_artefact(tmp_path / "tight.safetensors", wide, edits)
    assert loose.rank < tight.rank
    assert loose.error <= 2.0**-8
    assert path.stat().st_size < (tmp_path / "tight.safetensors").stat().st_size / 2


def test_in_half_precision_the_tolerance_is_that_of_its_rounding(wide, tmp_path):
    half = SimpleNamespace(
        text_encoder=random_encoder(wide.tokenizer, width=96, layers=2).half(),
        tokenizer=wide.tokenizer,
    )
    edits, _ = edit_set(Editor(half), [PISTOL])
    path = tmp_path / "half.safetensors"
    (figures,) = write_artefact(path, half, edits, tolerance=2.0**-20)
    assert read_card(path).tolerance == unit_roundoff(torch.float16) == 2**-11
    assert 2**-13 < figures.error <= 2**-11
    found = read_artefact(path, half)[QUICKFIX]
    assert found.dtype == torch.float16
    assert off(found, edits.weights[QUICKFIX]) <= 2 * unit_roundoff(torch.float16)


def test_both_encoders_of_sdxl_and_its_unet_go_into_one_file(tmp_path):
    pipeline = build_sdxl()
    spec = EditSpec("remove-pistol", "pistol", "toy", sites=parse_sites("quickfix"))
    unet = EditSpec("remove-beer", "beer", "juice", sites=parse_sites("uce"))
    edits, _ = edit_set(Editor(pipeline), [spec, unet])
    assert edits.components == ("text_encoder", "text_encoder_2", "unet")
    path = tmp_path / "sdxl.safetensors"
    write_artefact(path, pipeline, edits)
    weights = read_artefact(path, pipeline)
    assert weights.keys() == edits.weights.keys()
    assert all(off(weights[site], edits.weights[site]) < 2**-13.9 for site in weights)


def test_a_site_that_did_not_move_reads_back_as_it_was(demo, demo_edits, tmp_path):
    edits = demo_edits[0]
    still = {QUICKFIX: weight_of(demo, QUICKFIX).clone()}
    path = tmp_path / "still.safetensors"
    (figures,) = write_artefact(
        path, demo, EditSet(edits.names, edits.base, weights_digest(still), still)
    )
    assert (figures.rank, figures.error) == (0, 0.0)
    assert torch.equal(read_artefact(path, demo)[QUICKFIX], still[QUICKFIX])


def test_another_base_model_is_refused(demo, written):
    other = build_pipeline("sd-1.x")
    with pytest.raises(FingerprintMismatch, match="is for base model sha256:"):
        read_artefact(written[0], other)


def test_an_edited_model_is_not_the_base_model(demo, demo_edits, written):
    edited = SimpleNamespace(
        text_encoder=demo_edits[1]["text_encoder"], tokenizer=demo.tokenizer, unet=demo.unet
    )
    with pytest.raises(FingerprintMismatch):
        read_artefact(written[0], edited)


def test_another_unet_is_refused_for_sites_in_the_unet(tmp_path):
    pipeline = build_pipeline("sd-1.x")
    spec = EditSpec("remove-pistol", "pistol", "toy", sites=parse_sites("uce"))
    edits, _ = edit_set(Editor(pipeline), [spec])
    path = tmp_path / "uce.safetensors"
    write_artefact(path, pipeline, edits)
    with torch.no_grad():
        weight_of(pipeline, min(edits.weights))[0, 0] += 1.0
    with pytest.raises(FingerprintMismatch, match="other weights at its sites, in unet"):
        read_artefact(path, pipeline)


@pytest.mark.parametrize("part", ["up", "down", "bits", "scale"])
def test_one_changed_bit_is_noticed(demo, written, part):
    path, _ = written
    tensors = load_file(path)
    raw = tensors[f"{QUICKFIX}.{part}"].view(torch.uint8)
    raw[len(raw) // 2] ^= 1
    with pytest.raises(QuickFixError, match="does not match its digest"):
        read_artefact(changed(path, tensors), demo)


@pytest.mark.parametrize(
    "fields",
    [{"edits": ["remove-nothing@1"]}, {"composition": "sha256:0"}, {"errors": {}}],
)
def test_a_changed_claim_is_noticed(demo, written, fields):
    with pytest.raises(QuickFixError, match="does not match its digest"):
        read_artefact(changed(written[0], **fields), demo)


def test_files_that_are_no_artefact_are_refused_by_name(demo, tmp_path):
    text = tmp_path / "notes.safetensors"
    text.write_text("not tensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    for path, why in ((text, "cannot be read"), (other, "no artefact"), (tmp_path / "x", "read")):
        with pytest.raises(QuickFixError, match=rf"artefact '{path.name}' is refused: .*{why}"):
            read_artefact(path, demo)


def test_a_later_format_is_refused(demo, written):
    path = changed(written[0], format="quickfix-artefact/v2")
    with pytest.raises(QuickFixError, match="format: Input should be 'quickfix-artefact/v1'"):
        read_artefact(path, demo)


def test_a_site_that_the_model_lacks_is_refused(demo, demo_edits, tmp_path):
    lost = Site("text_encoder_2", QUICKFIX.path)
    edits = demo_edits[0]
    moved = EditSet(edits.names, edits.base, "sha256:", {lost: edits.weights[QUICKFIX]})
    with pytest.raises(SiteUnknown, match="no text_encoder_2"):
        write_artefact(tmp_path / "lost.safetensors", demo, moved)


def test_no_edits_are_nothing_to_export(demo):
    editor = Editor(demo)
    with pytest.raises(QuickFixError, match="nothing to export"):
        EditSet.of(editor.compose([]), names=[], base=editor.fingerprint)
