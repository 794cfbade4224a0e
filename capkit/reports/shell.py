"""What every page has in common: escaped templates, a look for light and dark, pictures that open, charts that tell.

A page holds all it needs: style, script and pictures are inside, nothing comes from elsewhere.
"""

import base64
import io
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

THUMBNAIL, OPENED = 128, 384  # pixels of a picture's longer side: where it only stands, and where it opens
_LOADER = PackageLoader("capkit.reports")
_TEMPLATES = Environment(
    loader=_LOADER,
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """HTML of a template of `templates/`. Its values are escaped unless they are Markup, which says: HTML already."""
    return _TEMPLATES.get_template(template).render(values)


def page_html(title: str, body: str, style: str = "") -> str:
    """A whole page of `body`, which is HTML already, under the title as its heading. `style` is CSS of its own."""
    return render("shell.html", title=title, body=Markup(body), style=Markup(style)) + "\n"


def thumbnail(image: np.ndarray, side: int = THUMBNAIL) -> str:
    """An image (H W 3, uint8) as a data URL of at most `side` pixels a side: PNG if it is small, else JPEG."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    kind = "png" if max(picture.size) <= THUMBNAIL else "jpeg"
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
