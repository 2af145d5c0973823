"""A studio of tiny models on a real socket of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import serve_app
import tiny

from cutaway.studio.routes import Studio
from cutaway.studio.starting import make
from cutaway.studio.workbench import Workbench

KEY = "k" * 24


@dataclass
class Open:
    url: str
    http: httpx.Client
    bench: Workbench

    @property
    def page(self) -> str:
        return f"{self.url}/studio#key={KEY}"

    def ask(self, path: str, **body: Any) -> Any:
        answer = self.http.post(f"/studio/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def models(folder: Path) -> dict[str, str]:
    return {
        "labels": str(tiny.classifier(folder / "labels", 3)),
        "text": str(serve_app.llama(folder / "text")),
        "t5": str(tiny.encoder_decoder(folder / "t5")),
        "mask": str(tiny.classifier(folder / "mask", head="BertForMaskedLM")),
        "vectors": str(tiny.classifier(folder / "vectors", head="BertModel")),
    }


@contextlib.contextmanager
def opened(given: dict[str, str], kept: Path, folders: tuple[Path, ...] = ()) -> Iterator[Open]:
    service, bench = make(given, KEY, folders, kept)
    with (
        serve_app.serving(service, routes=Studio(bench).routes()) as url,
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=120) as http,
    ):
        yield Open(url, http, bench)
