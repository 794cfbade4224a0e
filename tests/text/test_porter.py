import pytest

from capkit.text.porter import porter_stem

# Examples of Porter 1980, each with the step it shows.
PAPER = """
caresses>caress ponies>poni caress>caress cats>cat feed>feed agreed>agre plastered>plaster bled>bled motoring>motor
sing>sing conflated>conflat troubled>troubl sized>size hopping>hop tanned>tan falling>fall hissing>hiss fizzed>fizz
failing>fail filing>file happy>happi relational>relat conditional>condit rational>ration valenci>valenc
hesitanci>hesit digitizer>digit conformabli>conform radicalli>radic differentli>differ vileli>vile analogousli>analog
vietnamization>vietnam predication>predic operator>oper feudalism>feudal decisiveness>decis hopefulness>hope
callousness>callous formaliti>formal sensitiviti>sensit sensibiliti>sensibl triplicate>triplic formative>form
formalize>formal electriciti>electr electrical>electr hopeful>hope goodness>good revival>reviv allowance>allow
inference>infer airliner>airlin gyroscopic>gyroscop adjustable>adjust defensible>defens irritant>irrit
replacement>replac adjustment>adjust dependent>depend adoption>adopt homologou>homolog communism>commun activate>activ
angulariti>angular homologous>homolog effective>effect bowdlerize>bowdler probate>probat rate>rate cease>ceas
controll>control roll>roll
"""
# Where NLTK differs: short words in -ies and -ied, -y after a consonant alone, -fulli, -logi, irregular words.
NLTK = """
ties>tie dies>die died>die spied>spi enjoy>enjoy say>say dying>die skies>sky news>news geology>geolog hopefully>hope
"""


@pytest.mark.parametrize("pair", PAPER.split())
def test_examples_of_the_paper(pair):
    word, stem = pair.split(">")
    assert porter_stem(word) == stem


@pytest.mark.parametrize("pair", NLTK.split())
def test_extensions_of_nltk(pair):
    word, stem = pair.split(">")
    assert porter_stem(word) == stem


def test_case_is_ignored_and_short_words_stay():
    assert porter_stem("Running") == "run"
    assert [porter_stem(word) for word in ("", "a", "is", "as")] == ["", "a", "is", "as"]
