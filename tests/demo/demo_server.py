"""A demo served on loopback by a thread, and a page that uses it as a visitor would, in a frame."""

import base64
import io
import threading
import time
from contextlib import contextmanager

import numpy as np
from page_browser import LOOK
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from capkit.demo.serving import listening, server_of

DRIVER = """<!doctype html><body style='margin: 0'>
<iframe id='frame' style='width: {width}px; height: 1000px; border: 0' src='/{query}'></iframe>
<script>{look}
const frame = document.getElementById('frame');
frame.addEventListener('load', async () => {{
  const view = frame.contentWindow, page = view.document, find = id => page.getElementById(id);
  const until = async done => {{
    for (let n = 0; n < 400 && !done(); n++) await new Promise(go => setTimeout(go, 25));
  }};
  const drop = (bytes, name) => {{
    const given = new view.DataTransfer();
    given.items.add(new view.File([bytes], name));
    find('drop').dispatchEvent(new view.DragEvent('drop', {{dataTransfer: given, bubbles: true, cancelable: true}}));
  }};
  const rested = () => !find('answer').classList.contains('busy');
  const texts = () => [...page.querySelectorAll('.written .caption')].map(one => one.textContent);
  const before = looked(view);
  find('text').value = '{text}';
  drop(Uint8Array.from(atob('{picture}'), one => one.charCodeAt(0)), 'dropped.png');
  const asking = find('told').textContent;
  await until(() => texts().length && rested());
  await until(() => find('shown').complete);
  const found = {{...looked(view), before, asking, texts: texts(), named: find('file').files[0].name,
    search: view.location.search, cookie: page.cookie,
    names: [...page.querySelectorAll('.answer h2')].map(one => one.textContent),
    numbers: [...page.querySelectorAll('.numbers')].map(one => one.textContent),
    heats: page.querySelectorAll('.words img').length}};
  find('samples').value = 0;
  page.querySelector('button').click();
  await until(() => !rested());
  await until(rested);
  found.fewer = texts().length;
  drop('no picture', 'broken.png');
  await until(() => !rested());
  await until(rested);
  found.refused = find('told').textContent;
  found.left = texts().length;
  found.scripted = [view.pwned, window.pwned].some(Boolean);
  document.title = 'LOOKED ' + JSON.stringify(found);
}});
</script>"""


def png(seed=0, size=(40, 60)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def driver(width, picture, text="", query=""):
    return DRIVER.format(look=LOOK, width=width, picture=base64.b64encode(picture).decode(), text=text, query=query)


@contextmanager
def served(app_for, page=None):
    """The address of `app_for(port)`, with `page`, if one is given, at /driver."""
    with listening("127.0.0.1", 0) as listens:
        port = listens.getsockname()[1]
        app = app_for(port)
        if page is not None:
            app = Starlette(routes=[Route("/driver", lambda request: HTMLResponse(page)), Mount("/", app)])
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listens]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.should_exit = True
            thread.join()
