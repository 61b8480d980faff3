"""Tiny pipelines on disk, replicas in this process, and one real `bentoml serve`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.device import DEVICE
from tests.tiny_pipeline import write_pipeline

from .live import LiveService, serve
from .replica import Replica


@pytest.fixture(scope="session")
def sd1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("models") / "tiny-sd1", "sd-1.x")


@pytest.fixture(scope="session")
def sd2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("models") / "tiny-sd2", "sd-2.x")


@pytest.fixture
def settings(tmp_path: Path, sd1_folder: Path) -> Settings:
    return Settings(
        model=str(sd1_folder),
        device=DEVICE,
        threads=1,
        state_dir=tmp_path / "state",
        poll_seconds=0.05,
        replica="replica-under-test",
    )


@pytest.fixture
def start_replica() -> Iterator[Callable[[Settings], Replica]]:
    """Starts replicas and stops every one of them at the end of the test."""
    started: list[Replica] = []

    def start(settings: Settings) -> Replica:
        started.append(Replica(settings))
        return started[-1]

    yield start
    for replica in started:
        replica.runtime.stop()


@pytest.fixture
def replica(settings: Settings, start_replica: Callable[[Settings], Replica]) -> Replica:
    return start_replica(settings)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, sd1_folder: Path) -> Iterator[Replica]:
    """One replica for all tests of a file that change nothing."""
    state = tmp_path_factory.mktemp("shared") / "state"
    replica = Replica(Settings(model=str(sd1_folder), device=DEVICE, threads=1, state_dir=state))
    yield replica
    replica.runtime.stop()


@pytest.fixture(scope="session")
def live(sd1_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """One real `bentoml serve`, shared: a test leaves no edit active behind."""
    with serve(sd1_folder, tmp_path_factory.mktemp("live")) as service:
        yield service
