"""What long captions are worth on SceneWorld, as a table of docs/long_captions.md.

`python -m benchmarks.dreamlip_effects` reads docs/studies.json, which `python -m benchmarks.studies test_dreamlip.py
--seeds 0 1 2` renews, and trains nothing.
"""

from benchmarks.modular_effects import ROOT, write

PAGE = ROOT / "docs" / "long_captions.md"
BEGIN = "<!-- python -m benchmarks.dreamlip_effects -->"
FILE = "test_dreamlip.py"

if __name__ == "__main__":
    write(PAGE, BEGIN, FILE)
