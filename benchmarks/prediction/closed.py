"""The papers' own closed forms at every norm of a traced network."""

from __future__ import annotations

import torch

from dropout_lint.prediction.equations import kim_eq29, kim_eq31, li_eq6
from dropout_lint.trace import Trace


def closed_forms(tr: Trace) -> dict[str, float]:
    """Δ at each norm by the papers alone: what reaches it first, Eq. 6 or 29 in a chain, Eq. 31 after an
    add.
    """
    norm_at = {site.node: site for site in tr.norms}
    result = {site.name: 1.0 for site in tr.norms}
    branches: dict[str, int] = {}
    for site in tr.dropouts:
        if not site.spec.is_noisy:
            continue
        keep = 1 / (1 + site.spec.mask_variance)
        todo, seen = [(user, False) for user in site.node.users], set()
        rectified = _after_relu(site.node)
        while todo:
            node, added = todo.pop()
            if (node, added) in seen or node.op == "output":
                continue
            seen.add((node, added))
            if node in norm_at:
                name = norm_at[node].name
                if added:
                    branches[name] = branches.get(name, 0) + 1
                    delta = kim_eq31(1.0, keep, [1.0] * branches[name])
                else:
                    delta = kim_eq29(keep) if rectified else li_eq6(0.0, 1.0, keep)
                result[name] = min(result[name], delta)
                continue
            is_add = node.op != "call_module" and getattr(node.target, "__name__", node.target) in (
                "add",
                "iadd",
                "add_",
            )
            todo += [(user, added or is_add) for user in node.users]
    return result


def _after_relu(node: torch.fx.Node) -> bool:
    before = node.all_input_nodes[0] if node.all_input_nodes else None
    while before is not None and before.op != "placeholder":
        text = f"{before.target} {before.name}".lower()
        if "relu" in text:
            return True
        if any(word in text for word in ("conv", "bn", "norm", "linear", "add")):
            return False
        before = before.all_input_nodes[0] if before.all_input_nodes else None
    return False
