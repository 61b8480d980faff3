"""From a revision's content to encoders that requests can run under.

Everything happens off to the side: nothing that a running request can see is touched, and the
result is immutable.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import torch
from torch import nn

from edits.errors import EditRefused, FingerprintMismatch, NonFinite
from edits.manifests import RevisionContent
from edits.method import PRESETS, Composition, Editor, EditReport, EditSpec, Site
from edits.method.finite import is_finite
from edits.plan import check_base, edit_spec
from service import metrics
from service.errors import PolicyUnknown
from service.generation.encoder import PromptEncoder
from service.own_thread import in_own_thread

__all__ = ["ActiveSnapshot", "BuiltContent", "SnapshotBuilder", "require_policy"]

_REMEMBERED_CONTENTS = 4
_TESTED_AT_ONCE = 32  # concepts in one pass of the self-test
_MAX_DRIFT = 2.0  # the released formula, which preserves nothing, reaches 0.6 on the demo model


@dataclass(frozen=True, slots=True)
class BuiltContent:
    """A content composed for the loaded model: one text encoder for each policy.

    `unets` holds the policies whose edits reach into the UNet; the others run the pristine one.
    """

    content: RevisionContent
    digest: str
    encoders: Mapping[str, nn.Module]
    unets: Mapping[str, nn.Module]
    policy_digests: Mapping[str, str]  # of each policy's edits: the same digest, the same weights
    report: Callable[[str], tuple[EditReport, ...]]  # of one edit of the default policy
    seconds: float  # captions to edited weights and self-test, all policies


@dataclass(frozen=True, slots=True)
class ActiveSnapshot:
    """What requests run under: one revision, whole. A request reads it exactly once."""

    revision: int
    built: BuiltContent
    activated_at: datetime
    seconds: float  # from the new head read to the reference assignment

    @property
    def digest(self) -> str:
        """Digest of the revision's content."""
        return self.built.digest

    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        """Text encoder of each policy."""
        return self.built.encoders

    @property
    def policy_digests(self) -> Mapping[str, str]:
        """What decides each policy's weights."""
        return self.built.policy_digests

    @property
    def unets(self) -> Mapping[str, nn.Module]:
        """Edited UNets of the policies that have one."""
        return self.built.unets


class SnapshotBuilder:
    """Composes contents on one pristine model; remembers the last few by digest.

    The digest decides the weights completely, so what an admin call has computed is not computed
    again when the same content becomes the head. Thread-safe.
    """

    def __init__(
        self,
        pristine: nn.Module,
        editor: Editor,
        prompts: PromptEncoder,
        *,
        presets: Mapping[str, tuple[Site, ...]] = PRESETS,
        edited_unets: bool = True,
    ) -> None:
        self._edited_unets = edited_unets  # whether the backend can run one
        self._pristine = pristine  # what requests without edits run; the editor has its own
        self._editor = editor
        self._prompts = prompts
        self._empty = prompts.encode(pristine, "")
        self._presets = presets
        self._built: OrderedDict[str, BuiltContent] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the pristine text encoder and its tokenizer."""
        return self._editor.fingerprint

    def build(self, content: RevisionContent) -> BuiltContent:
        """Compose and self-test every policy. Raises EditRefused and its subclasses."""
        digest = content.digest()
        with self._lock:
            known = self._built.get(digest)
            if known is None:
                known = in_own_thread(lambda: self._compose(content, digest))
                self._built[digest] = known
                if len(self._built) > _REMEMBERED_CONTENTS:
                    self._built.popitem(last=False)
            return known

    def _compose(self, content: RevisionContent, digest: str) -> BuiltContent:
        started = time.perf_counter()
        try:
            self._check_fingerprints(content)
            specs = {
                edit.name: edit_spec(edit, self._presets, content.choices.get(edit.name))
                for edit in content.edits
            }
            for spec in specs.values():
                self._check_backend(spec)
                self._editor.check(spec)
            encoders: dict[str, nn.Module] = {}
            unets: dict[str, nn.Module] = {}
            report: Callable[[str], tuple[EditReport, ...]] = _no_reports
            by_edits: dict[frozenset[str], dict[str, nn.Module]] = {frozenset(): {}}
            for policy, names in sorted(content.policies.items()):
                edits = frozenset(names)
                if edits not in by_edits:
                    composition = self._editor.compose([specs[name] for name in sorted(edits)])
                    self._check_drift(composition)
                    by_edits[edits] = self._editor.apply(composition)
                    if policy == "default":
                        report = _reported(composition)
                encoders[policy] = by_edits[edits].get("text_encoder", self._pristine)
                if "unet" in by_edits[edits]:
                    unets[policy] = by_edits[edits]["unet"]
            concepts = [spec.concept for spec in specs.values()]
            for edits, components in by_edits.items():
                if (encoder := components.get("text_encoder")) is not None:
                    self._self_test(encoder, [specs[name] for name in sorted(edits)], concepts)
        except Exception:
            metrics.EDITS.labels("failed").inc()
            raise
        seconds = time.perf_counter() - started
        metrics.EDITS.labels("ok").inc()
        metrics.EDIT_SECONDS.observe(seconds)
        return BuiltContent(
            content,
            digest,
            MappingProxyType(encoders),
            MappingProxyType(unets),
            MappingProxyType({name: content.policy_digest(name) for name in content.policies}),
            report,
            seconds,
        )

    def _check_fingerprints(self, content: RevisionContent) -> None:
        ours = self.fingerprint
        if content.fingerprint not in ("", ours):
            raise FingerprintMismatch(
                f"the revision was made for base model {content.fingerprint}, "
                f"the loaded model is {ours}",
                param="fingerprint",
            )
        for edit in content.edits:
            check_base(edit, ours)

    def _check_backend(self, spec: EditSpec) -> None:
        if self._edited_unets:
            return
        sites = [site for site in self._editor.sites(spec) if site.component == "unet"]
        if sites:
            raise EditRefused(
                f"edit {spec.name!r} changes the UNet at {sites[0]}, and the backend of this "
                "replica runs the pristine one only; set QUICKFIX_BACKEND to torch, or edit the "
                "text encoder",
                param="spec.method.sites",
            )

    def _check_drift(self, composition: Composition) -> None:
        """A signed set comes without a gate; what moves everything is no edit of a concept."""
        drift = composition.preserve_drift()
        if drift > _MAX_DRIFT:
            named = _named(composition.names)
            raise EditRefused(
                f"the encoder with {named} moves what is to stay by {drift:.2g} times its own "
                f"size, and at most {_MAX_DRIFT:g} may run; raise the ridge or the preserve weight",
                param="spec.method.ridge",
            )

    def _self_test(
        self, encoder: nn.Module, specs: Sequence[EditSpec], concepts: Sequence[str]
    ) -> None:
        """Whole passes: of the empty prompt, and of what any edit of the content takes out."""
        named = _named([spec.name for spec in specs])
        empty = self._prompts.encode(encoder, "")
        parts = [
            concepts[i : i + _TESTED_AT_ONCE] for i in range(0, len(concepts), _TESTED_AT_ONCE)
        ]
        if not all(map(is_finite, (empty, *(self._prompts.encode(encoder, *p) for p in parts)))):
            raise NonFinite(f"the encoder with {named} is not finite; raise the ridge")
        # The unconditional branch of every request: what no edit may move, except that one which
        # reproduces the released code moves it as that does.
        if not any(spec.parity for spec in specs) and not torch.equal(empty, self._empty):
            raise EditRefused(
                f"the encoder with {named} moves the empty prompt, by up to "
                f"{float((empty - self._empty).abs().max()):.2g}; report the manifest"
            )


def require_policy(snapshot: ActiveSnapshot, policy: str) -> None:
    """Raise PolicyUnknown, naming those that there are."""
    if policy not in snapshot.encoders:
        known = ", ".join(sorted(snapshot.encoders))
        raise PolicyUnknown(f"no policy {policy!r}; known: {known}", param="policy")


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _reported(composition: Composition) -> Callable[[str], tuple[EditReport, ...]]:
    return lambda name: in_own_thread(lambda: composition.report(name))


def _no_reports(_name: str) -> tuple[EditReport, ...]:
    return ()
