"""The closed-form edit: captions, tokens, keys, solver, and the editor that puts them together."""

from edits.method.components import with_components
from edits.method.editor import Composition, Editor
from edits.method.fingerprint import weights_digest
from edits.method.report import EditReport
from edits.method.sites import PRESETS, QUICKFIX, Site, parse_sites, resolve
from edits.method.spec import EditSpec

__all__ = [
    "PRESETS",
    "QUICKFIX",
    "Composition",
    "EditReport",
    "EditSpec",
    "Editor",
    "Site",
    "parse_sites",
    "resolve",
    "weights_digest",
    "with_components",
]
