"""Backends: the numbers of diffusers, on the provider that was asked for, or not at all."""

import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from edits.errors import EditRefused, ModelLoadError
from edits.graphs import Graphs, cached_graphs
from edits.loading import load_pipeline
from edits.manifests import RevisionContent, parse_manifest
from service.errors import BackendMismatch, BackendUnavailable, SettingsInvalid
from service.generation.backends import Backend, TorchBackend, load_backend
from service.generation.backends.load import check_against_torch
from service.generation.backends.onnx import OnnxBackend
from service.generation.backends.session import BoundSession
from service.generation.backends.torch import unet_layout
from service.generation.encoder import PromptEncoder
from service.model import ServedModel
from service.settings import Settings
from service.snapshot import SnapshotBuilder
from tests.tiny_pipeline import STEPS, build_pipeline

from .replica import Replica, manifest

BOUND = 1e-4
PIPELINES = ("sd-1.x", "sd-2.x", "demo")  # AutoencoderKL; linear projections and a tiny VAE; served


def pipeline_of(name: str) -> Any:
    return load_pipeline("models/demo") if name == "demo" else build_pipeline(name)  # type: ignore[arg-type]


def test_a_unet_that_takes_the_guidance_scale_as_an_input_is_refused_at_load(
    tmp_path: Path,
) -> None:
    """Drawn without that input its pictures are others than diffusers', and nothing says so."""
    pipeline = build_pipeline()
    config = {**pipeline.unet.config, "time_cond_proj_dim": 16}
    config["_use_default_values"] = []
    pipeline.unet = UNet2DConditionModel.from_config(config)
    pipeline.save_pretrained(tmp_path / "lcm")
    with pytest.raises(ModelLoadError, match=r"'lcm' takes the guidance scale.*distilled from"):
        load_pipeline(str(tmp_path / "lcm"))


class Given:
    """A pipeline that diffusers runs, and each backend on a copy of it."""

    def __init__(self, name: str, cache: Path) -> None:
        self.pipeline = pipeline_of(name)
        self.graphs = cached_graphs(self.pipeline, cache)
        served = pipeline_of(name)
        self.backends: dict[str, Backend] = {
            "torch": TorchBackend(served),
            "onnx": OnnxBackend(served, self.graphs, threads=1),
        }

    def inputs(self, rows: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, mixed timesteps, embeddings."""
        draw = torch.Generator().manual_seed(rows)
        positions = self.pipeline.tokenizer.model_max_length
        features = self.pipeline.unet.config.cross_attention_dim
        return (
            torch.randn(rows, 4, height, width, generator=draw),
            torch.randint(0, 1000, (rows,), generator=draw),
            torch.randn(rows, positions, features, generator=draw),
        )


@pytest.fixture(scope="module", params=PIPELINES)
def given(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(request.param, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given("sd-1.x", tmp_path_factory.mktemp("graphs"))


def furthest(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize("name", ["torch", "onnx"])
@pytest.mark.parametrize(("rows", "height", "width"), [(1, 8, 8), (3, 16, 12), (8, 4, 20)])
def test_predict_gives_what_diffusers_unet_gives(
    given: Given, name: str, rows: int, height: int, width: int
) -> None:
    latents, timesteps, embeddings = given.inputs(rows, height, width)
    with torch.inference_mode():
        wanted = given.pipeline.unet(
            latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
    got = given.backends[name].predict(latents, timesteps, embeddings)
    assert furthest(got, wanted) <= BOUND
    assert float(wanted.std()) > 100 * BOUND  # there is something to compare


@pytest.mark.parametrize("name", ["torch", "onnx"])
@pytest.mark.parametrize(("rows", "height", "width"), [(1, 8, 8), (3, 16, 12)])
def test_decode_gives_what_diffusers_vae_gives(
    given: Given, name: str, rows: int, height: int, width: int
) -> None:
    latents, _, _ = given.inputs(rows, height, width)
    vae = given.pipeline.vae
    with torch.inference_mode():
        wanted = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    got = given.backends[name].decode(latents)
    assert furthest(got, wanted) <= BOUND
    assert float(wanted.std()) > 100 * BOUND


def test_a_vae_with_a_shift_has_it_added_after_the_scale(tmp_path: Path) -> None:
    pipeline = build_pipeline()
    pipeline.vae.register_to_config(shift_factor=0.25)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vae = pipeline.vae
        wanted = vae.decode(latents / vae.config.scaling_factor + 0.25, return_dict=False)[0]
        without = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    assert furthest(wanted, without) > 100 * BOUND
    onnx = OnnxBackend(pipeline, cached_graphs(pipeline, tmp_path), threads=1)
    assert furthest(onnx.decode(latents), wanted) <= BOUND
    assert furthest(TorchBackend(pipeline).decode(latents), wanted) <= BOUND


@pytest.mark.parametrize("name", ["torch", "onnx"])
@pytest.mark.parametrize("kind", [torch.int64, torch.float32])
def test_a_row_does_not_depend_on_the_timesteps_beside_it(
    given: Given, name: str, kind: torch.dtype
) -> None:
    latents, timesteps, embeddings = given.inputs(5, 8, 8)
    assert len(set(timesteps.tolist())) == 5
    backend = given.backends[name]
    together = backend.predict(latents, timesteps.to(kind), embeddings)
    for i in range(5):
        alone = backend.predict(
            latents[i : i + 1], timesteps[i : i + 1].to(kind), embeddings[i : i + 1]
        )
        assert furthest(together[i : i + 1], alone) <= BOUND


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_an_answer_stays_as_it_is_while_the_next_one_is_computed(tiny: Given, name: str) -> None:
    backend = tiny.backends[name]
    first = backend.predict(*tiny.inputs(2, 8, 8))
    before = first.clone()
    backend.predict(*tiny.inputs(3, 8, 8))
    assert torch.equal(first, before)


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_inputs_need_not_be_contiguous(tiny: Given, name: str) -> None:
    latents, timesteps, embeddings = tiny.inputs(2, 8, 8)
    strided = latents.to(memory_format=torch.channels_last), timesteps, embeddings[:, ::2]
    whole = latents, timesteps, embeddings[:, ::2].contiguous()
    backend = tiny.backends[name]
    assert furthest(backend.predict(*strided), backend.predict(*whole)) <= BOUND
    assert furthest(backend.decode(strided[0]), backend.decode(latents)) <= BOUND


def test_the_provider_is_read_back(tiny: Given) -> None:
    assert tiny.backends["torch"].provider == "cpu"
    assert tiny.backends["onnx"].provider == "CPUExecutionProvider"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_provider_that_falls_back_to_the_cpu_is_an_error(tiny: Given) -> None:
    """onnxruntime lists the CUDA provider and then runs on the CPU without raising."""
    with pytest.raises(BackendUnavailable, match="CUDAExecutionProvider") as refused:
        BoundSession(tiny.graphs.unet, device=torch.device("cuda"), threads=1)
    assert refused.value.param == "QUICKFIX_BACKEND"


def test_a_graph_that_cannot_be_loaded_is_named(tiny: Given, tmp_path: Path) -> None:
    broken = tmp_path / "unet" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(b"not a graph")
    with pytest.raises(BackendUnavailable, match="unet"):
        BoundSession(broken, device=torch.device("cpu"), threads=1)


def test_a_run_that_onnxruntime_refuses_is_a_runtime_error(tiny: Given) -> None:
    latents, timesteps, embeddings = tiny.inputs(2, 8, 8)
    with pytest.raises(RuntimeError, match="invalid dimensions for input: latents"):
        tiny.backends["onnx"].predict(latents[:, :3], timesteps, embeddings)


def test_a_run_for_which_onnxruntime_has_no_memory_is_out_of_memory(
    tiny: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the batch would be tried again at its size at every step, and the replica given up."""
    session = BoundSession(tiny.graphs.unet, device=torch.device("cpu"), threads=1)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def run_with_iobinding(self, _binding: Any) -> None:
            raise RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer")

    real = session._session
    monkeypatch.setattr(session, "_session", Full())
    latents, timesteps, embeddings = tiny.inputs(2, 8, 8)
    given_in_order = (latents, timesteps.float(), embeddings)
    names = [each.name for each in real.get_inputs()]
    given = dict(zip(names, given_in_order, strict=True))
    with pytest.raises(torch.OutOfMemoryError):
        session.run(given, torch.empty_like(latents))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 80,
            },
            "addition_embed_type",
        ),
        ({"num_class_embeds": 4}, "num_class_embeds"),
        ({"in_channels": 9}, "9 channels and its VAE makes 4"),
    ],
)
def test_a_unet_that_asks_for_more_than_a_prompt_is_refused_at_load(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """It would load, be ready, and fail every request."""
    pipeline = build_pipeline()
    config = {**pipeline.unet.config, **changes, "_use_default_values": []}
    pipeline.unet = UNet2DConditionModel.from_config(config)
    pipeline.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelLoadError, match=said):
        load_pipeline(str(tmp_path / "other"))


def test_graphs_of_other_weights_do_not_pass_the_check(tiny: Given) -> None:
    other = build_pipeline(seed=1)
    backend = OnnxBackend(other, tiny.graphs, threads=1)
    with pytest.raises(BackendMismatch, match="unet differs from torch by"):
        check_against_torch(backend, other)
    assert check_against_torch(tiny.backends["onnx"], tiny.pipeline) <= BOUND


def test_a_decoder_of_other_weights_does_not_pass_the_check(tiny: Given, tmp_path: Path) -> None:
    other = build_pipeline(seed=1)
    mixed = tmp_path / tiny.graphs.digest
    for graph in (tiny.graphs.unet, cached_graphs(other, tmp_path / "other").vae_decoder):
        (mixed / graph.parent.name).mkdir(parents=True)
        (mixed / graph.parent.name / graph.name).write_bytes(graph.read_bytes())
    backend = OnnxBackend(tiny.pipeline, Graphs(mixed, tiny.graphs.digest), threads=1)
    with pytest.raises(BackendMismatch, match="vae_decoder differs from torch by"):
        check_against_torch(backend, tiny.pipeline)


def test_numbers_that_are_none_do_not_pass_the_check(tiny: Given) -> None:
    class Broken(TorchBackend):
        def predict(self, *inputs: Tensor, unet: Any = None) -> Tensor:
            return super().predict(*inputs, unet=unet) * torch.nan

    with pytest.raises(BackendMismatch, match="unet differs from torch by nan"):
        check_against_torch(Broken(tiny.pipeline), tiny.pipeline)


def test_graphs_in_float16_pass_the_check_of_float16(tmp_path: Path) -> None:
    pipeline = build_pipeline().to(torch.float16)
    graphs = cached_graphs(pipeline, tmp_path)
    backend = OnnxBackend(pipeline, graphs, threads=1)
    assert 0 < check_against_torch(backend, pipeline) <= 1e-2


def test_the_first_start_exports_and_the_next_one_does_not(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "quickfix.backends")
    wanted = settings.model_copy(update={"backend": "onnx"})
    pipeline = load_pipeline(settings.model)
    assert load_backend(pipeline, wanted).name == "onnx"
    assert "exported onnx" in caplog.text
    assert len(list((settings.state_dir / "onnx").iterdir())) == 1
    caplog.clear()
    backend = load_backend(pipeline, wanted)
    assert "exported onnx" not in caplog.text
    assert "loaded onnx provider=CPUExecutionProvider" in caplog.text
    assert backend.provider == "CPUExecutionProvider"


def test_a_damaged_cache_is_named_and_exported_again(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = settings.model_copy(update={"backend": "onnx"})
    pipeline = load_pipeline(settings.model)
    load_backend(pipeline, wanted)
    (graph,) = (settings.state_dir / "onnx").glob("*/unet/model.onnx")
    good = graph.read_bytes()
    graph.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    caplog.clear()
    backend = load_backend(pipeline, wanted)
    assert "unet/model.onnx does not match its digest" in caplog.text
    assert np.array_equal(graph.read_bytes()[:64], good[:64])
    assert check_against_torch(backend, pipeline) <= BOUND


def test_the_torch_backend_runs_an_edited_unet_and_the_onnx_backend_refuses_it(tiny: Given) -> None:
    inputs = tiny.inputs(2, 8, 8)
    edited = build_pipeline(seed=1).unet
    with torch.inference_mode():
        wanted = edited(*inputs[:2], encoder_hidden_states=inputs[2], return_dict=False)[0]
    got = tiny.backends["torch"].predict(*inputs, unet=edited)
    assert furthest(got, wanted) <= BOUND
    assert furthest(got, tiny.backends["torch"].predict(*inputs)) > 100 * BOUND
    with pytest.raises(EditRefused, match="pristine UNet only"):
        tiny.backends["onnx"].predict(*inputs, unet=edited)


def content(sites: Any) -> RevisionContent:
    edit = parse_manifest(manifest(method={"sites": sites, "ridge": 0.1}))
    return RevisionContent(edits=(edit,), policies={"default": (edit.name,), "none": ()})


@pytest.mark.parametrize("sites", ["uce", ["unet:*.attn2.to_v"]])
def test_an_edit_of_the_unet_is_refused_by_name_when_its_content_is_built(
    settings: Settings, sites: Any
) -> None:
    model = ServedModel.load(settings)
    prompts = PromptEncoder(model.pipeline.tokenizer, device=model.device, dtype=model.dtype)
    parts = model.pipeline.text_encoder, model.editor, prompts
    assert set(SnapshotBuilder(*parts).build(content(sites)).unets) == {"default"}
    with pytest.raises(EditRefused, match="remove-pistol") as refused:
        SnapshotBuilder(*parts, edited_unets=False).build(content(sites))
    assert "set QUICKFIX_BACKEND to torch" in refused.value.message
    built = SnapshotBuilder(*parts, edited_unets=False).build(content("quickfix"))
    assert built.unets == {} and set(built.encoders) == {"default", "none"}


def test_a_replica_on_onnx_says_so_and_refuses_edits_of_the_unet(
    settings: Settings, start_replica: Any
) -> None:
    replica: Replica = start_replica(settings.model_copy(update={"backend": "onnx"}))
    (card,) = replica.client.get("/v1/models").json()["data"]
    assert (card["backend"], card["provider"]) == ("onnx", "CPUExecutionProvider")
    refused = replica.publish(manifest(method={"sites": "uce", "ridge": 0.1}))
    assert refused.status_code == 422
    assert refused.json()["error"]["type"] == "edit_refused"
    assert "remove-pistol" in refused.json()["error"]["message"]
    assert replica.publish(manifest()).status_code == 201


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("name", ["compile", "cuda_graphs"])
def test_what_only_a_gpu_can_do_is_refused_without_one(name: str, settings: Settings) -> None:
    pipeline = build_pipeline()
    asked = settings.model_copy(update={name: True, "device": "auto"})
    with pytest.raises(SettingsInvalid, match="needs a GPU"):
        load_backend(pipeline, asked)


def test_both_backends_draw_the_same_image(
    settings: Settings, start_replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 1/255 apart in any channel, and the second one is drawn by onnxruntime."""
    runs: list[tuple[int, ...]] = []
    predict = OnnxBackend.predict

    def counted(self: OnnxBackend, latents: Tensor, *rest: Any, **options: Any) -> Tensor:
        runs.append(tuple(latents.shape))
        return predict(self, latents, *rest, **options)

    pixels = []
    for backend in ("torch", "onnx"):
        own = {"backend": backend, "state_dir": settings.state_dir / backend}
        replica: Replica = start_replica(settings.model_copy(update=own))
        monkeypatch.setattr(OnnxBackend, "predict", counted)  # the check at start is not counted
        answer = replica.draw("a photo of a cat", seed=3)
        assert answer.status_code == 200, answer.text
        pixels.append(np.asarray(Image.open(BytesIO(answer.content))).astype(int))
        monkeypatch.undo()
    assert len(runs) == STEPS  # tests.tiny_pipeline
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert pixels[0].std() > 1


@pytest.mark.parametrize(
    ("device", "capability", "layout"),
    [
        ("cpu", "AVX2", torch.channels_last),
        ("cpu", "DEFAULT", torch.channels_last),
        ("cpu", "AVX512", torch.contiguous_format),
        ("cuda", "AVX2", torch.contiguous_format),
    ],
)
def test_the_unets_layout_follows_from_the_kind_of_processor(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: str, layout: torch.memory_format
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert unet_layout(torch.device(device)) == layout
