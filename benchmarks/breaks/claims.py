"""Breaks in claims, verdicts, and the metrics made of them."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "dcscore: a wrong claim takes no part of its fact's weight",
        "capkit/metrics/dcscore.py",
        "sharing = Counter(place for place in (fact_of if weights_of is None else weights_of) if place is not None)",
        (
            "sharing = Counter(p for p, true in zip(fact_of if weights_of is None else weights_of, is_t"
            "rue, strict=False) if p is not None and true)"
        ),
        ("tests/metrics/test_dcscore.py",),
    ),
    Break(
        "dcscore: true unmatched claims do not lengthen the list of facts",
        "capkit/metrics/dcscore.py",
        "recall = (found + new) / (num_facts + new) if num_facts + new else 0.0",
        "recall = (found + new) / num_facts if num_facts else 0.0",
        ("tests/metrics/test_dcscore.py",),
    ),
    Break(
        "dcscore: weights over what is seen as released, always",
        "capkit/metrics/dcscore.py",
        "match if legacy else None, epsilon)",
        "match, epsilon)",
        ("tests/metrics/test_dcscore.py",),
    ),
    Break(
        "dcscore: verified by the first verification only",
        "capkit/metrics/dcscore.py",
        "    for truth in truths:\n",
        "    for truth in truths[:1]:\n",
        ("tests/metrics/test_dcscore.py",),
    ),
    Break(
        "dcscore: claims matched to no fact",
        "capkit/metrics/dcscore.py",
        "row = replace(row, matches=(*row.matches, tuple(match)))",
        "row = replace(row, matches=(*row.matches, (None,) * len(match)))",
        ("tests/effects/test_judged_claims.py", "tests/metrics/test_dcscore.py"),
    ),
    Break(
        "dcscore: every claim is true",
        "capkit/metrics/dcscore.py",
        "truths = [[verdict.is_true for verdict in verdicts]",
        "truths = [[True for verdict in verdicts]",
        ("tests/effects/test_judged_claims.py", "tests/metrics/test_dcscore.py"),
    ),
    Break(
        "dnli: recall by the caption's own claims",
        "capkit/metrics/dnli.py",
        '("contradicted_recall", "contradicted", "reference")',
        '("contradicted_recall", "contradicted", "generated")',
        ("tests/metrics/test_dnli.py",),
    ),
    Break(
        "dnli: new visual information is neutral although published otherwise",
        "capkit/metrics/dnli.py",
        'if neutral_is == "opinion" and verdict.label == "neutral" and claim.is_seen:',
        'if neutral_is == "opinion" and verdict.label == "neutral" and not claim.is_seen:',
        ("tests/metrics/test_dnli.py", "tests/effects/test_judged_claims.py"),
    ),
    Break(
        "dnli: what failed counts as 1, as published",
        "capkit/metrics/dnli.py",
        'return Judged({}, 1, 1, {"error": row.failure.reason, **said})',
        (
            'return Judged({"with_generated": 1.0, "with_reference": 1.0, **{n: 1.0 for n, _, _ in _SHA'
            'RES[:4]}}, 1, 1, {"error": row.failure.reason, "propositions": [], "gt_propositions": [], '
            "**said})"
        ),
        ("tests/metrics/test_dnli.py", "tests/effects/test_judged_claims.py"),
    ),
    Break(
        "open_chair: unsure counts in the share",
        "capkit/metrics/open_chair.py",
        "self.name: ratio(no, yes + no),",
        "self.name: ratio(no, yes + no + unsure),",
        ("tests/metrics/test_open_chair.py",),
    ),
    Break(
        "open_chair: every mention counts",
        "capkit/metrics/open_chair.py",
        "for noun in dict.fromkeys(nouns) if",
        "for noun in nouns if",
        ("tests/metrics/test_open_chair.py",),
    ),
    Break(
        "open_chair: ratings from 4.5 on are concrete",
        "capkit/metrics/open_chair.py",
        "if rating > threshold}",
        "if rating >= threshold}",
        ("tests/metrics/test_open_chair.py",),
    ),
    Break(
        "verifier: verdicts by their order in the reply, not by number",
        "capkit/llm/json_replies.py",
        "        return [values[number] for number in numbers]\n",
        "        return list(json.loads(text).values())\n",
        ("tests/llm/test_replies.py",),
    ),
    Break(
        "ensemble: half is a yes",
        "capkit/judges/verdicts.py",
        'labels: tuple[Label, ...] = ("contradicted", "neutral", "entailed")',
        'labels: tuple[Label, ...] = ("entailed", "contradicted", "neutral")',
        ("tests/judges/test_verifiers.py",),
    ),
    Break(
        "inference labels by position",
        "capkit/judges/nli.py",
        "    return found[0], found[1], found[2]\n",
        "    return 0, 1, 2\n",
        ("tests/judges/test_verifiers.py",),
    ),
    Break(
        "scene verifier: attributes are not bound to their object",
        "capkit/sceneworld/language/verifying.py",
        "return _of_value(fact.value, {value for kind, value in mention.attributes if kind == fact.kind}, unknown)",
        (
            "return _of_value(fact.value, {value for m in known.mentions for kind, value in m.attribute"
            "s if kind == fact.kind}, unknown)"
        ),
        ("tests/judges/test_verifiers.py",),
    ),
    Break(
        "asker: a question's own reply is not used",
        "capkit/llm/asker.py",
        "reply = question.reply or self.reply",
        "reply = self.reply",
        ("tests/llm/test_asker.py", "tests/judges/test_verifiers.py"),
    ),
]
