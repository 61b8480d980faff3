"""One replica in this process: real store, editor and engine behind the real HTTP app."""

from typing import Any

from httpx import Response
from starlette.testclient import TestClient

from service.api.app import create_api
from service.runtime import Runtime
from service.settings import Settings


def manifest(name: str = "remove-pistol", *, version: int = 1, **spec: Any) -> dict[str, Any]:
    """A manifest body; further fields go to `spec`."""
    return {
        "apiVersion": "quickfix/v1",
        "kind": "ConceptEdit",
        "metadata": {"name": name, "version": version},
        "spec": {"concept": "pistol", "anchor": "toy", "type": "object", **spec},
    }


class Replica:
    """A started runtime and a client of its app."""

    def __init__(self, settings: Settings) -> None:
        self.runtime = Runtime.start(settings)
        api, edge = create_api()
        api.state.runtime = self.runtime
        self.client = TestClient(edge, raise_server_exceptions=False)

    @property
    def operator(self) -> dict[str, str]:
        token = (self.runtime.settings.state_dir / "operator.token").read_text(encoding="utf-8")
        return {"Authorization": f"Bearer {token.strip()}"}

    def draw(self, prompt: str = "a photo of a pistol", seed: int = 7, **fields: Any) -> Response:
        return self.client.post("/generate", json={"prompt": prompt, "seed": seed, **fields})

    def publish(self, body: dict[str, Any], **query: Any) -> Response:
        return self.client.post("/admin/edits", params=query, json=body, headers=self.operator)

    def remove(self, name: str) -> Response:
        return self.client.delete("/admin/edits", params={"name": name}, headers=self.operator)

    def roll_back(self, to: int) -> Response:
        return self.client.post("/admin/rollback", json={"to": to}, headers=self.operator)

    def read(self, route: str, **query: Any) -> Any:
        answer = self.client.get(f"/admin/{route}", params=query, headers=self.operator)
        assert answer.status_code == 200, answer.text
        return answer.json()
