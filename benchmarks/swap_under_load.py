"""Generate from many clients while edits come and go every second, and check every answer.

    python benchmarks/swap_under_load.py --token-file .quickfix/operator.token

Exit code 1 if a request or an activation failed, an image named two revisions, or two images of one
seed, prompt and revision differ. Knows the HTTP contract only.
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

import httpx
from PIL import Image

PROMPTS = ("a photo of a pistol on a red background", "a photo of a cat on a blue background")
SEEDS = 3
EDIT = {
    "apiVersion": "quickfix/v1",
    "kind": "ConceptEdit",
    "metadata": {"name": "swap-under-load", "version": 1},
    "spec": {"concept": "pistol", "anchor": "toy", "type": "object"},
}


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
    activations: list[float] = []

    def operate() -> None:
        with httpx.Client(base_url=options.url, headers=headers, timeout=60.0) as admin:
            present = False
            while not stop.wait(1.0):
                answer = (
                    admin.delete("/admin/edits", params={"name": "swap-under-load"})
                    if present
                    else admin.post("/admin/edits", json=EDIT)
                )
                answer.raise_for_status()
                present = not present
                activations.append(answer.json()["activation_ms"])
            if present:
                admin.delete("/admin/edits", params={"name": "swap-under-load"}).raise_for_status()

    failed: list[int] = []
    mixed = 0
    images: dict[tuple[str, str, int], set[bytes]] = defaultdict(set)

    def ask(number: int) -> tuple[tuple[str, str, int], bytes, bool] | None:
        prompt, seed = PROMPTS[number % len(PROMPTS)], number // len(PROMPTS) % SEEDS
        answer = client.post("/generate", json={"prompt": prompt, "seed": seed})
        if answer.status_code != httpx.codes.OK:
            failed.append(answer.status_code)
            return None
        revision = answer.headers["X-QuickFix-Revision"]
        image = Image.open(io.BytesIO(answer.content))
        same = image.info.get("X-QuickFix-Revision") == revision
        return (revision, prompt, seed), image.tobytes(), same

    started = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool, ThreadPoolExecutor(1) as admin:
        operator = admin.submit(operate)
        try:
            for drawn in pool.map(ask, range(options.requests)):
                if drawn is not None:
                    images[drawn[0]].add(drawn[1])
                    mixed += not drawn[2]
            seconds = time.perf_counter() - started
        finally:
            stop.set()
        operator.result()  # an activation that was refused fails the run
    differing = sum(len(pictures) > 1 for pictures in images.values())
    print(
        json.dumps(
            {
                "requests": options.requests,
                "clients": options.clients,
                "failed": len(failed),
                "revision_in_header_and_png_differ": mixed,
                "same_seed_prompt_revision_but_other_pixels": differing,
                "revisions_seen": len({revision for revision, _, _ in images}),
                "activations": len(activations),
                "activation_ms_median": round(median(activations), 2) if activations else None,
                "seconds": round(seconds, 1),
            },
            indent=2,
        )
    )
    return int(bool(failed or mixed or differing))


if __name__ == "__main__":
    raise SystemExit(main())
