import pytest

from capkit.errors import UsageError
from capkit.llm.prompts import Prompt, numbered


def test_the_prompts_that_ship_have_the_places_that_the_steps_fill():
    blend = Prompt("blend_v1", ["captions"]).fill(captions=numbered(["a dog", "one dog"]))
    assert blend.endswith("[captions]\n1. a dog\n2. one dog")
    assert (
        Prompt("holistic_v1", ["anchor", "description"])
        .fill(anchor="A", description="B")
        .endswith("[anchor]\nA\n\n[description]\nB")
    )
    assert Prompt("describe_v1", []).fill()


def test_captions_have_the_five_styles_of_captionqa():
    styles = ("short", "simple", "long", "taxonomy", "structured")
    assert len({Prompt(f"caption_qa_{style}_v1", []).fill() for style in styles}) == 5


def test_braces_and_dollars_in_captions_are_left_alone():
    text = 'costs $5, {"caption": $captions}'
    assert text in Prompt("blend_v1", ["captions"]).fill(captions=text)


def test_a_prompt_of_ones_own_is_a_file_and_its_name_the_version(tmp_path):
    file = tmp_path / "mine_v3.txt"
    file.write_text("Merge: $captions for $$0\n")
    prompt = Prompt(str(file), ["captions"])
    assert (prompt.name, prompt.fill(captions="x")) == ("mine_v3", "Merge: x for $0")
    before = prompt.fingerprint_fields()
    file.write_text("Merge them: $captions\n")
    assert Prompt(str(file), ["captions"]).fingerprint_fields() != before


@pytest.mark.parametrize("text", ["no place", "$captions and $more", "$captions for $5"])
def test_a_prompt_with_other_places_is_refused(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(UsageError, match=r"expected the fields \$captions"):
        Prompt(str(tmp_path / "p.txt"), ["captions"])


def test_a_prompt_that_is_not_there_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'blend_v1'"):
        Prompt("blend_v2", ["captions"])
