"""The languages of SceneWorld: a grammar that writes captions, and a lexicon by which the parser reads them.

Both dialects of Portuguese have one lexicon, which reads either.
"""

from capkit.errors import UsageError
from capkit.sceneworld.language import english, portuguese
from capkit.sceneworld.language.grammar import Grammar
from capkit.sceneworld.language.lexicon import Lexicon

GRAMMARS: dict[str | None, Grammar] = {
    None: english.GRAMMAR,
    "native": portuguese.NATIVE,
    "literal": portuguese.LITERAL,
}
"""By dialect; None is English."""
LEXICONS: dict[str, Lexicon] = {"en": english.LEXICON, "pt": portuguese.LEXICON}
"""By primary language."""


def lexicon_of(language: str) -> Lexicon:
    """The lexicon for a BCP 47 tag, as records and metadata have it. Raises UsageError for other languages."""
    primary = language.lower().replace("_", "-").partition("-")[0]
    if primary not in LEXICONS:
        raise UsageError(
            f"SceneWorld's parser reads {', '.join(LEXICONS)}; got captions in {language!r}; leave fact metrics and "
            "rewards out, or use data=sceneworld or data=sceneworld_pt"
        )
    return LEXICONS[primary]
