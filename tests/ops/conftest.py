"""A fleet of two real services on one PostgreSQL, a third with signed sets, and a Prometheus."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.prometheus import Prometheus, hastened, prometheus, required, shipped_rules
from tests.service.live import LiveService, serve, wait_for_http
from tests.severed import Link, severable
from tests.tiny_pipeline import write_pipeline

from . import RULES
from .signed_service import SignedService


@dataclass(frozen=True)
class Fleet:
    """Two services that follow one store; the second one's way to it can be cut."""

    first: LiveService
    second: LiveService
    second_link: Link
    store_url: str


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("models") / "tiny", "sd-1.x")


@pytest.fixture(scope="module")
def services(
    tiny_model: Path, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fleet, SignedService]]:
    required("prometheus")  # before anything is started for nothing
    folder = tmp_path_factory.mktemp("services")
    with ExitStack() as stack:
        url = stack.enter_context(postgres_server.database())
        link, severable_url = stack.enter_context(severable(url))
        first, second = (
            stack.enter_context(
                serve(
                    tiny_model,
                    folder / name,
                    environ={
                        "QUICKFIX_STORE": store,
                        "QUICKFIX_REPLICA": name,
                        "QUICKFIX_MAX_QUEUE": "4",
                    },
                    wait=False,
                )
            )
            for name, store in (("first", url), ("second", severable_url))
        )
        signed = stack.enter_context(SignedService.start(tiny_model, folder))
        wait_for_http(first, ready=True)
        wait_for_http(second, ready=True)
        wait_for_http(signed.live, ready=False)
        yield Fleet(first, second, link, url), signed


@pytest.fixture(scope="module")
def fleet(services: tuple[Fleet, SignedService]) -> Fleet:
    return services[0]


@pytest.fixture(scope="module")
def signed_service(services: tuple[Fleet, SignedService]) -> SignedService:
    return services[1]


@pytest.fixture(scope="module")
def watching(
    fleet: Fleet, signed_service: SignedService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes all three under the shipped rules, hastened."""
    targets = {
        "fleet": [each.url.removeprefix("http://") for each in (fleet.first, fleet.second)],
        "signed": [signed_service.live.url.removeprefix("http://")],
    }
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, targets, hastened(shipped_rules(RULES))) as server:
        yield server
