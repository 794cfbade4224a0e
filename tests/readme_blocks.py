"""The commands of the README: `python tests/readme_blocks.py 1` prints its first bash block, as written."""

import re
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.strip() for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)]

if __name__ == "__main__":
    print(BLOCKS[int(sys.argv[1]) - 1])
