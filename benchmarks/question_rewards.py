"""What rewards from questions do on SceneWorld, and what they cost: `python -m benchmarks.question_rewards [--speed]`.

Without `--speed` nothing is trained: the table of docs/question_rewards.md is made of docs/studies.json, which
`python -m benchmarks.studies test_caprl.py --seeds 0 1 2` renews. With it, one step of reinforcement learning is
measured by who reads (`benchmarks/question_reward_speed.py`): on one core as it stands, on a GPU with

    python -m benchmarks.question_rewards --speed --images 32 --samples 8 --looped 2 --batch-size 1024
"""

import argparse
from pathlib import Path

from benchmarks import question_reward_speed
from benchmarks.modular_effects import write

PAGE = Path(__file__).parents[1] / "docs" / "question_rewards.md"
BEGIN = "<!-- python -m benchmarks.question_rewards -->"
FILE = "test_caprl.py"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--samples", type=int, default=2, help="captions of a picture")
    parser.add_argument("--questions", type=int, default=8, help="of a caption")
    parser.add_argument("--length", type=int, default=48, help="words of a caption")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--looped", type=int, help="pictures of the step whose reader is the loop; none: all")
    parser.add_argument("--batch-size", type=int, default=16, help="of reader=hf")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="readers whose name holds one")
    parser.add_argument("--tiny", action="store_true", help="a few layers, to try the program")
    given = parser.parse_args(words)
    if given.speed:
        question_reward_speed.run(given)
    else:
        write(PAGE, BEGIN, FILE)


if __name__ == "__main__":
    main()
