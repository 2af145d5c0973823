from __future__ import annotations

import pytest
import studio_app


@pytest.fixture(scope="package")
def folders(tmp_path_factory):
    return studio_app.models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="package")
def studio(folders, tmp_path_factory):
    with studio_app.opened(folders, tmp_path_factory.mktemp("kept")) as found:
        yield found
