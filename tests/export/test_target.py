"""Nothing is lost by an export: what stands at its target is replaced at once, or not at all."""

import pytest

from edits.errors import QuickFixError
from edits.export.target import check_target, replacing


@pytest.fixture
def model(tmp_path):
    """A diffusers folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


def test_free_and_empty_targets_need_no_force(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.safetensors").touch()
    check_target(tmp_path / "new", folder=True, force=False)
    check_target(tmp_path / "folder", folder=True, force=False)
    check_target(tmp_path / "file.safetensors", folder=False, force=False)


def test_what_is_there_is_replaced_only_with_force(tmp_path, model):
    file = tmp_path / "edit.safetensors"
    file.write_bytes(b"old")
    for target, folder in ((file, False), (model, True)):
        with pytest.raises(QuickFixError, match="exists and is not empty"):
            check_target(target, folder=folder, force=False)
        check_target(target, folder=folder, force=True)


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_takes_no_files_place_and_the_other_way_round(tmp_path, model, force):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(QuickFixError, match="is a file; name a folder"):
        check_target(tmp_path / "file", folder=True, force=force)
    with pytest.raises(QuickFixError, match="is a folder; name a file"):
        check_target(model, folder=False, force=force)


def test_force_replaces_no_folder_of_other_things(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(QuickFixError, match="other things than a diffusers folder"):
        check_target(tmp_path, folder=True, force=True)


def test_force_never_replaces_the_model_that_is_read(model, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(model)
    for name in (model, link):
        with pytest.raises(QuickFixError, match="holds the model that is read"):
            check_target(model, folder=True, force=True, model=str(name))
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(QuickFixError, match="holds the model that is read"):
        check_target(tmp_path, folder=True, force=True, model=str(model))


def test_a_file_appears_whole_under_its_name(tmp_path):
    target = tmp_path / "new" / "edit.safetensors"
    with replacing(target) as path:
        path.write_bytes(b"edit")
        assert not target.exists()
    assert target.read_bytes() == b"edit"
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_a_folder_replaces_the_old_one_with_all_its_files(model):
    with replacing(model) as path:
        path.mkdir()
        (path / "new.json").write_text("{}")
        assert (model / "model_index.json").exists()
    assert [entry.name for entry in model.iterdir()] == ["new.json"]
    assert [entry.name for entry in model.parent.iterdir()] == ["model"]


def test_after_an_error_the_old_target_stands_and_nothing_else(model, tmp_path):
    file = tmp_path / "edit.safetensors"
    file.write_bytes(b"old")
    for target in (file, model):
        with pytest.raises(RuntimeError), replacing(target) as path:
            if target is file:
                path.write_bytes(b"half")
            else:
                path.mkdir()
                (path / "half.json").write_text("{}")
            raise RuntimeError("the disk is full")
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in model.iterdir()] == ["model_index.json"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["edit.safetensors", "model"]


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(model, tmp_path):
    file = tmp_path / "edit.safetensors"
    file.write_bytes(b"old")
    with pytest.raises(QuickFixError, match="is a folder; name a file"), replacing(model) as path:
        path.write_bytes(b"new")
    with pytest.raises(QuickFixError, match="is a file; name a folder"), replacing(file) as path:
        path.mkdir()
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in model.iterdir()] == ["model_index.json"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["edit.safetensors", "model"]


def test_a_link_is_followed_to_what_it_names(tmp_path, model):
    link = tmp_path / "link"
    link.symlink_to(model)
    with replacing(link) as path:
        path.mkdir()
        (path / "new.json").write_text("{}")
    assert link.is_symlink()
    assert [entry.name for entry in model.iterdir()] == ["new.json"]
