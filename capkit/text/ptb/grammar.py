"""The token rules of the Stanford PTBTokenizer 3.4.1, written for `automaton.py`.

The longest match wins, context included; among equal ones the first in `RULES`, so their order matters. Letters outside
classes match in either case, classes are case-sensitive: `[A]rk` is the state and not a boat. Rules that affect only a
period or quote are omitted if the later removal of punctuation hides the difference.
"""

import re
from functools import cache

from capkit.text.ptb import characters
from capkit.text.ptb.automaton import Automaton, Rule

_AMPERSAND = re.compile("&amp;", re.IGNORECASE)
_QUOTES = str.maketrans(
    dict.fromkeys("\u0091\u2018\u201b\u2039", "`")
    | dict.fromkeys("\u0092\u2019\u203a", "'")
    | dict.fromkeys("\u0093\u201c\u00ab", "``")
    | dict.fromkeys('\u0094\u201d\u00bb"', "''")
)
_FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_CURRENCIES = {"\u00a2": "cents", "\u00a3": "#"} | dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$")
_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}

# The token up to the context: to white space, or to the last of some characters.
_TO_SPACE = re.compile(r"\S+")
_TO_PERIOD = re.compile(r".*\.", re.DOTALL)
_TO_WORD_END = re.compile(r".*\w", re.DOTALL)
_TO_APOSTROPHE = re.compile(r".*(?=['\u0092\u2019&])", re.DOTALL)
_TO_NOT = re.compile(r".*(?=n(?:['`\u0091\u0092\u2018\u2019\u201b]|&apo[s\u017f];)t\Z)", re.DOTALL | re.IGNORECASE)


def _without_soft_hyphens(text: str) -> str:
    return text.replace("\u00ad", "") or "-"


def _with_latex_quotes(text: str) -> str:
    return text.replace("&apos;", "'").replace("&quot;", "''").translate(_QUOTES)


def _with_plain_ampersand(text: str) -> str:
    return _AMPERSAND.sub("&", text)


def _with_hard_spaces(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _with_named_brackets(text: str) -> str:
    return text.replace("(", "-LRB-").replace(")", "-RRB-")


_NOT_IN_URL = ' \t\n\f\r"<>|()'
_NOT_AT_URL_END = _NOT_IN_URL + ".!?{},\\-"
_NOT_IN_HOST = ' \t\n\f\r"<>|.!?(){},'
_NOT_IN_MAIL = _NOT_IN_URL + "{}\u00a0"

FRAGMENTS = {
    "SPACE": "[ \t\u00a0\u2000-\u200a\u3000]",
    "BREAK": "([\r\n\u2028\u2029\x0b\f\u0085]|\r\n)",
    "BLANK": "({SPACE}|{BREAK})",
    "ANY": "[\u0000-\uffff]",
    "INNER": "[,;:\u3001]",
    # Words. An entity such as &eacute; is a letter; a period, ! or ? between letters does not end a word.
    "LETTER": "(\\l|[\\m\u00ad]|&[AEIOUaeiou](acute|grave|uml);)",
    "WORD": "{LETTER}({LETTER}|\\d)*([.!?]{LETTER}({LETTER}|\\d)*)*",
    "ALNUM": "[A-Za-z0-9]",
    "APOSTROPHE": "(['\u0092\u2019]|&apos;)",
    "INNER_APOSTROPHE": "({APOSTROPHE}|[`\u0091\u2018\u201b])",
    "CLITIC": "{APOSTROPHE}([dmsDMS]|ll|re|ve)",
    "NOT": "n{INNER_APOSTROPHE}t",
    "BEFORE_NOT": "[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*",
    "ELIDED": (
        "[DJLdjl]{APOSTROPHE}|{APOSTROPHE}n{APOSTROPHE}?|(dunkin|somethin|ol){APOSTROPHE}|{APOSTROPHE}(em|till?|cause)"
        "|{APOSTROPHE}[2-9]0s|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|nor'easter|cont'd\\.?"
        "|o{INNER_APOSTROPHE}o|[A-HJ-XZn]{INNER_APOSTROPHE}\\l\\l+|\\l+[AEIOUYaeiouy]{INNER_APOSTROPHE}[A-Zaeiou]\\l*"
    ),
    # Compounds: joined by hyphens, slashes, + or &.
    "STEM": "([dDlLoO]{INNER_APOSTROPHE}[\\l\\d])?[\\l\\d]+",
    "COMPOUND": "{STEM}([\\-_\u058a\u2010\u2011]{STEM})*",
    "HYPHENATED": "{ALNUM}[A-Za-z0-9.,\u00ad]*(-([A-Za-z0-9\u00ad]+|{INITIALS}\\.))+",
    "SLASH_PART": "{ALNUM}+(-[A-Za-z]+){0,2}",
    "SLASHED": "{SLASH_PART}(\\\\?/{SLASH_PART}){1,2}",
    "FIRM": "[A-Z]+(([&+]|&amp;)[A-Z]+)+",
    # Numbers.
    "NUMBER": "[+\\-]?(\\d+|\\d*([.,:\u00ad\u066b\u066c]\\d+)+)",
    "DATE": "\\d{1,2}[/\\-]\\d{1,2}[/\\-]\\d{2,4}",
    "FRACTION": "(\\d{1,4}[ \u00a0\\-])?\\d{1,4}(\\\\?/|\u2044)\\d{1,4}",
    "RAISED": "[\u207a\u207b\u208a\u208b]?([\u00b9\u00b2\u00b3\u2070\u2074-\u2079]+|[\u2080-\u2089]+)",
    "PHONE": (
        "(\\([0-9]{2,3}\\)[ \u00a0]?|(\\+\\+?)?([0-9]{2,4}[ \u00a0\\-])?[0-9]{2,4}[ \u00a0\\-])[0-9]{3,4}"
        "[ \u00a0\\-]?[0-9]{3,5}|((\\+\\+?)?[0-9]{2,4}\\.)?[0-9]{2,4}\\.[0-9]{3,4}\\.[0-9]{3,5}"
    ),
    # Abbreviations. FINAL ones often end a sentence; INITIAL ones precede a name; NUMBERED ones count before a digit.
    "COUNTRIES": "(Canada|EU|Japan|Korean|Sino|non)-U\\.S|U\\.S\\.-(U\\.K|U\\.S\\.S\\.R)",
    "INITIALS": "([A-Za-z](\\.[A-Za-z])+|{COUNTRIES})",
    "ACRONYM": "([A-Za-z]|{INITIALS})",
    "MONTHS_DAYS": "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mon|Tues?|Wed|Thu|Thurs|Fri",
    "STATES": (
        "Ala|Ariz|[A]z|[A]rk|Calif|Colo|Conn|Ct|Dak|[D]el|Fla|Ga|[I]ll|Ind|Kans?|Ky|[L]a|[M]ass|Md|Mich|Minn|[M]iss|Mo"
        "|Mont|Neb|Nev|Okla|[O]re|[P]a|Penn|Tenn|[T]ex|Va|Vt|[W]ash|Wisc?|Wyo"
    ),
    "COMPANIES": "Assn|Bancorp|Bhd|Corp|Cos?|Inc|Intl|Ltd|Plc|Pp?t[ye]s?|Rt|Sys|Univ",
    "FINAL": (
        "({MONTHS_DAYS}|{STATES}|{COMPANIES}|Blvd|Bros|Esq|Jr|Rd|Sr|(Ed|Ph)\\.D|al|bldg|est|etc|ext|seq|sq|tel)\\."
    ),
    "TITLES": (
        "Adj|Adm|Adv|Assoc|Asst|Attys?|Ave|Brig|Capt|Co?mdr|Col|Cpl|Det|Drs?|Ens|Ft|Gen|Govs?|Hon|Insp|Lieut|Lt|Maj"
        "|Messrs|[M]iss|Mlle|Mme|Mrs?|Ms|Msgr|Mt|Pfc|Pres|Profs?|Pvt|Reps?|Rev|Sens?|Sfc|Sgt|Spc|Ste?|Supts?"
    ),
    "INITIAL": "({TITLES}|{ACRONYM}|Alex|Cie|Dept|Elec|Invt|Jos|M[ft]g|Natl|Ph|Treas|Wm|a\\.k\\.a|cf|vs)",
    "NUMBERED": "(art|bldg|ca|figs?|nos?|op|pp|prop)\\.",
    # Case-sensitive: words that usually begin a sentence.
    "OPENING": (
        "([A]|[A]bout|[A]ccording|[A]dditionally|[A]fter|[A]n|[A]s|[A]t|[B]ut|[E]arlier|[H]e|[H]er|[H]ere|[H]owever|[I]f"
        "|[I]n|[I]t|[L]ast|[M]any|[M]ore|[M]r\\.|[M]s\\.|[N]ow|[O]nce|[O]ne|[O]ther|[O]ur|[S]he|[S]ince|[S]o|[S]ome"
        "|[S]uch|[T]hat|[T]he|[T]heir|[T]hen|[T]here|[T]hese|[T]hey|[T]his|[W]e|[W]hat|[W]hen|[W]hile|[Y]et"
        "|[Y]ou|{TAG})"
    ),
    # Addresses and markup.
    "URL": f"https?://[^{_NOT_IN_URL}{{}}]+[^{_NOT_AT_URL_END}]",
    "SITE": (
        f"(www\\.([^{_NOT_IN_HOST}]+\\.)+[A-Za-z]{{2,4}}|([^{_NOT_IN_HOST}`',-_$]+\\.)+(com|edu|net|org))"
        f"(/[^{_NOT_IN_URL}]+[^{_NOT_AT_URL_END}])?"
    ),
    "MAIL": (f"(<|&lt;)?{{ALNUM}}[^{_NOT_IN_MAIL}]*@([^{_NOT_IN_MAIL}.]+\\.)*[^{_NOT_IN_MAIL}.]+(>|&gt;)?"),
    "FILE": (
        "{LETTER_OR_DIGIT}+(\\.{LETTER_OR_DIGIT}+)*\\.(bat|bmp|c|cgi|class|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java"
        "|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip)"
    ),
    "LETTER_OR_DIGIT": "({LETTER}|\\d)",
    "MARKUP_NAME": "[A-Za-z][A-Za-z0-9_:.\\-]*",
    "TAG": (
        "<([!?][A-Za-z\\-][^>\r\n]*|/{MARKUP_NAME}|{MARKUP_NAME}( +{MARKUP_NAME}( *= *('[^']*'|\"[^\"]*\"))?)* */?) *>"
    ),
    "FACE": "[<>]?[:;=][\\-o*']?[()DPdpO\\\\{@|\\[\\]]",
    # The alternative with x. and ^ is a mistake in the original, kept because it decides how "x.[^x=" is split.
    "ASIAN_FACE": (
        "[\\^x=~<>]\\.\\[\\^x=[^<]*<>\\]|[\\-\\^x=~<>']_[\\-\\^x=~<>']"
        "|\\([\\-\\^x=~<>'][_.]?[\\-\\^x=~<>']\\)|\\([\\^x=~<>']-[\\^x=~<>'`]\\)"
    ),
}

RULES = (
    Rule("c(\\+\\+|#)|f#"),
    # Two tokens each: scanning continues after the first.
    Rule("can", "not", 3),
    Rule("'t", "was", 3),
    Rule("'t", "is", 2),
    Rule("gon|wan", "na", 2),
    Rule("got", "ta", 2),
    Rule("gim|lem", "me", 2),
    Rule("{TAG}", text=_with_hard_spaces),
    Rule("&(md|mdash|ndash);|[\u0096\u0097\u2013-\u2015]", text=lambda text: "--"),
    Rule("&amp;", text=_with_plain_ampersand),
    Rule("&(ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);"),
    Rule("{WORD}", "{CLITIC}", _TO_APOSTROPHE, _without_soft_hyphens),
    Rule("{BEFORE_NOT}", "{NOT}", _TO_NOT, _without_soft_hyphens),
    Rule("{WORD}", text=_without_soft_hyphens),
    Rule("{ELIDED}"),
    Rule("y{APOSTROPHE}", "\\l", 1),
    Rule("{URL}|{SITE}|{MAIL}"),
    Rule("@[A-Za-z_][A-Za-z0-9_]*|#{LETTER}+"),
    Rule("{CLITIC}|{NOT}", "[^A-Za-z]", 1, _with_latex_quotes),
    Rule("{DATE}"),
    Rule("{NUMBER}", text=_without_soft_hyphens),
    Rule("{RAISED}"),
    Rule("{FRACTION}", text=_with_hard_spaces),
    Rule("[\u00bc-\u00be\u2153-\u215e]", text=lambda text: _FRACTIONS.get(text, text)),
    Rule(
        "-(l|r)(c|r|s)b-|C\\.D\\.s|pro-|anti-|S(&|&amp;)(P-500|Ls)|(cap{APOSTROPHE}n|c{APOSTROPHE}est)",
        text=_with_plain_ampersand,
    ),
    Rule("{SLASHED}"),
    Rule("[A-Z]*\\$|#"),
    Rule(
        "[\u0080\u00a2-\u00a5\u060b\u0e3f\u20a0\u20a4\u20ac\uffe0\uffe1\uffe5\uffe6]",
        text=lambda text: _CURRENCIES.get(text, text),
    ),
    # A single letter before a sentence loses its period ("plan B. The ..."); longer initials keep it.
    Rule("[A-Za-z]", "\\.{BLANK}+{OPENING}{BLANK}", re.compile(".")),
    Rule("{INITIALS}\\.", "{BLANK}+{OPENING}{BLANK}", _TO_SPACE),
    Rule("{NUMBERED}", "{BLANK}?\\d", _TO_PERIOD),
    Rule("{FINAL}", "{ANY}{ANY}", 2),
    Rule("{FINAL}|{INITIAL}\\."),
    Rule("{INITIAL}", "{SPACE}", 1),
    Rule("{ACRONYM}", "{BLANK}", _TO_SPACE),
    Rule("{APOSTROPHE}[0-9][0-9]", "{BLANK}", _TO_SPACE),
    Rule("{FILE}", "({BLANK}|[.?!,])", _TO_WORD_END),
    Rule("{WORD}\\.", "{INNER}", 1, _without_soft_hyphens),
    Rule("{PHONE}", text=lambda text: _with_named_brackets(_with_hard_spaces(text))),
    Rule('"|&quot;', "[A-Za-z0-9$]", 1, _with_latex_quotes),
    Rule('"|&quot;', text=_with_latex_quotes),
    Rule("\u007f", text=lambda text: ""),
    Rule("<|&lt;", text=lambda text: "<"),
    Rule(">|&gt;", text=lambda text: ">"),
    Rule("{FACE}", "[^A-Za-z0-9]", 1, _with_named_brackets),
    Rule("{ASIAN_FACE}", text=_with_named_brackets),
    Rule("[()\\[\\]{}]", text=lambda text: _BRACKETS[text]),
    Rule("-+", text=lambda text: "--" if len(text) in (3, 4) else text),
    Rule("\\.{3,5}|(\\.[ \u00a0]){2,4}\\.|[\u0085\u2026]", text=lambda text: "..."),
    Rule("@+|_+|#+|\\*+|(\\\\\\*){1,3}|{INNER}|[?!]+|=|/"),
    Rule("[.\u00a1\u00bf\u037e\u0589\u061f\u06d4\u0700-\u0702\u07fa\u3002]"),
    Rule("{HYPHENATED}\\.", "{INNER}", 1, _without_soft_hyphens),
    Rule("{HYPHENATED}", text=_without_soft_hyphens),
    Rule("{COMPOUND}\\.", "{INNER}", 1),
    Rule("{COMPOUND}"),
    Rule("{FIRM}\\.", "{INNER}", 1, _with_plain_ampersand),
    Rule("{FIRM}", text=_with_plain_ampersand),
    Rule("'", "[A-Za-z][^ \t\n\r\u00a0]", 2, _with_latex_quotes),
    Rule("{CLITIC}|{NOT}", text=_with_latex_quotes),
    Rule("{APOSTROPHE}|''", text=_with_latex_quotes),
    Rule("[`\u0091-\u0094\u00ab\u00bb\u2018-\u201f\u2039\u203a]{1,2}", text=_with_latex_quotes),
    Rule("<<|>>|\\s"),
    Rule("&nbsp;|{SPACE}+|{BREAK}|{ANY}", text=lambda text: ""),
)


@cache
def automaton() -> Automaton:
    """The automaton of all rules, built once; its states are added on demand."""
    named = {"l": characters.LETTERS, "d": characters.DIGITS, "m": characters.MARKS, "s": characters.SYMBOLS}
    return Automaton(RULES, FRAGMENTS, {name: characters.ranges(table) for name, table in named.items()})
