"""Generate from many clients while edits come and go every second, and check every answer.

    python benchmarks/swap_under_load.py --token-file .quickfix/operator.token

Exit code 1 if a request or an activation failed, an image named two revisions, two images of one
seed, prompt and content differ, or none could be compared. Knows the HTTP contract only.
"""

import argparse
import io
import json
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from PIL import Image

PROMPTS = ("a photo of a pistol on a red background", "a photo of a cat on a blue background")
SEEDS = 3
EDIT: dict[str, Any] = {
    "apiVersion": "quickfix/v1",
    "kind": "ConceptEdit",
    "metadata": {"name": "swap-under-load", "version": 1},
    "spec": {"concept": "pistol", "anchor": "toy", "type": "object"},
}


def operate(url: str, headers: dict[str, str], stop: threading.Event) -> list[float]:
    """Publish and withdraw the edit in turn, about once a second, until `stop`; activation ms."""
    activations: list[float] = []
    withdraw = {"name": EDIT["metadata"]["name"]}
    with httpx.Client(base_url=url, headers=headers, timeout=60.0) as admin:
        present = False
        while not stop.wait(1.0):
            answer = (
                admin.delete("/admin/edits", params=withdraw)
                if present
                else admin.post("/admin/edits", json=EDIT)
            )
            answer.raise_for_status()
            present = not present
            activations.append(answer.json()["activation_ms"])
        if present:
            admin.delete("/admin/edits", params=withdraw).raise_for_status()
    return activations


def main() -> int:
    """Run the load, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    headers = {"Authorization": f"Bearer {options.token_file.read_text().strip()}"}
    client = httpx.Client(base_url=options.url, timeout=120.0)
    stop = threading.Event()
    failed: list[int] = []
    mixed = 0
    revisions: set[str] = set()
    images: dict[tuple[str, str, int], list[np.ndarray]] = defaultdict(list)

    def ask(number: int) -> tuple[str, tuple[str, str, int], np.ndarray, bool] | None:
        prompt, seed = PROMPTS[number % len(PROMPTS)], number // len(PROMPTS) % SEEDS
        answer = client.post("/generate", json={"prompt": prompt, "seed": seed})
        if answer.status_code != httpx.codes.OK:
            failed.append(answer.status_code)
            return None
        revision = answer.headers["X-QuickFix-Revision"]
        image = Image.open(io.BytesIO(answer.content))
        same = image.info.get("X-QuickFix-Revision") == revision
        # A revision lasts about two images here, its content comes back again and again: images of
        # one content must agree across revisions, which holds those of one revision too.
        digest = answer.headers["X-QuickFix-Digest"]
        return revision, (digest, prompt, seed), np.asarray(image).astype(int), same

    started = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool, ThreadPoolExecutor(1) as admin:
        operator = admin.submit(operate, options.url, headers, stop)
        try:
            for drawn in pool.map(ask, range(options.requests)):
                if drawn is not None:
                    revision, key, pixels, same = drawn
                    revisions.add(revision)
                    images[key].append(pixels)
                    mixed += not same
            seconds = time.perf_counter() - started
        finally:
            stop.set()
        activations = operator.result()  # an activation that was refused fails the run
    # Who shared its batch may change a picture's last digit, no more.
    differing = sum(
        any(np.abs(other - pictures[0]).max() > 1 for other in pictures)
        for pictures in images.values()
    )
    repeated = sum(len(pictures) - 1 for pictures in images.values())
    print(
        json.dumps(
            {
                "requests": options.requests,
                "clients": options.clients,
                "failed": len(failed),
                "revision_in_header_and_png_differ": mixed,
                "repeats_of_a_seed_prompt_and_content": repeated,
                "same_seed_prompt_content_but_other_pixels": differing,
                "revisions_seen": len(revisions),
                "activations": len(activations),
                "activation_ms_median": round(median(activations), 2) if activations else None,
                "seconds": round(seconds, 1),
            },
            indent=2,
        )
    )
    return int(bool(failed or mixed or differing or not repeated))


if __name__ == "__main__":
    raise SystemExit(main())
