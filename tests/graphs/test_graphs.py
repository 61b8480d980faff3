"""Exported graphs: named by what decides them, complete or not there, verified when read."""

import json
import shutil

import onnx as onnx_format
import pytest
import torch
import typer
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnAddedKVProcessor2_0, AttnProcessor2_0
from typer.testing import CliRunner

from edits.errors import GraphsDamaged, GraphsUnexportable
from edits.graph_commands import onnx
from edits.graphs import cached_graphs, graphs_digest, read_graphs
from edits.graphs.attention import attention_in_one
from edits.graphs.cache import CARD
from edits.graphs.export import UNET, VAE_DECODER
from edits.loading import load_pipeline
from service.generation.backends.load import check_against_torch
from service.generation.backends.onnx import OnnxBackend
from tests.tiny_pipeline import build_pipeline, write_pipeline


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A cache with the graphs of the tiny SD 1.x pipeline; to be read only."""
    return cached_graphs(build_pipeline(), tmp_path_factory.mktemp("exported"))


@pytest.fixture
def cache(exported, tmp_path):
    """A cache of the test's own, with the same graphs."""
    shutil.copytree(exported.folder, tmp_path / exported.digest)
    return tmp_path


def test_the_folder_is_named_by_the_digest_and_holds_both_graphs(exported):
    assert exported.folder.name == exported.digest == graphs_digest(build_pipeline())
    assert exported.seconds > 0 and exported.replaced is None
    files = {str(p.relative_to(exported.folder)) for p in exported.folder.rglob("*") if p.is_file()}
    assert files == {UNET, VAE_DECODER, CARD}
    assert exported.size == exported.unet.stat().st_size + exported.vae_decoder.stat().st_size
    assert [p.name for p in exported.folder.parent.iterdir()] == [exported.digest]


def test_what_is_there_is_not_exported_again(cache, exported):
    before = (cache / exported.digest / UNET).stat().st_mtime_ns
    again = cached_graphs(build_pipeline(), cache)
    assert again.seconds == 0 and again.replaced is None
    assert again.unet.stat().st_mtime_ns == before


def test_the_text_encoder_has_no_part_in_the_digest_and_every_other_weight_has(exported):
    pipeline = build_pipeline()
    with torch.no_grad():
        next(pipeline.text_encoder.parameters()).add_(1.0)
    assert graphs_digest(pipeline) == exported.digest
    for part in (pipeline.unet, pipeline.vae):
        weight = next(part.parameters())
        with torch.no_grad():
            weight.view(-1)[0] += 1.0
        assert graphs_digest(pipeline) != exported.digest
        with torch.no_grad():
            weight.view(-1)[0] -= 1.0


def test_a_configuration_that_changes_numbers_changes_the_digest(exported):
    pipeline = build_pipeline()
    pipeline.vae.register_to_config(scaling_factor=0.5)
    assert graphs_digest(pipeline) != exported.digest
    pipeline = build_pipeline()
    pipeline.unet.register_to_config(_name_or_path="elsewhere")
    assert graphs_digest(pipeline) == exported.digest


def attentions(graph):
    """How often each of the operations that an attention becomes stands in the graph."""
    kinds = [node.op_type for node in onnx_format.load(graph).graph.node]
    return kinds.count("MultiHeadAttention"), kinds.count("Softmax")


def test_a_plain_attention_is_one_operation_and_the_model_keeps_its_own(exported):
    pipeline = build_pipeline()
    before = dict(pipeline.unet.attn_processors)
    with attention_in_one(pipeline.unet):
        assert all(a is not b for a, b in zip(inside(pipeline), before.values(), strict=True))
    assert all(a is b for a, b in zip(inside(pipeline), before.values(), strict=True))
    assert attentions(exported.unet) == (len(before), 0)


def test_an_attention_with_more_to_it_is_exported_as_it_is(tmp_path):
    """One with a norm of its own, and one that reads a picture beside the prompt."""
    pipeline = build_pipeline()
    config = {**pipeline.unet.config, "_use_default_values": []}
    config["down_block_types"] = ("CrossAttnDownBlock2D", "AttnDownBlock2D")
    pipeline.unet = UNet2DConditionModel.from_config(config).eval()
    normed = [m for m in pipeline.unet.modules() if getattr(m, "group_norm", None) is not None]
    adapted = next(n for n in pipeline.unet.attn_processors if "attn2" in n)
    module = pipeline.unet.get_submodule(adapted.removesuffix(".processor"))
    module.set_processor(AttnAddedKVProcessor2_0())
    with attention_in_one(pipeline.unet):
        now = pipeline.unet.attn_processors
        assert isinstance(now[adapted], AttnAddedKVProcessor2_0)
    module.set_processor(AttnProcessor2_0())
    count = len(pipeline.unet.attn_processors)
    graphs = cached_graphs(pipeline, tmp_path)
    assert normed and attentions(graphs.unet) == (count - len(normed), len(normed))
    check_against_torch(OnnxBackend(pipeline, graphs, threads=1), pipeline)


def inside(pipeline):
    return pipeline.unet.attn_processors.values()


def flipped(path):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))


def test_one_flipped_bit_is_refused_by_name_and_exported_again(cache, exported):
    folder = cache / exported.digest
    flipped(folder / UNET)
    with pytest.raises(GraphsDamaged, match=r"unet/model\.onnx does not match its digest"):
        read_graphs(folder, exported.digest)
    again = cached_graphs(build_pipeline(), cache)
    assert again.seconds > 0
    assert again.replaced is not None and "unet/model.onnx" in again.replaced
    assert read_graphs(folder, exported.digest).replaced is None
    assert [p.name for p in cache.iterdir()] == [exported.digest]


def test_graphs_of_another_model_are_refused_even_under_the_right_name(cache, exported):
    wanted = "0" * 64
    (cache / exported.digest).rename(cache / wanted)
    with pytest.raises(GraphsDamaged, match=f"of the model {exported.digest[:12]}, not 000000"):
        read_graphs(cache / wanted, wanted)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / CARD).unlink(), "graphs.json cannot be read"),
        (lambda folder: (folder / CARD).write_text("{}"), "graphs.json: Field required"),
        (lambda folder: (folder / VAE_DECODER).unlink(), "not those that graphs.json lists"),
        (lambda folder: (folder / "unet/more.bin").write_bytes(b"x"), "not those that graphs.json"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(cache, exported, harm, said):
    folder = cache / exported.digest
    harm(folder)
    with pytest.raises(GraphsDamaged, match=said):
        read_graphs(folder, exported.digest)


def test_a_dtype_without_graphs_is_refused_and_leaves_nothing(tmp_path):
    pipeline = build_pipeline().to(torch.bfloat16)
    with pytest.raises(GraphsUnexportable, match="bfloat16"):
        cached_graphs(pipeline, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_once_and_names_the_folder(tmp_path):
    app = typer.Typer()
    app.command()(onnx)
    model, out = write_pipeline(tmp_path / "model"), tmp_path / "onnx"

    def run():
        words = ["--model", str(model), "--out", str(out), "--json"]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    first, second = run(), run()
    assert first["exported"] and not second["exported"]
    assert (
        first["digest"]
        == second["digest"]
        == read_graphs(out / first["digest"], first["digest"]).digest
    )
    assert first["bytes"] > 10_000


def test_a_pipeline_read_from_a_folder_has_the_graphs_of_the_same_pipeline_in_memory(
    exported, tmp_path
):
    folder = write_pipeline(tmp_path / "model")
    assert graphs_digest(load_pipeline(str(folder))) == exported.digest
