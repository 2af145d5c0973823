"""The tokenizers of translators between a hundred languages and more: M2M-100's and NLLB's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from cutaway.errors import TokenizerError
from cutaway.tokenization.backend import guarded, read_byte_pairs, read_bytes
from cutaway.tokenization.sentencepiece_model import SentencePieceModel, merges_from, read_sentencepiece
from cutaway.tokenization.special_tokens import ROBERTA_TOKENS
from cutaway.tokenization.translation import CodedTokenizer

__all__ = ["M2M100Tokenizer", "NllbTokenizer", "NllbTokenizerFast"]

# The languages of Fan et al. (2021), of the models of WMT 2021 and of Costa-jussà et al. (2022), by their ids.
_M2M_100 = """
    af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy
    id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru
    sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
""".split()  # noqa: SIM905
_WMT_21 = ["en", "ha", "is", "ja", "cs", "ru", "zh", "de"]
_NLLB = """
    ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab ars_Arab
    ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl
    bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn
    cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn
    est_Latn eus_Latn ewe_Latn fao_Latn pes_Arab fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn
    gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn
    ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab
    kas_Deva kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn
    kon_Latn kor_Hang kmr_Latn lao_Laoo lvs_Latn lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn
    lua_Latn lug_Latn luo_Latn lus_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Latn mkd_Cyrl plt_Latn mlt_Latn
    mni_Beng khk_Cyrl mos_Latn mri_Latn zsm_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn
    nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pol_Latn por_Latn prs_Arab pbt_Arab quy_Latn
    ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn
    sna_Latn snd_Arab som_Latn sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn
    szl_Latn tam_Taml tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn tsn_Latn
    tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn
    vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zul_Latn
""".split()  # noqa: SIM905


def _backend(vocab: dict[str, int], model: SentencePieceModel | None, unknown: str, *, strip: bool) -> Tokenizer:
    """Byte pairs over characters, with the merges and the rules of normalization of a sentencepiece model.

    strip: whether spaces around a text are dropped, as sentencepiece does.
    """
    merges: list[tuple[str, str]] = []
    steps: list[Any] = [normalizers.Replace(Regex(r" {2,}"), " ")]
    if model is not None:
        merges = merges_from({piece: rank for rank, (piece, _) in enumerate(model.pieces) if piece in vocab})
    with guarded("The sentencepiece model cannot be used"):
        if model is not None and model.charsmap:
            steps.insert(0, normalizers.Precompiled(model.charsmap))
        if strip:
            steps.append(normalizers.Strip())
        backend = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=False))
        backend.normalizer = normalizers.Sequence(steps)
        space: dict[str, Any] = {"replacement": "▁", "prepend_scheme": "always", "split": True}
        backend.pre_tokenizer = pre_tokenizers.Metaspace(**space)
        backend.decoder = decoders.Metaspace(**space)
    return backend


class NllbTokenizer(CodedTokenizer):
    """Byte pairs; the code of a text's language stands before it. Settings: `src_lang`, `tgt_lang`, `legacy_behaviour`
    (the code at the end, as in the first published files).
    """

    usual: ClassVar[str] = "eng_Latn"
    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {"vocab_file": ("sentencepiece.bpe.model",)}
    defaults: ClassVar[Mapping[str, Any]] = ROBERTA_TOKENS

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        vocab = [str(settings[name]) for name in ("bos_token", "pad_token", "eos_token", "unk_token")]
        model = None
        if (path := settings.pop("vocab_file", None)) is not None:
            model = read_sentencepiece(Path(path))
            vocab += [piece for piece, _ in model.pieces[3:]]  # without the model's own <unk>, <s>, </s>
        backend = _backend({piece: i for i, piece in enumerate(vocab)}, model, vocab[3], strip=False)
        # the codes come first, and the mask after them, which takes the space before it in
        backend.add_special_tokens([AddedToken(code, normalized=False, special=True) for code in _NLLB])
        if not settings.get("extra_special_tokens") and not settings.get("additional_special_tokens"):
            settings["extra_special_tokens"] = list(_NLLB)
        if isinstance(mask := settings["mask_token"], str):
            settings["mask_token"] = AddedToken(mask, lstrip=True, normalized=True, special=True)
        return backend

    def _frame(self, complete: bool, settings: Mapping[str, Any]) -> None:
        self.legacy_behaviour = bool(settings.get("legacy_behaviour"))
        super()._frame(complete, settings)

    def _frames(self, code: str, end: str) -> tuple[str, str]:
        if self.legacy_behaviour:
            return f"$A {end} {code}", f"$A $B {end} {code}"
        return f"{code} $A {end}", f"{code} $A $B {end}"

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "legacy_behaviour": self.legacy_behaviour}


class M2M100Tokenizer(CodedTokenizer):
    """Byte pairs by sentencepiece.bpe.model, their ids by vocab.json; a token such as `__en__` stands before a text.

    Settings: `src_lang`, `tgt_lang` ("en", "fr"), `language_codes` ("m2m100" or "wmt21").
    """

    usual: ClassVar[str] = "en"
    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    vocabulary_files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vocab_file": ("vocab.json",),
        "spm_file": ("sentencepiece.bpe.model",),
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }

    def _build(self, settings: dict[str, Any]) -> Tokenizer:
        paths = {key: settings.pop(key, None) for key in self.vocabulary_files}
        if None in paths.values():
            raise TokenizerError(f"M2M100Tokenizer needs vocab.json and sentencepiece.bpe.model; it has {paths}.")
        for key in paths:
            self.init_kwargs.pop(key, None)
        self._files = {self.vocabulary_files[key][0]: read_bytes(Path(path)) for key, path in paths.items()}
        vocab, _ = read_byte_pairs(Path(paths["vocab_file"]), None)
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise TokenizerError("vocab.json: the ids of its tokens are not 0, 1, 2 ... without gaps.")
        unknown = str(settings["unk_token"])
        if unknown not in vocab:
            raise TokenizerError(f"vocab.json has no {unknown!r}; it is no vocabulary of M2M-100.")
        kinds = {"m2m100": _M2M_100, "wmt21": _WMT_21}
        self.language_codes = settings.get("language_codes") or "m2m100"
        if self.language_codes not in kinds:
            raise TokenizerError(f"language_codes is {self.language_codes!r:.40}; it must be one of {list(kinds)}.")
        codes = [self.code_token(code) for code in kinds[self.language_codes]]
        backend = _backend(vocab, read_sentencepiece(Path(paths["spm_file"])), unknown, strip=True)
        backend.add_special_tokens([AddedToken(code, normalized=False, special=True) for code in codes])
        settings.setdefault("extra_special_tokens", codes)
        return backend

    def code_token(self, code: str) -> str:
        """The token of a language: `__en__` of "en"."""
        return f"__{code}__"

    def get_lang_token(self, lang: str) -> str:
        """The token of a language."""
        return self.code_token(lang)

    def get_lang_id(self, lang: str) -> int:
        """The id of a language's token, for `generate(forced_bos_token_id=)`.

        Raises:
            TokenizerError: no such language.
        """
        index = self._backend.token_to_id(self.code_token(lang))
        if index is None:
            raise TokenizerError(f"{lang!r:.40} is no language of this tokenizer; its codes look like 'en'.")
        return index

    def _frames(self, code: str, end: str) -> tuple[str, str]:
        return f"{code} $A {end}", f"{code} $A $B {end}"

    def _decode(self, ids: object, skip: bool, clean: bool | None) -> str:
        return super()._decode(ids, skip, clean).strip()

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "language_codes": self.language_codes}

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write vocab.json and sentencepiece.bpe.model, as they are published, and the settings."""
        return self._save_published(save_directory)


NllbTokenizerFast = NllbTokenizer
