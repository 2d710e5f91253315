import dataclasses
import json
import sys
from pathlib import Path

import pytest

from fair_adaptors.errors import ConfigError, MissingExtraError
from fair_adaptors.prompts.sets import FOLDER, PromptSet, list_prompt_sets, load_prompts
from fair_adaptors.sandbox.prompts import OCCUPATIONS, occupations, prompts

COUNTS = {
    "occupations-train": 476,
    "occupations-validation": 10,
    "occupations-test": 50,
    "untemplated": 6,
    "explicit": 100,
    "sports": 30,
    "descriptors": 40,
    "styles": 24,
    "occupations-named-gender": 952,
    "occupations-named-race": 1904,
    "occupations-named-age": 952,
    "sandbox-train": 56,
    "sandbox-validation": 8,
    "sandbox-test": 16,
    "sandbox-bare": 56,
    "sandbox-aged": 112,
    "sandbox-explicit": 96,
    "sandbox-explicit-validation": 48,
    "sandbox-named-gender": 112,
    "sandbox-named": 336,
}
EXPLICIT = {
    "explicit",
    "sandbox-explicit",
    "sandbox-explicit-validation",
    "sandbox-named-gender",
    "sandbox-named",
    "occupations-named-gender",
    "occupations-named-race",
    "occupations-named-age",
}
CLASSES = {
    "gender": {"female", "male"},
    "race": {"WMELH", "Black", "Indian", "Asian"},
    "age": {"young", "old"},
    "tone": {"pale", "tan", "brown", "dark"},
}
WORDS = {"woman": "female", "man": "male", "White": "WMELH"}
"""Words that name a class whose name is another."""


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def as_lower_case(name: str) -> set[str]:
    return {label.lower() for label in load_prompts(name).labels}


def test_the_sets_are_described_with_their_number_of_prompts() -> None:
    described = list_prompt_sets()
    assert {name: int(text.split()[0]) for name, text in described.items()} == COUNTS
    assert all("\n" not in text and text.endswith(".") for text in described.values())


def test_every_list_of_the_package_belongs_to_a_set() -> None:
    assert {path.stem for path in FOLDER.iterdir()} < set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_a_set_has_distinct_prompts_that_contain_their_labels_and_tells_its_source(name: str) -> None:
    found = load_prompts(name)
    assert found.name == name
    assert len(found.prompts) == len(found.labels) == COUNTS[name]
    for texts in (found.prompts, found.labels):
        assert len({text.lower() for text in texts}) == COUNTS[name]
    for text in (*found.prompts, *found.labels, found.source):
        assert text and text == text.strip() and text.isprintable() and not set("{}") & set(text)
    assert all(label in prompt for prompt, label in zip(found.prompts, found.labels, strict=True))


def test_the_sources_say_whose_the_lists_are() -> None:
    for name in ("occupations-validation", "occupations-test", "untemplated"):
        assert load_prompts(name).source == "Shen et al., ICLR 2024 (arXiv 2311.07604)"
    for name in ("sports", "descriptors", "styles"):
        assert load_prompts(name).source == "written for fair-adaptors; the authors' own list is in their data.zip"
    assert "ISCO-08" in load_prompts("occupations-train").source


def test_training_occupations_are_in_no_other_split() -> None:
    held_out = as_lower_case("occupations-validation") | as_lower_case("occupations-test")
    assert len(held_out) == 60
    assert not as_lower_case("occupations-train") & held_out


def test_occupations_stand_in_the_template_of_the_paper() -> None:
    assert load_prompts("occupations-test").prompts[0] == "A photo of the face of a senator, a person"
    assert load_prompts("occupations-validation").prompts[3] == "A photo of the face of a fine artist, a person"
    for name in ("occupations-train", "sports", "explicit"):
        found = load_prompts(name)
        assert list(found.prompts) == [f"A photo of the face of a {label}, a person" for label in found.labels]


def test_prompts_in_free_wording_mark_the_person() -> None:
    found = load_prompts("untemplated")
    assert found.prompts[2] == "bartender at willard intercontinental makes mint julep"
    assert found.labels[2] == "bartender"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_sandbox_has_its_own_splits(split: str) -> None:
    found = load_prompts(f"sandbox-{split}")
    assert (found.prompts, found.labels) == (prompts(split), occupations(split))  # type: ignore[arg-type]


def occupation_in(label: str) -> str:
    """The occupation that a label of an explicit set ends with."""
    known = (*load_prompts("occupations-test").labels, *load_prompts("occupations-train").labels, *OCCUPATIONS)
    return max((occupation for occupation in known if label.endswith(f" {occupation}")), key=len)


@pytest.mark.parametrize("name", sorted(EXPLICIT))
def test_the_first_word_of_an_explicit_label_names_the_expected_class(name: str) -> None:
    found = load_prompts(name)
    for label, expected in zip(found.labels, found.expected, strict=True):
        word = label.split()[0]
        assert list(expected.values()) == [WORDS.get(word, word)]


@pytest.mark.parametrize(
    ("name", "occupations", "attributes"),
    [
        ("explicit", 10, ("gender", "race", "age")),
        ("sandbox-explicit", 16, ("gender", "tone")),
        ("sandbox-explicit-validation", 8, ("gender", "tone")),
        ("sandbox-named-gender", 56, ("gender",)),
        ("sandbox-named", 56, ("gender", "tone")),
        ("occupations-named-gender", 476, ("gender",)),
        ("occupations-named-race", 476, ("race",)),
        ("occupations-named-age", 476, ("age",)),
    ],
)
def test_every_occupation_is_asked_for_in_every_class(
    name: str, occupations: int, attributes: tuple[str, ...]
) -> None:
    found = load_prompts(name)
    asked: dict[str, set[tuple[str, str]]] = {}
    for label, expected in zip(found.labels, found.expected, strict=True):
        asked.setdefault(occupation_in(label), set()).update(expected.items())
    every = {(attribute, named) for attribute in attributes for named in CLASSES[attribute]}
    assert len(asked) == occupations
    assert all(classes == every for classes in asked.values())


def test_only_explicit_sets_expect_something() -> None:
    assert {name for name in COUNTS if load_prompts(name).expected} == EXPLICIT


def test_no_prompt_of_a_class_to_be_obeyed_is_trained_on() -> None:
    trained = {occupation_in(label) for label in load_prompts("sandbox-named").labels}
    for name, split in (("sandbox-explicit", "test"), ("sandbox-explicit-validation", "validation")):
        asked = {occupation_in(label) for label in load_prompts(name).labels}
        assert asked == set(occupations(split)) and not asked & trained  # type: ignore[arg-type]


def test_styles_show_occupations_that_are_held_out() -> None:
    assert as_lower_case("styles") <= as_lower_case("occupations-test")


def test_a_set_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_prompts("sports").name = "x"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["occupation-test", "sport", "", "prompts.csv", "nowhere/sports"])
def test_an_unknown_set_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="Sets: occupations-train, .*sandbox-named; or give a file"):
        load_prompts(name)


def test_a_misspelt_set_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'descriptors'"):
        load_prompts("descriptor")


# Files.

PROMPTS = ("a photo of a nurse", "a photo of a “pilot” ✈ 😀")


def listed(path: str) -> PromptSet:
    return PromptSet(Path(path).name, PROMPTS, PROMPTS, path)


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
    ("txt", "", "", "no prompts at all"),
    ("txt", "# only\n\n", "", "no prompts at all"),
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
    ("json", "[]", "", "no prompts at all"),
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
    ("yaml", "", "", "no prompts at all"),
    ("yaml", "# only\n", "", "no prompts at all"),
    ("yaml", "source: a\nprompts: []\n", "", "no prompts at all"),
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
    with pytest.raises(MissingExtraError, match=r"yaml is not installed: pip install 'fair-adaptors\[eval\]'"):
        load_prompts(write(tmp_path, "mine.yaml", "- a"))
