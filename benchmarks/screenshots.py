"""Pictures of the report, the demo, a comparison and the documentation's site, for the pages that show them.

    make screenshots
    python -m benchmarks.screenshots --runs FOLDER     runs that are there already: FOLDER/first, FOLDER/rewarded

The runs are those of the README, on generated pictures, which may be passed on. Chromium draws the pages; each picture
is kept as a PNG of 256 colours, of at most `MOST_BYTES`.
"""

import argparse
import base64
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from capkit.demo.access import Door
from capkit.demo.answers import Demo, Shown
from capkit.demo.app import demo_app
from capkit.demo.serving import listening
from capkit.loaded import LoadedCaptioner
from capkit.model_loading import load_model
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene

ROOT = Path(__file__).parents[1]
MOST_BYTES = 150_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Drops a picture on the demo, as a visitor would. The browser's clock stands still while a request is open.
DROP = """<!doctype html><body style='margin: 0'>
<iframe id='frame' style='width: 100%; height: 100vh; border: 0' src='/'></iframe>
<script>
const frame = document.getElementById('frame');
frame.addEventListener('load', () => {
  const view = frame.contentWindow, given = new view.DataTransfer();
  given.items.add(new view.File([Uint8Array.from(atob('PICTURE'), one => one.charCodeAt(0))], 'scene.png'));
  view.document.getElementById('text').value = 'a red star';
  view.document.getElementById('drop').dispatchEvent(
    new view.DragEvent('drop', {dataTransfer: given, bubbles: true, cancelable: true}));
});
</script>"""


def shot(address: str, out: Path, width: int, height: int, wait_ms: int = 3000) -> None:
    """Draw a page's first `height` pixels into `out`. Raises OSError without Chromium, or for a large file."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise OSError(f"expected one of {', '.join(BROWSERS)} on the PATH, got none; install Chromium")
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.png"
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={drawn}"]
        words += [
            f"--window-size={width},{height}",
            f"--virtual-time-budget={wait_ms}",
            f"--user-data-dir={folder}/profile",
        ]
        subprocess.run([*words, address], check=True, capture_output=True, timeout=300)
        with Image.open(drawn) as picture:
            picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)
    if out.stat().st_size > MOST_BYTES:
        raise OSError(
            f"{out}: expected at most {MOST_BYTES:,} bytes, got {out.stat().st_size:,}; draw less of the page"
        )
    print(f"{out}  {width} x {height}, {out.stat().st_size:,} bytes", flush=True)


def train(runs: Path) -> None:
    """The README's first run, the run by rewards, and their comparison, where they are not there."""
    first, second = runs / "first", runs / "rewarded"
    rewarded = [
        "fit_rl",
        f"init_from={first}",
        "reward=[cider,repetition]",
        "reward.repetition.weight=0.5",
        "max_steps=20",
    ]
    for folder, words in (
        (first, []),
        (second, rewarded),
        (runs / "compared", ["compare", f"runs=[{first},{second}]"]),
    ):
        if not folder.exists():
            subprocess.run([sys.executable, ROOT / "train.py", *words, f"run_dir={folder}"], check=True)


@contextmanager
def demo(runs: Path) -> Iterator[str]:
    """The address of a page that drops a scene on the demo of both runs."""
    picture = io.BytesIO()
    Image.fromarray(render(make_scene(WorldOptions(), 0, "test", 7), 256)).save(picture, "PNG")
    page = DROP.replace("PICTURE", base64.b64encode(picture.getvalue()).decode())
    shown = []
    for name in ("first", "rewarded"):
        captioner = load_model(str(runs / name), torch.device("cpu"))
        assert isinstance(captioner, LoadedCaptioner)
        shown.append(Shown(f"runs/{name}", captioner))
    with listening("127.0.0.1", 0) as listens:
        app = demo_app(Demo(shown, {}), Door("127.0.0.1", port := listens.getsockname()[1], None))

        def dropped(_: Request) -> HTMLResponse:
            return HTMLResponse(page)

        routes = Starlette(routes=[Route("/dropped", dropped), Mount("/", app)])
        server = uvicorn.Server(
            uvicorn.Config(routes, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listens]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}/dropped"
        finally:
            server.should_exit = True
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Requests are not told."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder's files: the site's search wants a server."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/screenshots"), help="what is not there is trained")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--only", nargs="+", choices=("report", "compare", "demo", "site"))
    given = parser.parse_args()
    wanted = given.only or ("report", "compare", "demo", "site")
    if set(wanted) != {"site"}:
        train(given.runs)
    if "report" in wanted:
        shot((given.runs / "first/report.html").absolute().as_uri(), given.out / "report.png", 1180, 1560)
    if "compare" in wanted:
        shot((given.runs / "compared/compare.html").absolute().as_uri(), given.out / "compare.png", 1180, 1200)
    if "demo" in wanted:
        with demo(given.runs) as address:
            shot(address, given.out / "demo.png", 1180, 1200, wait_ms=20000)
    if "site" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", folder]
            environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
            subprocess.run(words, cwd=ROOT, env=environment, check=True)
            with served(Path(folder)) as address:
                shot(f"{address}methods/clip_reward_sceneworld/", given.out / "site.png", 1280, 900)


if __name__ == "__main__":
    main()
