import gc
import threading

import pytest
import torch

from cutaway import AutoModelForSequenceClassification, AutoTokenizer
from cutaway.checkpoint.collector_pause import collector_paused


@pytest.fixture(autouse=True)
def _on():
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_is_off_inside_and_on_again_after_an_error():
    @collector_paused()
    def fails() -> None:
        assert not gc.isenabled()
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        fails()
    assert gc.isenabled()


def test_the_last_of_several_turns_it_on():
    inside, leave = threading.Event(), threading.Event()

    @collector_paused()
    def other() -> None:
        inside.set()
        assert leave.wait(30)

    thread = threading.Thread(target=other)
    with collector_paused():
        thread.start()
        assert inside.wait(30)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off():
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_loading_pauses_it(monkeypatch):
    seen = []
    monkeypatch.setattr(gc, "disable", lambda: seen.append("off"))
    AutoTokenizer.from_pretrained("cutaway/sentiment")
    assert seen == ["off"]
    AutoModelForSequenceClassification.from_pretrained("cutaway/sentiment")
    assert seen == ["off", "off"]
    assert torch.is_grad_enabled()
