"""A page in headless Chromium: what its script says, how wide it is, how its text contrasts, whether it answers."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LOOK = """
const looked = view => {
  const document = view.document, innerWidth = view.innerWidth, getComputedStyle = one => view.getComputedStyle(one);
  const channels = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const over = (front, back) => {
    const a = front.length > 3 ? front[3] : 1;
    return [0, 1, 2].map(i => a * front[i] + (1 - a) * back[i]);
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(channels(getComputedStyle(e).backgroundColor));
    return layers.reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const pale = [];
  document.querySelectorAll('details').forEach(one => { one.open = true; });
  for (const element of document.querySelectorAll('body *:not(script):not(style)')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), isDrawn = element instanceof view.SVGElement;
    const back = behind(element), front = over(channels(isDrawn ? style.fill : style.color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) pale.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  const wide = [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('table, .grid-row'))
    .map(e => e.tagName + '.' + e.className);
  const found = {width: innerWidth, scroll: document.documentElement.scrollWidth, pale, wide: wide.slice(0, 9)};
  const image = document.querySelector('img.opens'), chart = document.querySelector('svg[data-lines]');
  if (image) {
    image.click();
    found.opened = document.querySelector('dialog').open;
    document.querySelector('dialog').click();
    found.closed = !document.querySelector('dialog').open;
  }
  if (chart) {
    const box = chart.getBoundingClientRect();
    const there = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2};
    chart.dispatchEvent(new view.PointerEvent('pointermove', there));
    found.told = document.getElementById('tip').textContent;
    chart.dispatchEvent(new view.PointerEvent('pointerleave'));
    found.quiet = document.getElementById('tip').style.display === 'none';
  }
  return found;
};
"""
_WHEN_LOADED = (
    "window.addEventListener('load', () => { parent.document.title = 'LOOKED ' + JSON.stringify(looked(window)); });"
)


def browser() -> str:
    """The browser's command; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"expected one of {', '.join(NAMES)} on the PATH, got none: pages are looked at by a browser")
    return found


def look(page: Path, width: int, dark: bool = False) -> dict[str, Any]:
    """What `LOOK` finds at this width, details opened; and `console`, what the browser's console says.

    The page stands in a frame: a window of headless Chromium is not narrower than 500 pixels.
    """
    script = f"<script>{LOOK}{_WHEN_LOADED}</script>"
    content = page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>")
    frame = f"<iframe style='width: {width}px; height: 1000px; border: 0' srcdoc='{html.escape(content)}'></iframe>"
    copy = page.with_name(f"looked-{page.name}")
    copy.write_text(f"<!doctype html><body style='margin: 0'>{frame}", encoding="utf-8")
    found = visit(copy.as_uri(), page.parent / "browser", dark)
    copy.unlink()
    return found


def visit(address: str, profile: Path, dark: bool = False, budget_ms: int = 3000) -> dict[str, Any]:
    """Open an address, whose script sets the title to LOOKED and JSON: that, and `console`."""
    words = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    words += ["--window-size=1400,1100", f"--virtual-time-budget={budget_ms}", f"--user-data-dir={profile}"]
    words += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([*words, address], capture_output=True, text=True, timeout=120, check=True)
    told = re.search(r"<title>LOOKED (.*?)</title>", done.stdout, re.DOTALL)
    assert told, f"the page's script did not come to its end: {done.stderr[-2000:]}"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(html.unescape(told[1])), "console": console}
