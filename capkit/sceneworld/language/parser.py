"""Parse captions to facts: generated ones exactly, any other text as far as possible.

A scanner reads the words once from left to right. At each position it tries the longest known phrase, then a noun
phrase; a word that fits neither is unparsed. Rules:

1. "a circle" is a new mention; "the circle" is the first earlier mention of that shape without a conflicting attribute,
   or a new one if there is none. "two circles" are two mentions.
2. "X left of Y" relates the last mention to the next one. After "," or "and" it relates the clause's subject instead:
   "X with Z inside, left of Y" states left(X, Y).
3. "X with Y inside", "X with Y to its right": the host is the mention before "with". "it" is the host or, if the
   sentence has none, the subject of the previous sentence.
4. A number with "shapes" counts all shapes; a number with a bare plural ("two circles") counts that shape.
5. Adjectives, articles and relations without a noun, and words outside the vocabulary, are unparsed.

The words are those of a lexicon; the rules are the same in every language. Where adjectives may follow their noun, a
noun takes those on both sides of it. Agreement in gender and number is not asked for.
"""

from collections.abc import Container
from dataclasses import dataclass, field

from capkit.sceneworld.language import facts as fact
from capkit.sceneworld.language.languages import lexicon_of
from capkit.sceneworld.language.lexicon import Lexicon, Phrase

_MAX_COUNT = 10


@dataclass
class Mention:
    """An object mentioned by a caption; `shape` is None for "a red thing". Contradictory attributes are all kept."""

    shape: str | None
    attributes: set[tuple[str, str]] = field(default_factory=set)  # (color | size | place, value)

    def facts(self, index: int) -> list[str]:
        shape = [] if self.shape is None else [fact.shape_fact(index, self.shape)]
        return shape + [fact.attribute_fact(kind, index, value) for kind, value in sorted(self.attributes)]


@dataclass
class ParsedCaption:
    """The content of a caption. Facts refer to mentions by number, in order of appearance."""

    mentions: list[Mention] = field(default_factory=list)
    relations: set[tuple[str, int, int]] = field(default_factory=set)
    globals: set[str] = field(default_factory=set)  # facts without an object: counts, background, text
    unparsed: list[str] = field(default_factory=list)

    @property
    def num_unparsed(self) -> int:
        return len(self.unparsed)

    @property
    def facts(self) -> list[str]:
        """The distinct facts."""
        found = [text for i, mention in enumerate(self.mentions) for text in mention.facts(i)]
        return found + [fact.relation_fact(*item) for item in sorted(self.relations)] + sorted(self.globals)


def parse(text: str, language: str = "en") -> ParsedCaption:
    """Parse a text to its facts and unparsed words. Any text is read; UsageError for a language without a lexicon."""
    return _Scanner(text, lexicon_of(language)).run()


_Group = tuple[int, ...]  # the mentions that a noun phrase denotes


class _Scanner:
    def __init__(self, text: str, lexicon: Lexicon) -> None:
        self.words, self.shown = lexicon.tokens(text)
        self.lexicon = lexicon
        self.at = 0
        self.result = ParsedCaption()
        self.last: _Group = ()  # last mention of this sentence
        self.subject: _Group = ()  # subject of this sentence
        self.host: _Group = ()  # X in "X with ..."
        self.previous_subject: _Group = ()
        self.place: Phrase | None = None  # stated before its noun: "in the center is a circle"
        self.place_shown: list[str] = []  # its words
        self.after_break = False  # the previous word was "," or "and"
        self.about_background = False  # "the background is ..."

    def run(self) -> ParsedCaption:
        while self.at < len(self.words):
            broke = self.after_break
            self.after_break = False
            if self._punctuation() or self._phrase(broke) or self._background() or self._noun_phrase_alone():
                continue
            self._reject(1)
        self._drop_place()
        return self.result

    def _drop_place(self) -> None:
        """Mark a place without a noun as unparsed."""
        if self.place is not None:
            self.result.unparsed += self.place_shown
            self.place = None

    def _reject(self, count: int) -> None:
        self.result.unparsed += self._shown(self.at, count)
        self.at += count

    def _shown(self, start: int, count: int) -> list[str]:
        """Words as the text has them: a contraction is one."""
        return [word for word in self.shown[start : start + count] if word]

    def _punctuation(self) -> bool:
        word = self.words[self.at]
        if word in (",", ";"):
            self.after_break, self.host = True, ()
        elif word == ".":
            self.previous_subject = self.subject or self.previous_subject
            self.last = self.subject = self.host = ()
            self.about_background = False
            self._drop_place()
        else:
            return False
        self.at += 1
        return True

    def _match(self, at: int) -> Phrase | None:
        if at >= len(self.words):
            return None
        for phrase in self.lexicon.phrases_from(self.words[at]):
            if tuple(self.words[at : at + len(phrase.words)]) == phrase.words:
                return phrase
        return None

    def _phrase(self, broke: bool) -> bool:
        phrase = self._match(self.at)
        if phrase is None:
            return self._pronoun()
        words, kind = phrase.words, phrase.kind
        if kind == "relation":
            self._relation(self.subject if broke and self.subject else self.last)
            return True
        start, self.at = self.at, self.at + len(words)
        if kind == "filler":
            self.after_break = self._are(words, self.lexicon.conjunctions)
            if self._are(words, self.lexicon.copulas):
                self._predicate()
        elif kind == "with":
            self.host = self.last
        elif kind == "place":
            self._say_place(phrase, self._shown(start, len(words)))
        elif not (self._say_text() if kind == "text" else self._say_host(phrase)):
            self.at = start
            self._reject(len(words))
        return True

    def _are(self, words: tuple[str, ...], kind: frozenset[str]) -> bool:
        return len(words) == 1 and words[0] in kind

    def _word_in(self, at: int, kind: Container[str]) -> bool:
        return at < len(self.words) and self.words[at] in kind

    def _pronoun(self) -> bool:
        if self.words[self.at] not in self.lexicon.pronouns or not self._referent():
            return False
        self.last = self.subject = self._referent()
        self.at += 1
        return True

    def _referent(self) -> _Group:
        return self.host or self.previous_subject

    # attributes ---------------------------------------------------------------------------------------------------

    def _adjective(self, at: int) -> tuple[str, str] | None:
        word = self.words[at] if at < len(self.words) else ""
        if word in self.lexicon.sizes:
            return ("size", self.lexicon.sizes[word])
        return ("color", self.lexicon.colors[word]) if word in self.lexicon.colors else None

    def _say_place(self, said: Phrase, shown: list[str]) -> None:
        if not self.last:
            self._drop_place()
            self.place, self.place_shown = said, shown
        for index in self.last:
            self.result.mentions[index].attributes.add(("place", said.value))

    def _say_text(self) -> bool:
        word = self.shown[self.at] if self.at < len(self.words) else ""  # "no" is no contraction where it is drawn
        if not word or not word[0].isalnum():
            return False
        self.result.globals.add(fact.text_fact(word))
        self.at += 1 + (self.shown[self.at + 1 : self.at + 2] == [""])
        return True

    def _predicate(self) -> None:
        """Adjectives after "is" without a following noun: "the circle is large and red"."""
        end, found = self.at, []
        while (adjective := self._adjective(end)) is not None:
            found.append(adjective)
            end += 1
            joined = self._word_in(end, self.lexicon.conjunctions) or self._word_in(end, (",",))
            if joined and self._adjective(end + 1) is not None:
                end += 1
        if not found or self._is_noun(end) or self._word_in(end, (self.lexicon.background,)):
            return
        if self.about_background:
            self.result.globals |= {fact.background_fact(value) for _, value in found}
        elif self.last:
            for index in self.last:
                self.result.mentions[index].attributes.update(found)
        else:
            return
        self.at = end

    def _background(self) -> bool:
        """ "on a white background", "a white background", "the background"."""
        at = self.at + self._word_in(self.at, self.lexicon.background_prepositions)
        at += self._word_in(at, self.lexicon.articles)
        at += self._word_in(at, self.lexicon.plain)
        before = self._adjective(at)
        at += before is not None
        if not self._word_in(at, (self.lexicon.background,)):
            return False
        behind = self._adjective(at + 1) if self.lexicon.adjectives_follow and before is None else None
        adjective = before or behind
        if adjective is None:
            self.about_background = True
        else:
            self.result.globals.add(fact.background_fact(adjective[1]))
        self.at = at + 1 + (behind is not None)
        return True

    # noun phrases -------------------------------------------------------------------------------------------------

    def _noun_phrase_alone(self) -> bool:
        group = self._noun_phrase()
        if group is None:
            return False
        self.about_background = False
        if group:
            if not self.host:
                self.subject = group
            self.last = group
        return True

    def _noun_phrase(self) -> _Group | None:
        """The denoted mentions, () for a mere count ("three shapes"), or None if this is no noun phrase."""
        at = self.at
        is_definite = self._word_in(at, self.lexicon.definite)
        at += self._word_in(at, self.lexicon.articles)
        number = self.lexicon.numbers.get(self.words[at]) if at < len(self.words) else None
        at += number is not None
        attributes, at = self._adjectives(at)
        if not self._is_noun(at):
            return None
        noun, at = self.words[at], at + 1
        if self.lexicon.adjectives_follow:
            behind, at = self._adjectives(at)
            attributes |= behind
        self.at = at
        return self._refer(noun, number, attributes, is_definite)

    def _adjectives(self, at: int) -> tuple[set[tuple[str, str]], int]:
        """The adjectives from a word on, and where they end."""
        found = set()
        while (adjective := self._adjective(at)) is not None:
            found.add(adjective)
            at += 1
        return found, at

    def _is_noun(self, at: int) -> bool:
        return self._word_in(at, self.lexicon.shapes) or self._word_in(at, self.lexicon.generic)

    def _refer(self, noun: str, number: int | None, attributes: set[tuple[str, str]], definite: bool) -> _Group:
        shape = self.lexicon.shapes.get(noun)
        many = number or (1 if noun in self.lexicon.singular else 2)
        if number is not None and not attributes and (shape is None or number > 1):
            self.result.globals.add(fact.count_fact(shape or "object", number))
        if shape is None and not attributes:
            return ()
        if self.place is not None:
            attributes, self.place = attributes | {("place", self.place.value)}, None
        group = self._earlier(shape, attributes, many) if definite else ()
        if not group:
            start = len(self.result.mentions)
            group = tuple(range(start, start + min(many, _MAX_COUNT)))
            self.result.mentions += [Mention(shape) for _ in group]
        for index in group:
            self.result.mentions[index].attributes |= attributes
        return group

    def _earlier(self, shape: str | None, attributes: set[tuple[str, str]], many: int) -> _Group:
        found = []
        for i, mention in enumerate(self.result.mentions):
            known = {kind for kind, _ in mention.attributes}
            agrees = all(item in mention.attributes or item[0] not in known for item in attributes)
            if agrees and (shape is None or mention.shape == shape):
                found.append(i)
        return tuple(found[:many]) if len(found) >= many else ()

    # relations ----------------------------------------------------------------------------------------------------

    def _relation(self, subject: _Group) -> None:
        """ "left of Y", "above and to the left of Y", "inside it", "inside" after "X with Y"."""
        start, said = self.at, []
        phrase = self._match(self.at)
        while phrase is not None and phrase.kind == "relation":
            said.append(phrase)
            self.at += len(phrase.words)
            after_and = self._match(self.at + 1) if self._word_in(self.at, self.lexicon.conjunctions) else None
            joined = after_and is not None and after_and.kind == "relation"
            self.at += joined
            phrase = after_and if joined else None
        end = self.at
        target = self._target(may_omit=[(p.value, p.swapped) for p in said] == [("inside", False)]) if subject else ()
        if not target:
            self.at = start
            self._reject(end - start)
            return
        for relation in said:
            self._relate(relation, subject, target)

    def _target(self, may_omit: bool) -> _Group:
        if self._word_in(self.at, self.lexicon.pronouns) and self._referent():
            self.at += 1
            return self._referent()
        before = self.at
        target = self._noun_phrase()
        if target:
            self.last = target
            return target
        self.at = before  # "left of three shapes" relates to nothing; the count is parsed again
        return self.host if may_omit else ()

    def _relate(self, said: Phrase, subject: _Group, target: _Group) -> None:
        for a in subject:
            for b in target:
                self.result.relations.add((said.value, b, a) if said.swapped else (said.value, a, b))

    def _say_host(self, said: Phrase) -> bool:
        """ "to its right": relates the last mention to the host."""
        if not self.host or not self.last or self.host == self.last:
            return False
        self._relate(said, self.last, self.host)
        return True
