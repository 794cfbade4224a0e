"""Emoji and their names: which are taken, what is written, what is read back."""

import json

import pytest
from PIL import ImageFont

from capkit.assets.emoji import emoji_names, write_emoji
from capkit.data.sources.stamps import Stamps
from capkit.errors import UsageError

ROOSTER, HEART, SKIN, FLAG, KEYCAP = "🐓", "❤️", "👍🏽", "🇧🇷", "1"


@pytest.fixture
def names(tmp_path):
    entries = {
        ROOSTER: {"en": ":rooster:", "status": 2},
        HEART: {"en": ":red_heart:", "status": 2},
        HEART[0]: {"en": ":red_heart:", "status": 4},  # not written out
        SKIN: {"en": ":thumbs_up_medium_skin_tone:", "status": 2},
        FLAG: {"en": ":Brazil:", "status": 2},
        KEYCAP: {"en": ":one:", "status": 1},
    }
    (tmp_path / "emoji.json").write_text(json.dumps(entries))
    portuguese = {ROOSTER: ":galo:", HEART: ":coração_vermelho:", FLAG: ":bandeira_brasil:"}
    (tmp_path / "emoji_pt.json").write_text(json.dumps(portuguese))
    (tmp_path / "emoji_de.json").write_text(json.dumps({ROOSTER: ":hahn:"}))
    return emoji_names(tmp_path)


@pytest.fixture
def font(monkeypatch):
    """Pillow's own stands for Noto's: it has letters, and a box where a glyph is missing."""
    own = ImageFont.load_default(80)
    monkeypatch.setattr(ImageFont, "truetype", lambda *_, **__: own)


def test_emoji_of_one_character_have_their_names_by_language(names):
    assert names == {
        "🐓": {"en": "rooster", "de": "hahn", "pt_BR": "galo"},
        "❤": {"en": "red heart", "pt_BR": "coração vermelho"},
    }


def test_what_is_written_is_read_as_stamps_are(names, font, tmp_path):
    assert write_emoji(names, tmp_path / "font", tmp_path / "root" / "emoji") == 2
    source = Stamps(str(tmp_path / "root"), exclude=(), languages=["pt-BR"])
    records = {source.record(i).key: [c.text for c in source.record(i).captions] for i in range(len(source))}
    assert records == {"emoji/1f413": ["galo"], "emoji/2764": ["coração vermelho"]}
    assert source.image(0).shape == (128, 136, 3) and source.image(0).max() == 255


def test_a_font_that_draws_none_is_refused(font, tmp_path):
    with pytest.raises(UsageError, match="draws none of 1 emoji"):
        write_emoji({" ": {"en": "nothing"}}, tmp_path / "font", tmp_path / "emoji")
