"""Bytes of exported edits on a random text encoder as large as Stable Diffusion 1.x's.

`python -m tests.export.sizes` prints one line for each dtype, token mode, concept and its aliases.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from edits.export.artefact import write_artefact
from edits.export.lowrank import factorise
from edits.loading import load_any_pipeline
from edits.method import QUICKFIX, Editor, EditSpec, resolve
from tests.export.compare import DEMO, edit_set
from tests.export.conftest import long_tokenizer, random_encoder

ALIASES = ("gun", "handgun", "rifle", "revolver", "shotgun", "firearm", "sidearm", "musket")
PAINTERS = ("vincent", "vincent van gogh")


def main() -> None:
    tokenizer = long_tokenizer(load_any_pipeline(str(DEMO)).tokenizer)
    pistol = EditSpec("e", "pistol", "toy")
    painter = EditSpec("e", "van gogh", "painting", aliases=PAINTERS, kind="style")
    specs = [
        replace(spec, tokens=tokens)
        for tokens in ("last", "last+pad")
        for spec in (*(replace(pistol, aliases=ALIASES[:n]) for n in (0, 2, 4, 8)), painter)
    ]
    lines = [
        "| concept | names | tokens | dtype | rows | rank | artefact KiB | LoRA factors KiB |",
        "| --- " * 8 + "|",
    ]
    for dtype in (torch.float32, torch.float16):
        encoder = random_encoder(tokenizer).to(dtype)
        pipeline = SimpleNamespace(text_encoder=encoder, tokenizer=tokenizer)
        editor = Editor(pipeline)
        for spec in specs:
            edits, _ = edit_set(editor, [spec])
            rows = editor.compose([spec]).reports[0].rows
            factors = factorise(resolve(encoder, QUICKFIX).weight, edits.weights[QUICKFIX])
            lora = (factors.up.nbytes + factors.down.nbytes) / 1024
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "artefact.safetensors"
                (site,) = write_artefact(file, pipeline, edits)
                size = file.stat().st_size / 1024
            lines.append(
                f"| {spec.concept} | {len(spec.names)} | `{spec.tokens}` | {str(dtype)[6:]} | "
                f"{rows} | {site.rank} | {size:.1f} | {lora:.0f} |"
            )
    print("\n".join(lines))  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
