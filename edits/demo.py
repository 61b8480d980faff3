"""The main job from end to end, over HTTP: draw, remove two concepts, draw again, take them back.

Nothing here touches the model: what is shown is what a client and an operator of the service see.
"""

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

from edits.evaluation.judge import Judge
from edits.evaluation.prompts import Probe, object_probes, style_probes
from edits.evaluation.rates import Rate, rate
from edits.manifests import canonical_bytes, catalog_entry

PISTOL, VAN_GOGH = "remove-pistol", "remove-van-gogh"
TILE, GAP = 96, 6


@dataclass(frozen=True)
class Group:
    """Pictures that are counted together, and the attribute that is counted."""

    title: str
    attribute: str
    probes: tuple[Probe, ...]


def groups(judge: Judge, *, targets: int, seed: int) -> tuple[Group, ...]:
    """The two targets, every other object once, and every other style."""
    objects, colours = judge.classes["object"], judge.classes["colour"]
    others = [name for name in objects if name != "pistol"]
    styles = [name for name in judge.classes["style"][1:] if name != "van gogh"]
    return (
        Group(
            "pistol", "object", tuple(object_probes(["pistol"], colours, each=targets, seed=seed))
        ),
        Group(
            "van gogh",
            "style",
            tuple(style_probes(["van gogh"], others, colours, each=targets, seed=seed + 100)),
        ),
        Group(
            "other objects",
            "object",
            tuple(object_probes(others, colours, each=1, seed=seed + 200)),
        ),
        Group(
            "other styles",
            "style",
            tuple(style_probes(styles, others, colours, each=3, seed=seed + 300)),
        ),
    )


@dataclass(frozen=True)
class Picture:
    """One answer of the service: the PNG's bytes and the revision that it names."""

    png: bytes
    revision: int

    @property
    def image(self) -> Image.Image:
        """The picture, decoded."""
        return Image.open(io.BytesIO(self.png)).convert("RGB")

    @property
    def pixels(self) -> bytes:
        """The pixels alone: the PNG's text names the revision and differs by it."""
        return self.image.tobytes()


def draw_all(
    client: httpx.Client, probes: Sequence[Probe], progress: Callable[[int], None]
) -> list[Picture]:
    """Ask the service for every probe, one after the other: drawn alone they agree to the bit."""

    def ask(probe: Probe) -> Picture:
        answer = client.post("/generate", json={"prompt": probe.prompt, "seed": probe.seed})
        answer.raise_for_status()
        progress(1)
        return Picture(answer.content, int(answer.headers["X-QuickFix-Revision"]))

    return [ask(probe) for probe in probes]


def publish(client: httpx.Client, name: str) -> dict[str, Any]:
    """Publish a manifest of the catalog; answers the service's report and the whole call's time."""
    started = time.perf_counter()
    answer = client.post(
        "/admin/edits",
        content=canonical_bytes(catalog_entry(name)),
        headers={"Content-Type": "application/json"},
    )
    answer.raise_for_status()
    return {**answer.json(), "call_ms": round(1000 * (time.perf_counter() - started), 1)}


def withdraw(client: httpx.Client, name: str) -> None:
    """Publish a revision without that edit."""
    client.delete("/admin/edits", params={"name": name}).raise_for_status()


def run_demo(
    client: httpx.Client,
    judge: Judge,
    chosen: Sequence[Group],
    out: Path,
    *,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> dict[str, Any]:
    """Draw, publish both edits, draw, withdraw both, draw; write picture and report."""
    probes = [probe for group in chosen for probe in group.probes]
    before = draw_all(client, probes, progress)
    published = {name: publish(client, name) for name in (PISTOL, VAN_GOGH)}
    after = draw_all(client, probes, progress)
    for name in (PISTOL, VAN_GOGH):
        withdraw(client, name)
    restored = draw_all(client, probes, progress)
    identical = sum(a.pixels == b.pixels for a, b in zip(before, restored, strict=True))
    report: dict[str, Any] = {
        "images": 3 * len(probes),
        "revisions": [before[0].revision, after[0].revision, restored[0].revision],
        "groups": {},
        "edits": published,
        "restored_identical": {"identical": identical, "n": len(probes)},
    }
    start = 0
    for group in chosen:
        part = slice(start, start + len(group.probes))
        start = part.stop
        rates: dict[str, Rate] = {}
        for side, pictures in (("before", before), ("after", after)):
            verdicts = judge.look([picture.image for picture in pictures[part]])
            rates[side] = rate(group.probes, verdicts, group.attribute)
            if group.title == "van gogh":
                rates[f"object_{side}"] = rate(group.probes, verdicts, "object")
        report["groups"][group.title] = {side: r.document() for side, r in rates.items()}
    out.mkdir(parents=True, exist_ok=True)
    contact_sheet(chosen, before, after).save(out / "before_after.png", optimize=True)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def contact_sheet(
    chosen: Sequence[Group], before: Sequence[Picture], after: Sequence[Picture], columns: int = 8
) -> Image.Image:
    """A pair of rows for each group: above before, below after, same prompts and seeds."""
    label = 92
    height = len(chosen) * (2 * TILE + 3 * GAP)
    sheet = Image.new("RGB", (label + columns * (TILE + GAP), height), "white")
    pen = ImageDraw.Draw(sheet)
    start = 0
    for row, group in enumerate(chosen):
        top = row * (2 * TILE + 3 * GAP) + GAP
        for line, (side, pictures) in enumerate((("before", before), ("after", after))):
            y = top + line * (TILE + GAP // 2)
            pen.text((4, y + TILE // 2 - 12), f"{group.title}\n{side}", fill="black")
            step = max(1, len(group.probes) // columns)
            for column in range(min(columns, len(group.probes))):
                tile = pictures[start + column * step].image.resize(
                    (TILE, TILE), Image.Resampling.NEAREST
                )
                sheet.paste(tile, (label + column * (TILE + GAP), y))
        start += len(group.probes)
    return sheet
