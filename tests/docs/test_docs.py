"""Documents fail when they are untrue: variables, metrics, routes, fields, errors, links."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic_core import PydanticUndefined

from edits.cli import app
from service import metrics
from service.api.app import create_api
from service.errors import HTTP_ERRORS, HTTP_TYPES
from service.settings import PREFIX, Settings

from .. import served

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONTRACT_ROUTES = {
    ("POST", "/v1/images/generations"),
    ("GET", "/v1/models"),
    ("POST", "/generate"),
    ("POST", "/admin/edits"),
    ("GET", "/admin/edits"),
    ("DELETE", "/admin/edits"),
    ("GET", "/admin/revisions"),
    ("POST", "/admin/rollback"),
    ("GET", "/admin/status"),
    ("GET", "/admin/audit"),
    ("GET", "/admin/audit/verify"),
    ("GET", "/admin/policies"),
    ("PUT", "/admin/policies"),
    ("DELETE", "/admin/policies"),
    ("POST", "/admin/traces"),
    ("GET", "/admin/traces"),
    ("DELETE", "/admin/traces"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}
TEXT_LIMIT = 1024 * 1024  # larger files are weights and locks of other tools, not prose


def tracked_files() -> list[Path]:
    """Files of the repository, new ones included, ignored ones not."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    return sorted(path for path in paths if path.is_file())


FILES = tracked_files()
MARKDOWN = [path for path in FILES if path.suffix == ".md"]


def table(name: str, heading: str) -> list[list[str]]:
    """Rows of the one table in a page whose header line begins with `heading`."""
    lines = (DOCS / name).read_text(encoding="utf-8").splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(f"| {heading} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(cell: str) -> str:
    """The text of a cell that is one code span."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match, cell
    return match[1]


def test_configuration_lists_exactly_the_variables_of_the_settings() -> None:
    documented = [code(row[0]) for row in table("configuration.md", "variable")]
    assert sorted(documented) == list(Settings.variables())


def test_documents_name_no_variable_that_the_settings_do_not_know() -> None:
    known = {*Settings.variables(), PREFIX}
    for path in MARKDOWN:
        named = set(re.findall(r"QUICKFIX_[A-Z_]*", path.read_text(encoding="utf-8")))
        # QUICKFIX_PORT is what Kubernetes' service links would add.
        assert named - {"QUICKFIX_PORT"} <= known, path.name


def test_configuration_tells_the_real_defaults() -> None:
    rows = {code(row[0]): row[1] for row in table("configuration.md", "variable")}
    for name, field in Settings.model_fields.items():
        told = rows[PREFIX + name.upper()]
        default: Any = field.default
        if default is PydanticUndefined or default == "":
            assert told != "not set" and not told.startswith("`models"), name
        elif default is None:
            assert told == "not set", name
        else:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert told == f"`{shown}`", name


def exposed(metric: MetricWrapperBase) -> tuple[str, str, tuple[str, ...]]:
    (family,) = metric.describe()
    name = family.name + ("_total" if family.type == "counter" else "")
    return name, family.type, tuple(metric._labelnames)


def test_metrics_page_lists_exactly_the_metrics_with_type_and_labels() -> None:
    documented = {
        (code(row[0]), row[1], tuple(re.findall(r"`([^`]+)`", row[2])))
        for row in table("metrics.md", "metric")
    }
    assert documented == {exposed(getattr(metrics, name)) for name in metrics.__all__}


def test_metrics_page_tells_the_buckets_of_the_objective() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"bounds of `quickfix_request_seconds` are (.+) seconds", text)
    told = [float(number) for number in re.findall(r"[\d.]+", sentence)]
    assert told == list(metrics.REQUEST_SECONDS._kwargs["buckets"])


def documented_routes() -> set[tuple[str, str]]:
    routes = set()
    for row in table("api.md", "route"):
        method, _, path = code(row[0]).partition(" ")
        routes.add((method, path))
    return routes


def routes_in(cell: str) -> set[tuple[str, str]]:
    """Routes of a cell such as "`POST` and `DELETE /admin/edits`"."""
    routes, methods = set(), []
    for span in re.findall(r"`([^`]+)`", cell):
        method, _, path = span.partition(" ")
        methods.append(method)
        if path:
            routes |= {(each, path) for each in methods}
            methods = []
    return routes


def documented_parameters() -> dict[str, set[tuple[str, str]]]:
    documented: dict[str, set[tuple[str, str]]] = {}
    routes: set[tuple[str, str]] = set()
    for names, of, _meaning in table("api.md", "parameter"):
        told, _, but = of.partition("but for")
        routes = (routes if told.startswith("the same") else routes_in(told)) - routes_in(but)
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), routes)
    return documented


def test_api_page_names_every_parameter_of_every_admin_route() -> None:
    api, _edge = create_api()
    taken: dict[str, set[tuple[str, str]]] = {}
    for path, operations in api.openapi()["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    taken.setdefault(parameter["name"], set()).add((method.upper(), path))
    for refused in ("canary", "soak"):  # known to the route, which says why it does not take it
        taken[refused].remove(("POST", "/admin/rollback"))
    assert documented_parameters() == taken


def test_api_page_lists_exactly_the_routes_that_are_served() -> None:
    assert documented_routes() == served.routes()


def test_every_route_of_the_contract_is_served() -> None:
    assert served.routes() >= CONTRACT_ROUTES


def test_api_page_lists_exactly_the_fields_of_an_images_request() -> None:
    from service.api.schemas import ImagesBody  # noqa: PLC0415 - loads torch

    documented = [code(row[0]) for row in table("api.md", "field")]
    assert sorted(documented) == sorted(ImagesBody.model_fields)


def test_api_page_tells_the_real_bounds() -> None:
    from service.api import schemas  # noqa: PLC0415 - loads torch

    told = {code(row[0]): row[1] for row in table("api.md", "field")}
    assert f"at most {schemas.MAX_TEXT} characters" in told["prompt"]
    assert told["n"].startswith(f"1 to {schemas.MAX_IMAGES};")
    assert told["steps"] == f"1 to {schemas.MAX_STEPS}"
    assert told["guidance_scale"].startswith(f"0 to {schemas.MAX_GUIDANCE:g};")
    assert told["seed"] == "0 to 2^63 - 1"
    assert schemas.MAX_SEED == 2**63 - 1


def test_api_page_lists_exactly_the_errors_that_can_be_answered() -> None:
    documented = {(int(row[0]), code(row[1])) for row in table("api.md", "status")}
    answered = {*HTTP_ERRORS.values(), *HTTP_TYPES.items(), (500, "internal_error")}
    assert documented == answered


def test_api_page_tells_the_real_limits() -> None:
    from service.api import json_text, limits  # noqa: PLC0415

    told = {row[0]: row[1] for row in table("api.md", "limit")}
    assert told == {
        "path and query": f"{limits.MAX_TARGET_BYTES // 1024} KiB",
        "headers": f"{limits.MAX_HEADERS} headers, {limits.MAX_HEADER_BYTES // 1024} KiB together",
        "body": f"{limits.MAX_BODY_BYTES // 2**20} MiB",
        "time for the body": f"{limits.MAX_BODY_SECONDS:g} s",
        "nesting of a JSON body": f"{json_text.MAX_DEPTH} levels",
    }


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_resolves(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        assert (path.parent / target.partition("#")[0]).exists(), target


def test_decision_records_are_numbered_without_gaps_and_have_their_three_parts() -> None:
    records = sorted((DOCS / "adr").iterdir())
    assert records
    for number, path in enumerate(records, start=1):
        match = re.fullmatch(r"(\d{4})-[a-z0-9-]+\.md", path.name)
        assert match and int(match[1]) == number, path.name
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. "), path.name
        for part in ("## Context", "## Decision", "## Consequences"):
            assert part in text, path.name


def test_no_text_names_a_path_of_the_machine_it_was_written_on() -> None:
    # Put together here, or this file would name them.
    machine = re.compile(r"(?<![\w./-])/(?:" + "work|root" + r")/|/tmp/" + "bash_jobs")
    for path in FILES:
        body = path.read_bytes()
        if b"\0" in body[:8192] or len(body) > TEXT_LIMIT:
            continue
        found = machine.search(body.decode("utf-8", errors="replace"))
        assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_commands_page_lists_exactly_the_commands() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `quickfix (\w+)", page, flags=re.MULTILINE))
    commands = {command.callback.__name__ for command in app.registered_commands}
    assert listed == commands | {group.name for group in app.registered_groups}
