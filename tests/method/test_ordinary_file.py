"""The stored covariance: found for the very model only, and never believed unseen."""

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edits.method import QUICKFIX, Editor, EditSpec
from edits.method.fingerprint import tensors_digest
from edits.method.neighbours import Neighbours

from .conftest import ORDINARY

PISTOL = EditSpec("remove-pistol", "pistol", "toy")


def start(pipeline, folder, monkeypatch, *, ordinary=ORDINARY):
    """An editor that has warmed up, and how many names it had to embed for that."""
    embedded = []
    embed = Neighbours.embed
    monkeypatch.setattr(
        Neighbours,
        "embed",
        lambda self, names: (
            embedded.extend(n for n in names if n not in self._known) or embed(self, names)
        ),
    )
    editor = Editor(pipeline, ordinary=ordinary)
    editor.warm([QUICKFIX], folder=folder)
    monkeypatch.undo()
    return editor, len(embedded)


def stored(folder):
    (path,) = folder.glob("ordinary-*.safetensors")
    return path


def rewrite(path, change):
    """Change the tensors and write them with the digest that fits them."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata | {"digest": tensors_digest(tensors)})


def test_a_second_start_reads_the_file_and_answers_the_same_bits(pipeline, tmp_path, monkeypatch):
    first, made = start(pipeline, tmp_path, monkeypatch)
    again, read = start(pipeline, tmp_path, monkeypatch)
    assert (made, read) == (len(ORDINARY), 2)
    without = Editor(pipeline, ordinary=ORDINARY)
    digests = {e.compose([PISTOL]).digest for e in (first, again, without)}
    assert len(digests) == 1
    assert [p.name[:9] for p in tmp_path.iterdir()] == ["ordinary-"]


def test_another_model_or_list_of_names_finds_no_file(pipeline, tmp_path, monkeypatch):
    start(pipeline, tmp_path, monkeypatch)
    assert start(pipeline, tmp_path, monkeypatch, ordinary=("cat", "dog", "bee"))[1] == 3
    with torch.no_grad():
        pipeline.text_encoder.get_input_embeddings().weight[5] += 1
    assert start(pipeline, tmp_path, monkeypatch)[1] == len(ORDINARY)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_is_made_anew(pipeline, tmp_path, monkeypatch, caplog):
    expected = start(pipeline, tmp_path, monkeypatch)[0].compose([PISTOL]).digest
    whole = stored(tmp_path).read_bytes()
    for damage in (whole[:100], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        stored(tmp_path).write_bytes(damage)
        editor, embedded = start(pipeline, tmp_path, monkeypatch)
        assert embedded >= len(ORDINARY)
        assert editor.compose([PISTOL]).digest == expected
        assert start(pipeline, tmp_path, monkeypatch)[1] == 2
    assert caplog.text.count("made anew") == 3


def test_contents_with_a_fitting_digest_are_still_held_against_the_encoder(
    pipeline, tmp_path, monkeypatch, caplog
):
    """A covariance that presses on nothing would let every edit harm its neighbours."""
    expected = start(pipeline, tmp_path, monkeypatch)[0].compose([PISTOL]).digest
    path = stored(tmp_path)

    def weaker_covariance(tensors):
        tensors[f"{QUICKFIX}.gram"] *= 0.5

    def other_rows(tensors):
        tensors[f"{QUICKFIX}.rows"] *= 0.5
        tensors[f"{QUICKFIX}.gram"] *= 0.25

    def other_embeddings(tensors):
        tensors["embeddings"] = tensors["embeddings"].flip(0).contiguous()

    def fewer_names(tensors):
        tensors[f"{QUICKFIX}.counts"] = tensors[f"{QUICKFIX}.counts"][1:].contiguous()

    def nothing(tensors):
        tensors.clear()
        tensors["embeddings"] = torch.zeros(1, 1, dtype=torch.float64)

    for change in (weaker_covariance, other_rows, other_embeddings, fewer_names, nothing):
        rewrite(path, change)
        caplog.clear()
        assert start(pipeline, tmp_path, monkeypatch)[0].compose([PISTOL]).digest == expected
        assert "is not believed" in caplog.text, change.__name__


def test_a_folder_that_cannot_be_written_stops_nothing(pipeline, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    editor, embedded = start(pipeline, tmp_path / "file", monkeypatch)
    assert embedded == len(ORDINARY)
    assert "cannot be" in caplog.text
    assert (
        editor.compose([PISTOL]).digest
        == Editor(pipeline, ordinary=ORDINARY).compose([PISTOL]).digest
    )
