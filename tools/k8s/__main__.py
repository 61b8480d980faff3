"""`python -m tools.k8s`: render every overlay and say what is wrong with it; exit code 0 or 1."""

import sys
from collections.abc import Callable, Iterator

from tools.k8s.contract import Contract, contract
from tools.k8s.network import check_network
from tools.k8s.overlay import Finding, Overlay
from tools.k8s.pods import check_pods
from tools.k8s.references import check_references
from tools.k8s.rendering import OVERLAYS, render
from tools.k8s.scaling import check_scaling
from tools.k8s.schemas import check_schemas
from tools.k8s.settings import check_settings

__all__ = ["CHECKS", "findings", "main"]

CHECKS: tuple[Callable[[Overlay, Contract], Iterator[Finding]], ...] = (
    check_schemas,
    check_references,
    check_settings,
    check_pods,
    check_network,
    check_scaling,
)


def findings(overlay: Overlay, of: Contract) -> list[Finding]:
    """All that is wrong. What does not fit its schema is said alone: other checks rely on it."""
    wrong = list(check_schemas(overlay, of))
    return wrong or [finding for check in CHECKS[1:] for finding in check(overlay, of)]


def main() -> int:
    """Check every overlay."""
    code = 0
    for name in OVERLAYS:
        overlay = render(name)
        wrong = findings(overlay, contract())
        for finding in wrong:
            sys.stderr.write(f"{name}: {finding}\n")
        sys.stdout.write(f"{name}: {len(overlay.manifests)} objects, {len(wrong)} findings\n")
        code = code or int(bool(wrong))
    return code


if __name__ == "__main__":
    sys.exit(main())
