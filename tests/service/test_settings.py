"""Settings: read once, typed, and never silently misspelt."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import SettingsInvalid
from service.settings import PREFIX, Settings


def test_without_variables_the_contract_defaults_hold() -> None:
    settings = Settings.from_env({"PATH": "/bin"})
    assert settings.model == "models/demo"
    assert settings.backend == "torch"
    assert settings.max_queue == 64
    assert settings.store_url.startswith("sqlite:////")
    assert settings.store_url.endswith("/.quickfix/quickfix.db")
    assert settings.edits_dir is None


def test_every_variable_reaches_its_field() -> None:
    settings = Settings.from_env(
        {
            "QUICKFIX_MODEL": "models/other",
            "QUICKFIX_DEVICE": "cuda:1",
            "QUICKFIX_DTYPE": "float16",
            "QUICKFIX_BACKEND": "torch",
            "QUICKFIX_STORE": "sqlite:////srv/log.db",
            "QUICKFIX_EDITS_DIR": "/etc/edits",
            "QUICKFIX_TOKENS_FILE": "/etc/tokens.yaml",
            "QUICKFIX_API_KEYS_FILE": "/etc/keys.yaml",
            "QUICKFIX_MAX_QUEUE": "7",
            "QUICKFIX_STATE_DIR": "/var/lib/quickfix",
            "QUICKFIX_POLL_SECONDS": "0.5",
            "QUICKFIX_REQUEST_TIMEOUT_SECONDS": "9.5",
            "QUICKFIX_DRAIN_SECONDS": "3",
            "QUICKFIX_THREADS": "2",
            "QUICKFIX_REPLICA": "pod-1",
        }
    )
    assert settings == Settings(
        model="models/other",
        device="cuda:1",
        dtype="float16",
        backend="torch",
        store="sqlite:////srv/log.db",
        edits_dir=Path("/etc/edits"),
        tokens_file=Path("/etc/tokens.yaml"),
        api_keys_file=Path("/etc/keys.yaml"),
        max_queue=7,
        state_dir=Path("/var/lib/quickfix"),
        poll_seconds=0.5,
        request_timeout_seconds=9.5,
        drain_seconds=3.0,
        threads=2,
        replica="pod-1",
    )
    assert settings.store_url == "sqlite:////srv/log.db"


def test_an_unknown_variable_is_refused_with_the_known_names() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.from_env({"QUICKFIX_EDIT_DIR": "/etc/edits"})
    assert refused.value.param == "QUICKFIX_EDIT_DIR"
    for name in Settings.variables():
        assert name in refused.value.message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BACKEND", "tensorrt"),
        ("COMPILE", "perhaps"),
        ("DEVICE", "tpu"),
        ("DTYPE", "int8"),
        ("STORE", "mysql://host/db"),
        ("MAX_QUEUE", "0"),
        ("MAX_QUEUE", "many"),
        ("POLL_SECONDS", "nan"),
        ("REQUEST_TIMEOUT_SECONDS", "0"),
        ("THREADS", "0"),
    ],
)
def test_a_bad_value_is_refused_and_names_its_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.from_env({PREFIX + name: text})
    assert refused.value.param == PREFIX + name
    assert PREFIX + name in refused.value.message


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="needs a GPU"):
        Settings.from_env({"QUICKFIX_DEVICE": "cpu", "QUICKFIX_DTYPE": "float16"})


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BACKEND": "onnx", "DTYPE": "bfloat16"}, "float32 or float16"),
        ({"BACKEND": "onnx", "COMPILE": "true"}, "backend torch on a GPU"),
        ({"DEVICE": "cpu", "COMPILE": "true"}, "backend torch on a GPU"),
        ({"DEVICE": "cpu", "CUDA_GRAPHS": "true"}, "backend torch on a GPU"),
        ({"COMPILE": "true", "CUDA_GRAPHS": "true"}, "exclude each other"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsInvalid, match=said):
        Settings.from_env({PREFIX + name: text for name, text in variables.items()})


def test_backend_onnx_and_compile_on_a_gpu_are_accepted() -> None:
    assert Settings.from_env({"QUICKFIX_BACKEND": "onnx"}).backend == "onnx"
    asked = {"QUICKFIX_DEVICE": "cuda", "QUICKFIX_COMPILE": "true"}
    assert Settings.from_env(asked).compile is True


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_env({"QUICKFIX_STORE": ""}) == Settings(
        replica=Settings.from_env({}).replica
    )


def test_settings_cannot_be_changed_after_start() -> None:
    with pytest.raises(ValidationError):
        Settings().max_queue = 1  # type: ignore[misc]
