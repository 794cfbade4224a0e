"""Breaks in battles of captions and ratings."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "auto: the divisor stays with unreadable verdicts",
        "capkit/metrics/arena/auto_score.py",
        "if model not in players or baseline is None or battle.verdict is None:",
        "if model not in players or baseline is None:",
        ("tests/metrics/arena/test_auto_score.py",),
    ),
    Break(
        "elo: any text with a 1 in it wins",
        "capkit/metrics/arena/files.py",
        'verdict=STRINGS.get(row["judge"]) if isinstance(row.get("judge"), str) else None,',
        (
            'verdict=(STRINGS.get(row["judge"]) or ("a" if "1" in row["judge"] else "b")) if isinstance'
            '(row.get("judge"), str) else None,'
        ),
        ("tests/metrics/arena/test_arena_files.py",),
    ),
    Break(
        "davidson: a tie counts for nobody",
        "capkit/metrics/arena/davidson.py",
        "credit = (wins + ties / 2).sum(2)",
        "credit = wins.sum(2)",
        ("tests/metrics/arena/test_davidson.py",),
    ),
    Break(
        "davidson: ties counted twice",
        "capkit/metrics/arena/davidson.py",
        "num_ties = ties.sum((1, 2)) / 2",
        "num_ties = ties.sum((1, 2))",
        ("tests/metrics/arena/test_davidson.py",),
    ),
    Break(
        "elo: the loser keeps its points",
        "capkit/metrics/arena/elo.py",
        "rating[every, b] -= change",
        "rating[every, b] -= 0 * change",
        ("tests/metrics/arena/test_elo.py",),
    ),
    Break(
        "ratings: pictures resampled one battle at a time",
        "capkit/metrics/arena/ratings.py",
        'if by == "battle":',
        'if by in ("battle", "picture"):',
        ("tests/metrics/arena/test_ratings.py",),
    ),
    Break(
        "order: the model always first",
        "capkit/judges/pairwise.py",
        'return bool(stable_hash("order of a pair", seed, key) & 1)',
        "return False",
        ("tests/judges/test_pairwise.py", "tests/metrics/arena/test_arena_metric.py"),
    ),
    Break(
        "order: the verdict is not turned back",
        "capkit/judges/pairwise.py",
        "said.turned if other else said for said, other in zip(judge.judge(shown)",
        "said for said, other in zip(judge.judge(shown)",
        ("tests/judges/test_pairwise.py",),
    ),
    Break(
        "both orders: the first one decides",
        "capkit/judges/pairwise.py",
        'verdict: Verdict = first.verdict if first.verdict == second.verdict else "tie"',
        "verdict: Verdict = first.verdict",
        ("tests/judges/test_pairwise.py",),
    ),
    Break(
        "agreement: a judge's tie counts as disagreement without ties",
        "capkit/metrics/arena/agreement.py",
        'for without_ties in range(1 + ("tie" not in (said, battle.people))):',
        'for without_ties in range(1 + (battle.people != "tie")):',
        ("tests/metrics/arena/test_agreement.py",),
    ),
    Break(
        "agreement: people's captions are counted",
        "capkit/metrics/arena/agreement.py",
        "if battle.people is not None and HUMAN not in (battle.a, battle.b)",
        "if battle.people is not None",
        ("tests/metrics/arena/test_agreement.py",),
    ),
    Break(
        "equal length: the difference is not used",
        "capkit/metrics/arena/win_rate.py",
        "np.tanh(difference / scale) if scale else np.zeros(len(score))",
        "np.zeros(len(score))",
        ("tests/metrics/arena/test_win_rate.py",),
    ),
    Break(
        "metric judge: captions a and b swapped where lower is better",
        "capkit/metrics/arena/metric_judge.py",
        'return Judgement("a" if (a > b) == high else "b", reason)',
        'return Judgement("a" if a > b else "b", reason)',
        ("tests/metrics/arena/test_metric_judge.py",),
    ),
    Break(
        "scene judge: quality by recall alone",
        "capkit/sceneworld/language/oracles.py",
        "return score_caption(scene, text, scene_facts(scene)).f1",
        "return score_caption(scene, text, scene_facts(scene)).recall",
        ("tests/effects/test_arena.py",),
    ),
]
