"""Files of prompts: text, JSON and YAML are read, and what is malformed is an error that says where."""

import json
import sys
from pathlib import Path

import pytest

from fair_adaptors.errors import ConfigError, MissingExtraError
from fair_adaptors.prompts.sets import PromptSet, load_prompts


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


PROMPTS = ("a photo of a nurse", "a photo of a “pilot” ✈ 😀")


def listed(path: str) -> PromptSet:
    return PromptSet(Path(path).name, PROMPTS, PROMPTS, Path(path).name)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_text_file_has_a_prompt_per_line(tmp_path: Path, end: str, start: bytes) -> None:
    lines = ["# my prompts", "", f"  {PROMPTS[0]} ", "   ", "  # and", PROMPTS[1]]
    path = write(tmp_path, "mine.txt", start + end.join(lines).encode())
    assert load_prompts(path) == listed(path)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("name", ["mine.json", "mine.JSON", "mine.yaml", "mine.yml"])
def test_a_list_of_prompts_is_read(tmp_path: Path, name: str, indent: int | str | None, ascii_only: bool) -> None:
    import yaml

    as_json = json.dumps(PROMPTS, indent=indent, ensure_ascii=ascii_only)
    as_yaml = yaml.safe_dump(list(PROMPTS), allow_unicode=not ascii_only)
    path = write(tmp_path, name, as_json if name.lower().endswith("json") else as_yaml)
    assert load_prompts(path) == listed(path)


ITEMS = [
    "a portrait",
    {"prompt": "a photo of a female nurse", "label": "female nurse", "expected": {"gender": "female", "age": "old"}},
]


@pytest.mark.parametrize("name", ["mine.json", "mine.yaml"])
def test_items_may_tell_label_and_classes_and_the_file_its_source(tmp_path: Path, name: str) -> None:
    import yaml

    content = {"source": "our survey", "prompts": ITEMS}
    path = write(tmp_path, name, json.dumps(content, indent=1) if name == "mine.json" else yaml.safe_dump(content))
    assert load_prompts(path) == PromptSet(
        name,
        ("a portrait", "a photo of a female nurse"),
        ("a portrait", "female nurse"),
        "our survey",
        ({}, {"gender": "female", "age": "old"}),
    )


def test_an_alias_of_yaml_is_what_it_stands_for(tmp_path: Path) -> None:
    text = "- {prompt: a nurse, expected: &she {gender: female}}\n- {prompt: a cook, expected: *she}\n"
    assert load_prompts(write(tmp_path, "mine.yaml", text)).expected == ({"gender": "female"},) * 2


LONG = "x" * 1001


MALFORMED = [
    ("txt", "", "", "there are no prompts in it"),
    ("txt", "# only\n\n", "", "there are no prompts in it"),
    ("txt", "a\n\n# c\na \n", ", line 4", "duplicate prompt: 'a' is there already"),
    ("txt", f"a\n{LONG}", ", line 2", "1,001 characters; 1,000 at most"),
    ("txt", "a\nb\x07c", ", line 2", r"control character U\+0007"),
    ("txt", "a\r\nb\tc", ", line 2", r"control character U\+0009"),
    ("txt", "a\rb\x00c", ", line 2", r"control character U\+0000"),
    ("txt", b"a\nb\n\xff\n", ", line 3", "not text in UTF-8"),
    ("txt", "a\n".encode("utf-16"), ", line 1", "not text in UTF-8"),
    ("txt", "a\n" * 5_000_001, "", "more than 10,000,000 bytes"),
    ("json", b'["a",\n"\xe9"]', ", line 2", "not text in UTF-8"),
    ("json", "", "", "not valid JSON"),
    ("json", '[\n"a"\n"b"]', "", "not valid JSON: Expecting ',' delimiter: line 3"),
    ("json", '["a"]\n["b"]', "", "not valid JSON: Extra data: line 2"),
    ("json", '["a",\n"b\tc"]', "", "not valid JSON: Invalid control character.*line 2"),
    ("json", '["a",\n1' + "0" * 5000 + "]", "", "not valid JSON"),
    ("json", '["a", "b", ""]', ", item 3", "empty prompt"),
    ("json", '["a", {"prompt": "  "}]', ", item 2", "empty prompt"),
    ("json", '["a", "b", "a"]', ", item 3", "duplicate prompt"),
    ("json", '["a", {"label": "a", "prompt": "a"}]', ", item 2", "duplicate prompt"),
    ("json", f'["a", "{LONG}"]', ", item 2", "1,001 characters"),
    ("json", '["a", "b\\nc"]', ", item 2", r"control character U\+000A"),
    ("json", '["a", "b\\ud800"]', ", item 2", r"control character U\+D800"),
    ("json", '["a", "b\\u2028c"]', ", item 2", r"control character U\+2028"),
    ("json", '["a", 7]', ", item 2", "the prompt must be text, got int; put it in quotes"),
    ("json", '["a", NaN]', ", item 2", "the prompt must be text, got float; put it in quotes"),
    ("json", '["a", null]', ", item 2", "empty prompt"),
    ("json", '["a", ["b"]]', ", item 2", "the prompt must be text, got list"),
    ("json", '"a"', "", "expected a list of prompts"),
    ("json", "7", "", "expected a list of prompts"),
    ("json", '{"prompts": "a"}', "", "expected a list of prompts"),
    ("json", "[]", "", "there are no prompts in it"),
    ("json", "[{}]", ", item 1", "the key 'prompt' is missing"),
    ("json", '{"source": "a"}', "", "the key 'prompts' is missing"),
    ("json", '{"prompts": ["a"], "template": "b"}', "", "there is no key 'template'.* Known: prompts, source"),
    ("json", '["a", {"prompt": "b", "lable": "b"}]', ", item 2", "there is no key 'lable'. Did you mean 'label'"),
    ("json", '[{"prompt": "b", "prompt": "c"}]', ", item 1", "the key 'prompt' is there twice"),
    ("json", '["a", {"prompt": "b", "label": "c"}]', ", item 2", "the label 'c' is not a part of its prompt"),
    ("json", '[{"prompt": "b", "expected": "female"}]', ", item 1", "'expected' must be a mapping"),
    ("json", '[{"prompt": "b", "expected": {"age": 1}}]', ", item 1", "the class of 'age' must be text, got int"),
    ("json", '{"prompts": ["a"], "source": ["b"]}', "", "the source must be text, got list"),
    ("json", "[" * 100_000, "", "nested too deeply"),
    ("json", "[" * 100_000 + "]" * 100_000, "", "nested too deeply"),
    ("yaml", "", "", "there are no prompts in it"),
    ("yaml", "# only\n", "", "there are no prompts in it"),
    ("yaml", "source: a\nprompts: []\n", "", "there are no prompts in it"),
    ("yaml", "- a\n- 'b\n- c\n", "", "not valid YAML: .*found unexpected end of stream.*line 4"),
    ("yaml", "- a\n- b: c: d\n", "", "not valid YAML: mapping values are not allowed here.*line 2"),
    ("yaml", "- a\n- *b\n", "", "not valid YAML: found undefined alias"),
    ("yaml", "- a\n---\n- b\n", "", "not valid YAML: .*but found another document"),
    ("yaml", "- a\n- b\x07c\n", "", "not valid YAML: unacceptable character #x0007"),
    ("yaml", '- a\n- "\\UFFFFFFFF"\n', "", "not valid YAML"),
    ("yaml", "- a\n- !!int ''\n", "", "not valid YAML"),
    ("yaml", "- a\n- !!python/object/apply:os.getcwd []\n", "", "not valid YAML: could not determine a constructor"),
    ("yaml", "[" * 5_000, "", "nested too deeply"),
    ("yaml", '- a\n- "b\\tc"\n', ", item 2", r"control character U\+0009"),
    ("yaml", "- a\n-\n", ", item 2", "empty prompt"),
    ("yaml", "- a\n\n- ''\n", ", item 2", "empty prompt"),
    ("yaml", "- a\n- b\n- a\n", ", item 3", "duplicate prompt: 'a' is there already"),
    ("yaml", "- prompt: a\n  prompt: b\n", ", item 1", "the key 'prompt' is there twice"),
    ("yaml", "- a\n- yes\n", ", item 2", "the prompt must be text, got bool; put it in quotes"),
    ("yaml", "- a\n- 123\n", ", item 2", "the prompt must be text, got int; put it in quotes"),
    ("yaml", "- a\n- 2020-01-01\n", ", item 2", "the prompt must be text, got date; put it in quotes"),
    ("yaml", "- a\n- a photo: a nurse\n", ", item 2", "no key 'a photo'.* A prompt with a colon must be quoted"),
    ("yaml", "- prompt: a\n  expected:\n    age: 30\n", ", item 1", "the class of 'age' must be text, got int"),
    ("yaml", "- &a [*a]\n", ", item 1", "the prompt must be text, got list"),
    ("yaml", "&a\nprompts: *a\n", "", "not valid YAML: found unconstructable recursive node"),
    ("yaml", "- &a {<<: [*a]}\n", "", "not valid YAML: .*'tag:yaml.org,2002:merge'"),
    ("yaml", "- [b]: c\n", ", item 1", "the key must be text, got list"),
    ("yaml", "just text\n", "", "expected a list of prompts"),
]


@pytest.mark.parametrize(("ending", "content", "where", "message"), MALFORMED)
def test_a_malformed_file_is_an_error_with_its_line_or_item(
    tmp_path: Path, ending: str, content: str | bytes, where: str, message: str
) -> None:
    path = write(tmp_path, f"mine.{ending}", content)
    with pytest.raises(ConfigError, match=message) as error:
        load_prompts(path)
    said = str(error.value)
    assert said.startswith(f"{path}{where}") and len(said) < len(path) + 400 and "\n" not in said
    assert bool(where) == said.startswith(f"{path}, ")


@pytest.mark.parametrize("doubled", ["[*{0}, *{0}]", "{{prompt: *{0}, label: *{0}}}"])
def test_aliases_that_double_at_every_step_do_not_fill_the_memory(tmp_path: Path, doubled: str) -> None:
    bomb = ["- &a0 {prompt: a}", *(f"- &a{step + 1} {doubled.format(f'a{step}')}" for step in range(50))]
    with pytest.raises(ConfigError, match="item 2: the prompt must be text"):
        load_prompts(write(tmp_path, "mine.yaml", "\n".join(bomb)))


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    for name, message in [
        ("nowhere.txt", "No such file"),
        ("folder.txt", "Is a directory"),
        (f"{LONG}.txt", "File name too long"),
        ("a\0.txt", "null byte"),
    ]:
        with pytest.raises(ConfigError, match=f"cannot be read: .*{message}"):
            load_prompts(str(tmp_path / name))


def test_only_yaml_needs_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert load_prompts(write(tmp_path, "mine.json", '["a"]')).prompts == ("a",)
    assert load_prompts(write(tmp_path, "mine.txt", "a")).prompts == ("a",)
    with pytest.raises(MissingExtraError, match=r"yaml is not installed: .*pip install .*\[eval\]"):
        load_prompts(write(tmp_path, "mine.yaml", "- a"))
