"""The forms in `.github` follow GitHub's schema for issue forms, which refuses a form silently."""

from pathlib import Path

import pytest
import yaml

GITHUB = Path(__file__).parents[2] / ".github"
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))

TOP = {"name", "description", "title", "labels", "body"}
ATTRIBUTES = {
    "input": {"label", "description", "placeholder", "value"},
    "textarea": {"label", "description", "placeholder", "value", "render"},
    "checkboxes": {"label", "description", "options"},
}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_the_keys_of_the_schema(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys() <= TOP
    ids = [item["id"] for item in form["body"]]
    assert len(ids) == len(set(ids))
    for item in form["body"]:
        assert {"type", "id", "attributes"} <= item.keys() <= {"type", "id", "attributes", "validations"}
        assert item["attributes"]["label"]
        assert item["attributes"].keys() <= ATTRIBUTES[item["type"]]
        assert item.get("validations", {}).keys() <= {"required"}
        for option in item["attributes"].get("options", []):
            assert option["label"] and option.keys() <= {"label", "required"}


def test_the_new_method_form_asks_for_paper_code_data_effect_and_control():
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "new_method.yml").read_text(encoding="utf-8"))
    required = {item["id"] for item in form["body"] if item.get("validations", {}).get("required")}
    assert {"paper", "code", "data", "effect", "control"} <= required


def test_the_pull_request_form_is_five_lines():
    lines = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) == 5
