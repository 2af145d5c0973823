"""What callers need of a tokenizer, as a type: the library's own fit it, and so does whatever behaves like one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Unpack

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from cutaway.tokenization.base import PreTrainedTokenizerFast
    from cutaway.tokenization.batch_encoding import BatchEncoding
    from cutaway.tokenization.inputs import CallOptions, ListLike, TextInput


class TokenizerProtocol(Protocol):
    """Text to ids and back, with the special tokens' names and ids."""

    padding_side: str
    truncation_side: str

    @property
    def model_max_length(self) -> int: ...

    @property
    def model_input_names(self) -> Sequence[str]: ...

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def eos_token_id(self) -> int | None: ...

    @property
    def unk_token_id(self) -> int | None: ...

    @property
    def cls_token_id(self) -> int | None: ...

    @property
    def pad_token_type_id(self) -> int: ...

    @property
    def backend_tokenizer(self) -> Tokenizer: ...

    @property
    def pad_token_id(self) -> int | None: ...

    @property
    def mask_token_id(self) -> int | None: ...

    @property
    def pad_token(self) -> str | None: ...

    @property
    def mask_token(self) -> str | None: ...

    @property
    def all_special_ids(self) -> Sequence[int | None]: ...

    def __call__(
        self,
        text: TextInput = None,
        text_pair: TextInput = None,
        *,
        add_special_tokens: bool = True,
        **call: Unpack[CallOptions],
    ) -> BatchEncoding: ...

    @property
    def chat_template(self) -> str | dict[str, str] | None: ...

    def __len__(self) -> int: ...

    def decode(
        self, token_ids: object, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any: ...

    def apply_chat_template(self, conversation: ListLike, **call: object) -> Any: ...

    def convert_ids_to_tokens(self, ids: object, skip_special_tokens: bool = False) -> Any: ...

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any: ...

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...

    def num_special_tokens_to_add(self, pair: bool = False) -> int: ...


class PaddingTokenizer(Protocol):
    """What a collator asks of a tokenizer."""

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        *,
        return_tensors: str | None = None,
    ) -> Any: ...


# What a parameter says. Not every type checker sees that the tokenizer's descriptors (`pad_token_id`) are the
# protocol's properties, so the library's own class is named beside it.
TokenizerLike: TypeAlias = "PreTrainedTokenizerFast | TokenizerProtocol"
