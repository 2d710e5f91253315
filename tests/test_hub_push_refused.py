"""What push says of a place that is no adaptor, and of a Hub that says no."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fair_adaptors.adaptor.record import CONFIG_FILE
from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.hub import publish
from fair_adaptors.hub.publish import files_to_publish


def test_a_tag_that_the_hub_forbids_is_not_laid_to_somebody_else() -> None:
    class Forbidden(Exception):
        response = SimpleNamespace(status_code=403)

    def create_tag(*_: object, **named: object) -> None:
        raise Forbidden

    api, nothing = SimpleNamespace(create_tag=create_tag), SimpleNamespace(tags=[])
    with pytest.raises(Forbidden):
        publish._tag(SimpleNamespace(repo_id="ann/x", api=api, ask=lambda _: nothing), "v1", "c" * 40)


def test_what_is_no_folder_is_refused_with_what_it_is(sandbox_copy: Path, tmp_path: Path) -> None:
    file = sandbox_copy / CONFIG_FILE
    for place, what in ((file, "is a file; give the folder"), (tmp_path / "gone", "is not there")):
        with pytest.raises(InvalidAdaptorError, match=f"{place.name}' {what}.*`fair-adaptors train`"):
            files_to_publish(place, "ann/x")
