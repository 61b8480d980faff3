"""The folder of exported graphs: `<cache>/<digest>/`, complete or not there, verified when read."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edits.errors import GraphsDamaged
from edits.export.target import replacing
from edits.graphs.export import FORMAT, UNET, VAE_DECODER, graphs_digest, write_graphs

CARD = "graphs.json"
_CHUNK = 1 << 20


class Card(BaseModel):
    """What a folder of graphs says of itself; `files` are SHA-256 in hex by relative path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["quickfix-onnx/v2"] = FORMAT
    digest: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Graphs:
    """Verified graphs of one pipeline.

    seconds: what the export took, 0 if they were there. replaced: why graphs that were there were
    exported again.
    """

    folder: Path
    digest: str
    seconds: float = 0.0
    replaced: str | None = None

    @property
    def unet(self) -> Path:
        """The UNet's graph."""
        return self.folder / UNET

    @property
    def vae_decoder(self) -> Path:
        """The VAE decoder's graph."""
        return self.folder / VAE_DECODER

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in _files(self.folder).values())


def cached_graphs(pipeline: Any, cache: Path) -> Graphs:
    """The graphs of `pipeline` in `cache`, exported if they are not there or damaged.

    Raises GraphsUnexportable.
    """
    digest = graphs_digest(pipeline)
    folder = cache.expanduser().resolve() / digest
    replaced = None
    if folder.exists():
        try:
            return read_graphs(folder, digest)
        except GraphsDamaged as damage:
            replaced = damage.message
    started = time.perf_counter()
    with replacing(folder) as temporary:
        temporary.mkdir(mode=0o700)
        write_graphs(pipeline, temporary)
        files = {name: _sha256(path) for name, path in _files(temporary).items()}
        card = Card(digest=digest, files=files)
        (temporary / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Graphs(folder, digest, time.perf_counter() - started, replaced)


def read_graphs(folder: Path, digest: str) -> Graphs:
    """The graphs in `folder`, if they are those of `digest` and bit for bit as exported.

    Raises GraphsDamaged naming what differs.
    """
    try:
        card = Card.model_validate_json((folder / CARD).read_bytes())
    except OSError:
        raise _damaged(folder, f"{CARD} cannot be read") from None
    except ValidationError as error:
        raise _damaged(folder, f"{CARD}: {error.errors()[0]['msg']}") from None
    if card.digest != digest:
        raise _damaged(folder, f"they are of the model {card.digest[:12]}, not {digest[:12]}")
    files = _files(folder)
    if {UNET, VAE_DECODER} - set(card.files) or set(files) != set(card.files):
        raise _damaged(folder, f"the files are not those that {CARD} lists")
    for name, path in files.items():
        if _sha256(path) != card.files[name]:
            raise _damaged(folder, f"{name} does not match its digest")
    return Graphs(folder, digest)


def _files(folder: Path) -> dict[str, Path]:
    """Every file but the card by relative path: large models keep weights beside the graph."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: found[name] for name in sorted(found) if name != CARD}


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _damaged(folder: Path, why: str) -> GraphsDamaged:
    return GraphsDamaged(
        f"ONNX graphs {folder.name[:12]} are refused: {why}; delete the folder and export again",
        param="backend",
    )
