"""The prompts of captions that a question asks for (PromptCap, Hu et al. 2022, arXiv 2211.09699, section 3.3)."""

from string import Template

from capkit.errors import UsageError

GUIDED = "please describe this image according to the given question: $question"
GENERIC = "what does the image describe?"


def guided_prompt(question: str, template: str = GUIDED) -> str:
    """The prompt that asks for a caption which helps with the question. Options and answers are no part of it.

    Raises UsageError for a template without $question, or with another field.
    """
    form = Template(template)
    if not form.is_valid() or form.get_identifiers() != ["question"]:
        raise UsageError(f"expected a prompt with $question and no other field, got {template!r}")
    return form.substitute(question=question)
