"""What is said where published names do not fit: layers that cannot be replaced, and states with other names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cutaway import BertConfig, BertModel


def small():
    return BertModel(
        BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )


def test_a_name_of_several_layers_lists_as_many_as_it_counts():
    with pytest.raises(AttributeError, match=r"stands for 5 layers \(.*, and 1 more\)"):
        small().encoder.layer[0].attention = nn.Identity()


def test_missing_names_come_before_unexpected_ones():
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*Unexpected key"):
        small().load_state_dict({"other": torch.zeros(1)})
