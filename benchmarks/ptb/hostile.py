"""Lines that are hard on a tokenizer: picked by hand, and drawn from a seeded mixture of awkward pieces.

They serve the parity measurement (`ptb_parity.py`) and the parity test.
"""

import random

PICKED = [
    "",
    " ",
    "...",
    "A man can't ride; he won't, shan't, mustn't and didn't. I'm, you're, they'd've, we'll, it's James' dogs'.",
    "CAN'T DON'T ISN'T I'LL HE'S Y'ALL 'TIS 'TWAS CANNOT GONNA WANNA GOTTA LEMME GIMME DUNNO",
    "rock'n'roll rock 'n' roll o'clock O'Malley ma'am y'all y'know 'em '90s 'til 'cause c'mon s'mores ol' somethin'",
    "l'amour d'Avignon c'est Cap'n nor'easter e'er ev'ry li'l nat'l cont'd cont'd. Shi'ite don'ts O'o n'ts",
    "Dr. Smith, Mr. Jones, Mrs. Brown, Ms. Lee, Prof. X, Gen. Lee, Sgt. Pepper, St. Paul, Mt. Fuji and Ft. Knox",
    "Jan. 5, Feb. 6, Sept. 7, Mon. Tues. Thurs. Calif. Ill. ill. Mass.",
    "mass. Wash. wash. Ore. ore. Tex. Pa. La. Ark. ark.",
    "Acme Inc. The Acme Corp. and Co. Ltd. plc. Pty. Ltd. co. limited",
    "Univ. Assn. Bros. Jr. Sr. Esq. Ph.D. Ed.D. etc.",
    "No. 5 no. 5 nos. 5 No. five fig. 3 figs. 3 pp. 12 op. 9 ca. 1900 prop. 8 art. 4 bldg. 7 approx. 3 sec. 2",
    "U.S. The U.S. and U.S.A. p.m. a.m. e.g. i.e. a.k.a. vs. U.K. EU-U.S.",
    "non-U.S. U.S.-U.K. C.D.s Plan B. The plan A. It",
    "vitamin C. The end of letter B. A man I. He said so. J. R. R. Tolkien H. G. Wells",
    "http://www.example.com/a?b=c&d=e, https://x.org/path_(y).",
    "www.example.co.uk example.com/x foo.net bar.edu. ftp://z",
    "write to someone@example.com or <first.last@mail.example.org> or mailto:me@x.y or @user, #tag #tag2 #1 @_x1",
    "foo.txt photo.JPG, archive.tar.gz main.c x.h index.html? file.mp3! a.b.c hello.world yes!no what?ever C++ c# F#",
    "1 1,000 1,000.50 .5 -5 +5 12:30 3.14.15 1/2 5 1/2 5-1/2 ½ 2½ ⅓ ⅝",
    "3/4\u00a0x 1\u20442 1\\/2 50% $5 US$5 C$3.50 £5 €5 ¥5 5¢",
    "1/2/2003 12-25-1999 1999-12-25 (555) 123-4567 555-1234 +1 555 123",
    "4567 555.123.4567 12 345 678 2x4 3-year-old 1st 2nd",
    "x² 10⁻³ H₂O CO₂ 20°C 5'10\" 6ft. 3 ft. 12in. 5 x 7 8½×11 1080p 4k 100km/h 3:1 1:2:3 #1 №5",
    "\"quoted\" 'single' ``latex'' “curly” ‘curly’ «angle» ‹angle›",
    "„low‟ “‘both’” \"'x'\" ' x ' \" x \" 'a' 'I' '90 '",
    "( ) [ ] { } (a) [b] {c} -LRB- -rsb- <tag> <a href='x y'> </p> <br/>",
    "<!-- note --> << >> < > &lt;b&gt; a<b>c x < y > z",
    "&amp; &AMP; R&D AT&T Q&amp;A S&P-500 S&Ls &quot;hi&quot; &apos;s it&apos;s",
    "&nbsp; &mdash; &ndash; &eacute;t&eacute; &#39; &copy;",
    "- -- --- ---- ----- a-b a--b a - b a—b a–b a\u2011b a_b __ ___",
    "semi-\u00adsoft so\u00adft \u00ad pro- anti- pro-life re-use x-",
    ". .. ... .... ..... ...... . . . . . . . a...b a . . b … a…b wait... what?! no!! why??? ?! !? ;; :: ,,",
    ":) :( :-) ;-) :D :P =) :'( >:( <3 ^_^ -_- (^_^) o_O :o) :p :@ 8) x_x (-_-) >_< :/ :\\ :| :) x :)x",
    "* ** *** a*b \\* \\*\\* # ## @ @@ ~ ^ | \\ / // a/b and/or a/b/c w/o 24/7 he/she + = == 1+1=2 % & $ $$",
    "😀 emoji 👍🏽 👨‍👩‍👧 🇫🇷 ❤️ ★ ☃ ♥ → ✓ a😀b http://😀.com/x 𝒜𝓁𝓅𝒽𝒶 𠀀",
    "café naïve façade über Ångström İstanbul ırmak ſtraße ΑΣ ΟΔΥΣΣΕΥΣ Ελλάδα Привет мир ЩИ e\u0301 n\u0303o K\u212a",
    "中文字幕 日本語のテスト 한국어 ไทย العربية עברית हिन्दी தமிழ் ①②③ Ⅳ ㎏ ﬁ ＡＢＣ １２３ 、。！？「」",
    "\x00\x01\x02\x1b\x1c\x1f\x7f\x80\x85\x91\x92\x93\x94\x96\x97\x9f a\x00b a\x7fb a\x85b don\x92t \x93q\x94",
    "a\tb\u00a0c\u2003d\u3000e\u200bf\u200eg\ufeffh\u202fi\u205fj\u2060k\u180el",
    "ca\u00adn't do\u00adn't it\u2019s don\u2018t don\u201bt don`t",
    "I\u2019m \u2019tis \u2018twas \u201990s 'S 's n't N'T",
    "sh*t f**k d@mn Yahoo! E! Jeopardy! OK! wh@t a@b a@b.c @@x ##y a#b",
    "etc. etc., etc.) vs, al. seq. tel. ext. sq. est. Alex. Wm. Jos.",
    "Cie. cf. Treas. Invt. Elec. Natl. Mfg. Mtg. Dept.",
    "McDonald's Levi's x's 's-Hertogenbosch 'd 'll 've 're 'm 'S 'D I'd've who'd've'nt",
    "The end .The start,no space;here:there?yes!no-hyphen- -hyphen 'quote\"mix` ´acute´ ¨ ¯ ¸ · ¦ § © ® ° ± µ ¶",
    "a" * 10_000,
    "a b " * 2_500,
    "a,b." * 2_500,
    "1 " * 5_000,
    "<a " * 3_333,
    "a@" * 5_000,
    "don't " * 1_666,
    "." * 10_000,
    "é" * 10_000,
    "😀" * 5_000,
    "http://" + "x" * 9_990,
]


def _listed(pieces: str) -> list[str]:
    return pieces.split()


_WORDS = _listed(
    "a the man woman dog sitting on of Part The This A He cannot gonna wanna theatre colour etc no art fig Mr Dr Mrs "
    "Jan Inc Corp Co St Mt Ft Ave U.S U.K p.m a.m B I c Ill ill Mass non-U.S EU-U.S x com net org www http https "
    "well-known 3-year-old e-mail re-use AT&T R&D rock'n'roll O'Neil y'all café naïve über señor 北京 東京 Москва Ωmega"
)
_NUMBERS = _listed(
    "1 2 10 25 100 1,000 3.5 .5 -7 +3 12:30 1/2 3/4 5-10 1999 90s 2nd 555 123-4567 (555) 1.5.2 007 ½ ¾ ² ₂"
)
_CLITICS = _listed("n't 's 'm 'd 're 've 'll n\u2019t \u2019s \u2018s `s &apos;s 'S N'T 'n' 'em 'til '90s' '")
_MARKS = list(".,;:!?-_'\"`/\\|@#$%^&*()[]{}<>=+~") + _listed(
    "... .. -- --- `` '' << >> &amp; &lt; &gt; &quot; &apos; &nbsp; &mdash; &eacute; &#39; :) :-( ;D =P ^_^ -_- "
    "(-: “ ” ‘ ’ « » ‹ › „ – — ‑ … • ° × £ € ¥ ¢ © ™ → ★ 😀 👍🏽 🇫🇷"
)
_SPACES = [" ", " ", " ", "  ", "\t", "\u00a0", "\u2003", "\u3000", "\u200b", "\u00ad"]
_ADDRESSES = _listed(
    "http://www.x.com/a?b=c https://x.org www.site.co.uk site.com/page a.b@c.de <me@x.org> @user #tag foo.txt pic.jpg "
    "a.tar.gz main.c ftp://x.y mailto:a@b.c file.mp3."
)
_TAGS = ["<b>", "</b>", "<br/>", "<a href>", "<!-- x -->", "<p class>", "<?xml v>", "< b >"]
_RARE = "".join(map(chr, [0, 1, 7, 27, 31, 127, 0x80, 0x85, 0x8D, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97, 0x9F]))
_THINGS = _listed("man woman dog cat bus train skateboard surfboard pizza table kitchen street bench bird boat horse")
_LOOKS = _listed("red blue large small young old wooden white black striped")
_LETTER_CASES = (str.lower, str.upper, str.title, str)


def hostile_lines(count: int, seed: int = 0) -> list[str]:
    """The lines picked by hand, then `count` drawn ones; equal for equal arguments."""
    draw = random.Random(seed)
    kinds = (_mixture, _mixture, _mixture, _sentence, _glued, _characters, _any_characters)
    return PICKED + [draw.choice(kinds)(draw) for _ in range(count)]


def caption_lines(count: int, seed: int = 0) -> list[str]:
    """Plain captions in the manner of COCO: about 10 words, mostly with a final period."""
    draw = random.Random(seed)
    return [_caption(draw) for _ in range(count)]


def _piece(draw: random.Random) -> str:
    pieces = draw.choices(
        (_WORDS, _NUMBERS, _CLITICS, _MARKS, _ADDRESSES, _TAGS, _RARE), weights=(8, 4, 3, 6, 1, 1, 0.3)
    )[0]
    return draw.choice(_LETTER_CASES)(draw.choice(pieces)) if draw.random() < 0.2 else draw.choice(pieces)


def _mixture(draw: random.Random) -> str:
    """Pieces with or without space between them."""
    glue = draw.choice((0.2, 0.5, 0.8))
    return "".join(
        _piece(draw) + (draw.choice(_SPACES) if draw.random() < glue else "") for _ in range(draw.randint(1, 25))
    )


def _sentence(draw: random.Random) -> str:
    """Words and numbers, each with a mark or clitic after it at times."""
    words = [draw.choice(_WORDS if draw.random() < 0.8 else _NUMBERS) for _ in range(draw.randint(3, 15))]
    return " ".join(w + draw.choice(("", "", "", ".", ",", "'s", "n't", ". The", "?", "!", ";", "...")) for w in words)


def _glued(draw: random.Random) -> str:
    """Long strings without a space."""
    return "".join(_piece(draw) for _ in range(draw.randint(2, 12)))


def _characters(draw: random.Random) -> str:
    """Printable ASCII."""
    return "".join(chr(draw.randint(32, 126)) for _ in range(draw.randint(1, 40)))


def _any_characters(draw: random.Random) -> str:
    """Any characters but surrogates and line breaks, with words between them."""
    drawn = (draw.choice((0x80, 0x180, 0x600, 0x3000, 0xFFFF, 0x1FFFF)) for _ in range(draw.randint(1, 20)))
    codes = [draw.randint(32, top) for top in drawn]
    breaks = (0x85, 0x2028, 0x2029)
    return "".join(
        draw.choice(("", "a", " ", "1", "'s ")) + chr(c) for c in codes if c not in breaks and not 0xD800 <= c < 0xE000
    )


def _caption(draw: random.Random) -> str:
    first = draw.choices(("A", "Two", "2", "The"), weights=(85, 8, 2, 5))[0]
    tail = draw.choices(
        ("", " near the man's car", " (seen from above)", ' with a "stop" sign', ", in black-and-white"),
        weights=(90, 4, 1, 2, 3),
    )[0]
    one, two, three = draw.choices(_THINGS, k=3)
    look, other = draw.choices(_LOOKS, k=2)
    text = f"{first} {look} {one} sitting next to a {two} on top of a {other} {three}{tail}"
    return text + draw.choices((".", "", " .", ". "), weights=(80, 12, 4, 4))[0]
