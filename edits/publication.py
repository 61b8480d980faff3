"""What stands between a manifest and the store: settings are chosen, bounds are checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edits.evaluation.gate import GateReport, Pictures, choose, examine
from edits.manifests import DEFAULT_POLICY, Choice, ConceptEdit, RevisionContent
from edits.method import PRESETS, Editor, EditSpec, Site
from edits.plan import OPEN_FIELDS, check_base, choice_of, edit_spec, is_open


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
        policy, and the result is checked among them. Raises GateRefused with the figures,
        EditRefused, EditConflict, or ManifestInvalid.
        """
        check_base(edit, self._editor.fingerprint)
        if content.with_edit(edit) is content:
            return Admission(content, self.spec(content, edit), None)
        others = self._others(content, edit)
        spec, choice = self._chosen(edit, others)
        modules = self._editor.apply(self._editor.compose([*others, spec]))
        report = examine(
            self._editor, modules, spec, others, edit.spec.accept, pictures=self._pictures
        )
        return Admission(content.with_edit(edit, choice), spec, report)

    def choose(self, edits: Sequence[ConceptEdit]) -> tuple[EditSpec, ...]:
        """The edits as they would be published one after the other; no bound is checked.

        Raises EditRefused, or ManifestInvalid for two edits of one name.
        """
        content = RevisionContent()
        RevisionContent(tuple(edits))  # says which name stands twice
        for edit in edits:
            check_base(edit, self._editor.fingerprint)
            _, choice = self._chosen(edit, self._others(content, edit))
            content = content.with_edit(edit, choice)
        return tuple(self.spec(content, edit) for edit in edits)

    def spec(self, content: RevisionContent, edit: ConceptEdit) -> EditSpec:
        """An edit of a content with what was chosen for it."""
        return edit_spec(edit, self._presets, content.choices.get(edit.name))

    def _others(self, content: RevisionContent, edit: ConceptEdit) -> list[EditSpec]:
        names = (name for name in content.policies[DEFAULT_POLICY] if name != edit.name)
        return [self.spec(content, content.edit(name)) for name in names]

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
