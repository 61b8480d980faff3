"""What stands between a manifest and the store: settings are chosen, bounds are checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edits.errors import GateRefused
from edits.evaluation.gate import GateReport, Pictures, choose, examine
from edits.manifests import DEFAULT_POLICY, Accept, Choice, ConceptEdit, RevisionContent
from edits.method import PRESETS, Editor, EditSpec, Site
from edits.plan import OPEN_FIELDS, check_base, choice_of, edit_spec, is_open

_SETS = 8  # of edits that a new one is examined in, so that many policies do not hold up an edit


@dataclass(frozen=True)
class Admission:
    """A content that may be published, and what the gate found; nothing for an edit that it had."""

    content: RevisionContent
    spec: EditSpec
    report: GateReport | None


class Gatekeeper:
    """Admits edits to contents of one loaded model. Changes nothing. Thread-safe.

    `presets` are the model's own. `pictures` draws and judges where a manifest asks for it; None:
    this model has no judge.
    """

    def __init__(
        self,
        editor: Editor,
        *,
        presets: Mapping[str, tuple[Site, ...]] = PRESETS,
        pictures: Pictures | None = None,
    ) -> None:
        self._editor = editor
        self._presets = presets
        self._pictures = pictures

    def admit(self, content: RevisionContent, edit: ConceptEdit) -> Admission:
        """`content` with `edit`, as it would be published.

        Settings that the manifest leaves open are chosen together with the edits of the default
        policy, or else of the largest that will hold it, and the result is checked there, on
        pictures where they are asked for. In the other sets of edits that policies will hold it in,
        from the largest on, it is checked on embeddings, in eight sets at most. Raises GateRefused
        with the figures, EditRefused, EditConflict, or ManifestInvalid.
        """
        check_base(edit, self._editor.fingerprint)
        if content.with_edit(edit) is content:
            return Admission(content, self.spec(content, edit), None)
        (_, others), *more = self._beside(content, edit).items()
        spec, choice = self._chosen(edit, others)
        report = self._examine(spec, others, edit.spec.accept)
        for policy, others in more[: _SETS - 1]:
            try:
                found = self._examine(spec, others, edit.spec.accept, on_pictures=False)
            except GateRefused as error:
                raise GateRefused(
                    f"beside the edits of the policy {policy!r}: {error.message}", param=error.param
                ) from None
            report = replace(report, seconds=report.seconds + found.seconds)
        return Admission(content.with_edit(edit, choice), spec, report)

    def choose(self, edits: Sequence[ConceptEdit]) -> tuple[EditSpec, ...]:
        """The edits as they would be published one after the other; no bound is checked.

        Raises EditRefused, or ManifestInvalid for two edits of one name.
        """
        content = RevisionContent()
        RevisionContent(tuple(edits))  # says which name stands twice
        for edit in edits:
            check_base(edit, self._editor.fingerprint)
            (others, *_) = self._beside(content, edit).values()
            _, choice = self._chosen(edit, others)
            content = content.with_edit(edit, choice)
        return tuple(self.spec(content, edit) for edit in edits)

    def spec(self, content: RevisionContent, edit: ConceptEdit) -> EditSpec:
        """An edit of a content with what was chosen for it."""
        return edit_spec(edit, self._presets, content.choices.get(edit.name))

    def _beside(self, content: RevisionContent, edit: ConceptEdit) -> dict[str, list[EditSpec]]:
        """What `edit` will run beside, by the policy, every set once: of `default`, if that will
        hold it or none will, and of the others from the largest on.
        """
        policies = content.with_edit(edit).policies
        holding = [name for name, names in policies.items() if edit.name in names]
        sets: dict[tuple[str, ...], str] = {}
        for policy in sorted(
            holding or [DEFAULT_POLICY],
            key=lambda name: (name != DEFAULT_POLICY, -len(policies[name]), name),
        ):
            sets.setdefault(policies[policy], policy)
        return {
            policy: [self.spec(content, content.edit(name)) for name in names if name != edit.name]
            for names, policy in sets.items()
        }

    def _examine(
        self,
        spec: EditSpec,
        others: Sequence[EditSpec],
        accept: Accept | None,
        *,
        on_pictures: bool = True,
    ) -> GateReport:
        modules = self._editor.apply(self._editor.compose([*others, spec]))
        return examine(
            self._editor,
            modules,
            spec,
            others,
            accept,
            pictures=self._pictures,
            on_pictures=on_pictures,
        )

    def _chosen(
        self, edit: ConceptEdit, others: Sequence[EditSpec]
    ) -> tuple[EditSpec, Choice | None]:
        spec = edit_spec(edit, self._presets)
        self._editor.check(spec)
        if not is_open(edit):
            return spec, None
        method = edit.spec.method
        open_fields = [name for name in OPEN_FIELDS if getattr(method, name) is None]
        chosen = choose(self._editor, spec, others, open_fields)
        return chosen, choice_of(chosen)
