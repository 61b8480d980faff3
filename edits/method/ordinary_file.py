"""What is captured once per encoder, in a file: keys of the ordinary names, their covariance.

The file is named after all that decides its contents, so another model, list of names or library
release finds no file and makes its own. It is looked at before it is believed: a digest finds
damage, a random vector holds the covariance against the rows that it is the sum of, and names drawn
by lot are captured again. What does not hold is made anew. None of this is a signature: who can
write the folder can also write the model's.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edits.durable_file import write_durably
from edits.method.captions import PRESERVE_TEMPLATES, fill
from edits.method.fingerprint import tensors_digest
from edits.method.finite import is_finite
from edits.method.keys import PRESERVED_PADDING, KeyCache
from edits.method.neighbours import Neighbours
from edits.method.rows import REACH
from edits.method.sites import Site

_LOG = logging.getLogger(__name__)
_FORMAT = "quickfix-ordinary/v1"
_DRAWN = 2  # names that are captured again
_TOLERANCE = 1e-3  # threads and batches round apart; another encoder is off by far more
_EXACT = 1e-9  # the covariance against its rows, both as stored


class OrdinaryFile:
    """The file of one encoder's ordinary names at layers that read `sources`, in `folder`."""

    def __init__(
        self,
        folder: Path,
        keys: KeyCache,
        neighbours: Neighbours,
        *,
        fingerprint: str,
        sources: Sequence[Site],
    ) -> None:
        self._keys, self._neighbours, self._sources = keys, neighbours, tuple(sources)
        example = keys.empty(self._sources[0])
        document = {
            "format": _FORMAT,
            "model": fingerprint,
            "sources": [str(source) for source in self._sources],
            "names": keys.ordinary,
            "captions": [fill(template, "name").text for template in PRESERVE_TEMPLATES],
            "rows": [REACH, PRESERVED_PADDING],
            "libraries": [torch.__version__, transformers.__version__],
            "device": [example.device.type, torch.backends.cpu.get_cpu_capability()],
        }
        self._identity = json.dumps(document, sort_keys=True)
        self.path = folder / f"ordinary-{_sha256(self._identity)[:16]}.safetensors"

    def recall(self) -> bool:
        """Take over what the file holds, if it is there and holds what it should."""
        try:
            tensors, metadata = _read(self.path)
        except FileNotFoundError:
            return False
        except (OSError, SafetensorError) as error:
            _LOG.warning("%s cannot be read and is made anew", self.path.name, exc_info=error)
            return False
        try:
            wrong = self._wrong(tensors, metadata)
        except (LookupError, RuntimeError) as error:  # a tensor is missing or of another shape
            wrong = repr(error)
        if wrong:
            _LOG.warning("%s is not believed and is made anew: %s", self.path.name, wrong)
            return False
        device = self._keys.empty(self._sources[0]).device
        for source in self._sources:
            rows, counts, gram = _of(source, tensors)
            parts = torch.split(rows.to(device), counts.tolist())
            self._keys.recall(source, parts, gram.to(device))
        self._neighbours.recall(tensors["embeddings"].to(device))
        return True

    def write(self) -> None:
        """Write what is captured, whole or not at all; that it cannot be written is only logged."""
        tensors = {"embeddings": self._neighbours.warm()}
        for source in self._sources:
            parts = self._keys.ordinary_rows(source)
            tensors[f"{source}.rows"] = torch.cat(parts)
            tensors[f"{source}.counts"] = torch.tensor([len(part) for part in parts])
            tensors[f"{source}.gram"] = self._keys.ordinary_gram(source, ())
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"identity": self._identity, "digest": tensors_digest(tensors)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self.path, save(tensors, metadata), private=True)
        except OSError as error:
            _LOG.warning("%s cannot be written (%s)", self.path.name, error.strerror)

    def _wrong(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
        """What does not hold, in words; nothing if all does."""
        if metadata.get("identity") != self._identity:
            return "it was made for something else"
        if metadata.get("digest") != tensors_digest(tensors):
            return "its digest is another"
        names = self._keys.ordinary
        drawn = secrets.SystemRandom().sample(range(len(names)), min(_DRAWN, len(names)))
        fresh = self._neighbours.embed([names[i] for i in drawn]).cpu()
        if not _close(tensors["embeddings"][drawn], fresh, _TOLERANCE):
            return "the encoder embeds a name differently"
        wrong = (self._wrong_at(source, *_of(source, tensors), drawn) for source in self._sources)
        return next(filter(None, wrong), "")

    def _wrong_at(
        self, source: Site, rows: Tensor, counts: Tensor, gram: Tensor, drawn: Sequence[int]
    ) -> str:
        names = self._keys.ordinary
        parts = torch.split(rows, counts.tolist())
        if len(parts) != len(names) or not (is_finite(rows) and is_finite(gram)):
            return f"it has not one finite set of rows for each name at {source}"
        generator = torch.Generator().manual_seed(secrets.randbits(63))
        probe = torch.randn(rows.shape[1], dtype=torch.float64, generator=generator)
        if not _close(gram @ probe, rows.double().T @ (rows.double() @ probe), _EXACT):
            return f"the covariance is not that of its rows at {source}"
        for i in drawn:
            again = self._keys.preserved(source, names[i], field="ordinary_captions").cpu()
            if not _close(parts[i].double(), again, _TOLERANCE):
                return f"the encoder answers a name differently at {source}"
        return ""


def _of(source: Site, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of all names one after the other, how many each has, and their second moment."""
    return tensors[f"{source}.rows"], tensors[f"{source}.counts"], tensors[f"{source}.gram"]


def _close(stored: Tensor, wanted: Tensor, tolerance: float) -> bool:
    if stored.shape != wanted.shape:
        return False
    return bool((stored - wanted).norm() <= tolerance * wanted.norm())


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
