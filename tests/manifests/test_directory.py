"""Files and directories of manifests, as a git checkout and as a ConfigMap mount."""

import json

import pytest
import yaml

from edits.errors import ManifestInvalid
from edits.manifests import ManifestSet, load_directory, load_manifest
from edits.manifests.parse import load_file


@pytest.fixture
def write(changed):
    def write_manifest(path, name):
        document = changed("metadata.name", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        is_json = path.suffix == ".json"
        path.write_text(json.dumps(document) if is_json else yaml.safe_dump(document))

    return write_manifest


def names(edits):
    return [edit.name for edit in edits]


def test_manifests_are_sorted_by_name_and_other_files_ignored(tmp_path, write):
    write(tmp_path / "1.yaml", "zebra")
    write(tmp_path / "2.yml", "apple")
    write(tmp_path / "3.json", "mango")
    write(tmp_path / "deeper" / "4.yaml", "nested")
    (tmp_path / "README.md").write_text("not a manifest")
    (tmp_path / ".hidden.yaml").write_text("not a manifest")
    assert names(load_directory(tmp_path).edits) == ["apple", "mango", "zebra"]


def test_an_empty_directory_is_the_empty_set(tmp_path):
    assert load_directory(tmp_path) == ManifestSet()


def mount(volume, version, files, write):
    """Write `files` the way the kubelet does: a new folder, then one rename of `..data`."""
    for file, name in files.items():
        write(volume / version / file, name)
    swap = volume / "..data_tmp"
    swap.symlink_to(version)
    swap.replace(volume / "..data")
    for file in files:
        if not (volume / file).is_symlink():
            (volume / file).symlink_to(f"..data/{file}")


def test_a_configmap_mount_is_read_through_its_symlink_and_followed_after_a_swap(tmp_path, write):
    mount(tmp_path, "..v1", {"a.yaml": "one", "b.yaml": "two"}, write)
    assert names(load_directory(tmp_path).edits) == ["one", "two"]
    mount(tmp_path, "..v2", {"a.yaml": "three"}, write)
    assert names(load_directory(tmp_path).edits) == ["three"]


@pytest.mark.parametrize("last_read", ["a.yaml", "b.yaml"])
def test_a_swap_in_the_middle_of_reading_gives_the_new_set_whole(
    tmp_path, write, monkeypatch, last_read
):
    """The kubelet deletes the old folder while, or right after, its files are being read."""
    mount(tmp_path, "..v1", {"a.yaml": "old-a", "b.yaml": "old-b"}, write)
    reads = []

    def load_and_swap(path):
        edit = load_file(path)
        reads.append(edit.name)
        if path.parent.name == "..v1" and path.name == last_read:
            mount(tmp_path, "..v2", {"a.yaml": "new-a", "b.yaml": "new-b"}, write)
            for file in (tmp_path / "..v1").iterdir():
                file.unlink()
        return edit

    monkeypatch.setattr("edits.manifests.directory.load_file", load_and_swap)
    assert names(load_directory(tmp_path).edits) == ["new-a", "new-b"]
    assert reads[0] == "old-a"


def test_a_volume_that_never_stands_still_is_refused(tmp_path, write, monkeypatch):
    mount(tmp_path, "..v0", {"a.yaml": "a"}, write)
    reads = []

    def load_and_swap(path):
        reads.append(path)
        mount(tmp_path, f"..v{len(reads)}", {"a.yaml": "a"}, write)
        return load_file(path)

    monkeypatch.setattr("edits.manifests.directory.load_file", load_and_swap)
    with pytest.raises(ManifestInvalid, match="it changes while it is being read"):
        load_directory(tmp_path)
    assert len(reads) == 3


def test_a_manifest_that_links_to_nothing_is_refused_rather_than_left_out(tmp_path, write):
    write(tmp_path / "a.yaml", "a")
    (tmp_path / "b.yaml").symlink_to("gone.yaml")
    with pytest.raises(ManifestInvalid, match="No such file or directory"):
        load_directory(tmp_path)


def test_a_bad_file_is_named_and_nothing_is_returned(tmp_path, write):
    write(tmp_path / "good.yaml", "good")
    (tmp_path / "bad.yaml").write_text("apiVersion: quickfix/v1\nkind: ConceptEdit\n")
    with pytest.raises(ManifestInvalid, match=r"bad\.yaml: metadata: is missing") as refused:
        load_directory(tmp_path)
    assert refused.value.param == "metadata"


def test_two_files_with_one_edit_name_are_both_named(tmp_path, write):
    write(tmp_path / "a.yaml", "same")
    write(tmp_path / "b.yaml", "same")
    with pytest.raises(ManifestInvalid, match=r"b\.yaml: the edit 'same' stands in a\.yaml"):
        load_directory(tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("a file")])
def test_a_directory_that_cannot_be_read_is_refused_by_name(tmp_path, make):
    path = tmp_path / "edits"
    make(path)
    with pytest.raises(ManifestInvalid, match=r"cannot be read: .*; check that it is mounted"):
        load_directory(path)


def test_a_dangling_mount_is_refused(tmp_path):
    (tmp_path / "..data").symlink_to("gone")
    with pytest.raises(ManifestInvalid, match="No such file or directory"):
        load_directory(tmp_path)


def test_a_file_over_the_size_limit_is_not_read_whole(tmp_path):
    file = tmp_path / "big.yaml"
    with file.open("wb") as stream:
        stream.truncate(2**34)
    with pytest.raises(ManifestInvalid, match=r"big\.yaml: the manifest has 262145 bytes"):
        load_manifest(file)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_manifest(tmp_path / "gone.yaml")


HEADER = "apiVersion: quickfix/v1\nkind: Policies\n"


def test_a_file_of_policies_stands_beside_the_manifests(tmp_path, write):
    write(tmp_path / "a.yaml", "a")
    (tmp_path / "policies.yaml").write_text(HEADER + "policies: {strict: [a], open: []}\n")
    (tmp_path / "more.json").write_text(
        json.dumps({"apiVersion": "quickfix/v1", "kind": "Policies", "policies": {"kids": ["a"]}})
    )
    found = load_directory(tmp_path)
    assert names(found.edits) == ["a"]
    assert found.policies == {"strict": ("a",), "open": (), "kids": ("a",)}


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("kind: Policies\npolicies: {}\n", "apiVersion"),
        (HEADER, "policies"),
        (HEADER + "policies: [strict]\n", "policies"),
        (HEADER + "policies: {strict: a}\n", "policies.strict"),
        (HEADER + "policies: {strict: [1]}\n", "policies.strict"),
        (HEADER + "policies: {}\nspec: {}\n", "spec"),
    ],
)
def test_a_bad_file_of_policies_is_named_and_nothing_is_returned(tmp_path, write, text, param):
    write(tmp_path / "a.yaml", "a")
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ManifestInvalid, match=r"^p\.yaml: ") as refused:
        load_directory(tmp_path)
    assert refused.value.param == param


def test_two_files_with_one_policy_name_are_both_named(tmp_path):
    for name in ("p", "q"):
        (tmp_path / f"{name}.yaml").write_text(HEADER + "policies: {strict: []}\n")
    with pytest.raises(ManifestInvalid, match=r"q\.yaml: the policy 'strict' stands in p\.yaml"):
        load_directory(tmp_path)
