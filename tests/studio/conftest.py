from __future__ import annotations

import browser
import pytest
import studio_app


@pytest.fixture(scope="package")
def folders(tmp_path_factory):
    return studio_app.models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="package")
def studio(folders, tmp_path_factory):
    with studio_app.opened(folders, tmp_path_factory.mktemp("kept")) as found:
        yield found


@pytest.fixture
def opened(studio, tmp_path):
    pages = []

    def open_page(state="", size="1280,1000", held=studio):
        address = held.page + (f"&{state}" if state else "")
        pages.append((browser.Page(address, tmp_path / f"profile{len(pages)}", size=size), held.url))
        return pages[-1][0]

    yield open_page
    for found, url in pages:
        found.close()
        assert [address for address in found.requests if not address.startswith((url, "blob:", "data:"))] == []
        assert found.errors == []
