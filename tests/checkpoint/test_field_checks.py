import pytest

from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError


class TinyConfig(PretrainedConfig):
    defaults = {"n_layer": 2, "act": "gelu", "scale": True, "eps": 1e-5}
    attribute_map = {"num_hidden_layers": "n_layer"}


HUGE = pytest.param(1 << 16_000, id="huge")  # too long for pytest to print


def test_bounds_pass_what_is_right():
    config = TinyConfig(n_layer=12.0, eps=1)
    assert config.integer("num_hidden_layers", 1, 1000) == 12
    assert config.number("eps", 0, 1) == 1.0
    assert config.choice("act", {"gelu", "relu"}) == "gelu"
    assert config.flag("scale") is True


@pytest.mark.parametrize("bad", [True, -1, 10**9, HUGE, 2.5, float("nan"), float("inf"), "3", None, [], {}])
def test_integers_out_of_bounds(bad):
    with pytest.raises(ConfigError, match=r"^n_layer is .*from 1 to 1,000"):
        TinyConfig(n_layer=bad).integer("num_hidden_layers", low=1, high=1000)


@pytest.mark.parametrize("bad", [True, -1, HUGE, float("nan"), float("inf"), "3", None, []])
def test_numbers_out_of_bounds(bad):
    with pytest.raises(ConfigError, match=r"^eps is "):
        TinyConfig(eps=bad).number("eps", 0, 1)


def test_choices_and_flags_out_of_bounds():
    with pytest.raises(ConfigError, match=r"act is 'gelo'.*'gelu'"):
        TinyConfig(act="gelo").choice("act", {"gelu", "relu"})
    for bad in ([], None, 3):
        with pytest.raises(ConfigError, match="act is"):
            TinyConfig(act=bad).choice("act", {"gelu"})
    for bad in (1, "true", None):
        with pytest.raises(ConfigError, match="scale is"):
            TinyConfig(scale=bad).flag("scale")
    with pytest.raises(ConfigError, match="needed"):
        TinyConfig().integer("absent")
