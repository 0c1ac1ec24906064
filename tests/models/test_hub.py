"""Priors from and to the Hub, with a stand-in for its package: a local folder needs none."""

import sys
import types

import pytest
from own_priors import written

from posterior_inpainting.models.hub import from_pretrained, push_to_hub
from posterior_inpainting.models.saved.folders import WEIGHTS

FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture
def hub(monkeypatch):
    """What stands in for the package: keeps what it is asked for, and answers with a folder."""
    asked = types.SimpleNamespace(calls=[], folder=None)

    class HfApi:
        def create_repo(self, repo_id, *, private, exist_ok):
            asked.calls.append(("create", repo_id, private, exist_ok))
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
            asked.calls.append(("upload", repo_id, folder_path, sorted(allow_patterns), commit_message))

    def snapshot_download(repo_id, *, revision, allow_patterns):
        asked.calls.append(("download", repo_id, revision, sorted(allow_patterns)))
        if asked.folder is None:
            raise RuntimeError("no such\nrepository")
        return str(asked.folder)

    package = types.ModuleType("huggingface_hub")
    package.HfApi, package.snapshot_download = HfApi, snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    return asked


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def test_a_local_folder_needs_no_package(no_hub, tmp_path):
    assert from_pretrained(str(written(tmp_path, "linear"))).latent == 3


def test_how_to_install_it(no_hub, tmp_path):
    install = r"needs huggingface_hub, which is not installed: pip install 'posterior-inpainting\[hub\]'$"
    with pytest.raises(ValueError, match=f"^'me/mine' is no folder, and a repository {install}"):
        from_pretrained("me/mine")
    with pytest.raises(ValueError, match=f"^push_to_hub {install}"):
        push_to_hub(written(tmp_path), "me/mine")


@pytest.mark.parametrize("place", ["./mine", "/a/b", "mine", "a/b/c", "~/mine", "../mine"])
def test_what_is_no_repository(place, hub):
    with pytest.raises(
        ValueError, match=r"is no folder; expected one, or OWNER/NAME of a repository of the Hub$"
    ):
        from_pretrained(place)
    assert not hub.calls


def test_from_a_repository(hub, tmp_path):
    hub.folder = written(tmp_path, "experts", patches=8)
    assert from_pretrained("me/mine", (1, 10, 12), revision="v1").image_shape == (1, 10, 12)
    assert hub.calls == [("download", "me/mine", "v1", FILES)]


def test_a_repository_that_is_not_there(hub):
    with pytest.raises(ValueError, match=r"^'me/mine' cannot be fetched from the Hub: no such repository$"):
        from_pretrained("me/mine")


def test_three_files_go_up(hub, tmp_path):
    (written(tmp_path) / "checkpoint.pt").write_bytes(b"not for others")
    assert push_to_hub(tmp_path, "me/mine", private=True, message="First") == "https://huggingface.co/me/mine"
    assert hub.calls == [
        ("create", "me/mine", True, True),
        ("upload", "me/mine", str(tmp_path), FILES, "First"),
    ]


def test_a_broken_prior_does_not(hub, tmp_path):
    (written(tmp_path) / WEIGHTS).write_bytes(b"")
    with pytest.raises(ValueError, match=r"is damaged or was changed"):
        push_to_hub(tmp_path, "me/mine")
    assert not hub.calls
