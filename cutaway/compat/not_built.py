"""Upstream's names that are not here, by the reason; made by `python tests/upstream_names.py`."""

NAMES: dict[str, str] = {
    "AutoTokenizer reads its tokenizer.json": (
        "MBart50Tokenizer"
    ),
    "a part of upstream's own models; here there is one engine": (
        "AttentionInterface AttentionMaskInterface BertLayer GPTNeoXLayer GradientCheckpointingLayer "
        "JinaEmbeddingsV3Layer MPNetLayer Qwen2RMSNorm RopeParameters dynamic_rope_update kernelize "
        "model_addition_debugger_context"
    ),
    "a step of upstream's loader; here a family's table of weights says it": (
        "Chunk Concatenate ConversionOps MergeModulelist PermuteForRope SplitModulelist WeightConverter"
    ),
    "cutaway reads texts alone": (
        "AnyToAnyPipeline AudioClassificationPipeline AutoBackbone AutoFeatureExtractor AutoImageProcessor "
        "AutoModelForAudioClassification AutoModelForAudioFrameClassification AutoModelForAudioTokenization "
        "AutoModelForAudioXVector AutoModelForCTC AutoModelForDecision AutoModelForDepthEstimation "
        "AutoModelForDocumentQuestionAnswering AutoModelForImageClassification AutoModelForImageMatting "
        "AutoModelForImageSegmentation AutoModelForImageTextToText AutoModelForImageToImage "
        "AutoModelForInstanceSegmentation AutoModelForKeypointDetection AutoModelForKeypointMatching "
        "AutoModelForMaskGeneration AutoModelForMaskedImageModeling AutoModelForMultimodalLM "
        "AutoModelForNormalEstimation AutoModelForObjectDetection AutoModelForPointmapEstimation "
        "AutoModelForPoseEstimation AutoModelForRNNT AutoModelForSemanticSegmentation AutoModelForSpeechSeq2Seq "
        "AutoModelForTDT AutoModelForTableRecognition AutoModelForTextRecognition AutoModelForTextToSpectrogram "
        "AutoModelForTextToWaveform AutoModelForTimeSeriesPrediction AutoModelForUniversalSegmentation "
        "AutoModelForVideoClassification AutoModelForVisualQuestionAnswering AutoModelForZeroShotImageClassification "
        "AutoModelForZeroShotObjectDetection AutoProcessor AutoVideoProcessor AutomaticSpeechRecognitionPipeline "
        "BackboneConfigMixin BackboneMixin BaseImageProcessor BaseVideoProcessor BatchFeature DecisionPipeline "
        "DepthEstimationPipeline DocumentQuestionAnsweringPipeline FeatureExtractionMixin ImageClassificationPipeline "
        "ImageFeatureExtractionMixin ImageFeatureExtractionPipeline ImageProcessingMixin ImageSegmentationPipeline "
        "ImageTextToTextPipeline KeypointMatchingPipeline MaskGenerationPipeline ObjectDetectionPipeline "
        "TextToAudioPipeline VideoClassificationPipeline ZeroShotAudioClassificationPipeline "
        "ZeroShotImageClassificationPipeline ZeroShotObjectDetectionPipeline"
    ),
    "every tokenizer here is a fast one of the tokenizers library": (
        "MistralCommonBackend PythonBackend SentencePieceBackend convert_slow_tokenizer"
    ),
    "for pictures and sounds": (
        "ProcessorMixin"
    ),
    "no family here reads tables": (
        "AutoModelForTableQuestionAnswering TableQuestionAnsweringPipeline"
    ),
    "not built": (
        "CohereTokenizer ContinuousMixin Gemma3Config Gemma3ForConditionalGeneration Gemma3ForSequenceClassification "
        "Gemma3Model GroupWeightRename TextDiffusionStreamer XLNetForQuestionAnswering"
    ),
    "not built: the decoder of an encoder-decoder is not a model of its own here": (
        "BartForCausalLM MBartForCausalLM MarianForCausalLM PegasusForCausalLM"
    ),
    "of upstream's own making": (
        "DummyObject TextKwargs"
    ),
    "one `Cache` holds all layers; `cache.layers[i]` has their keys and values": (
        "CacheLayerMixin DynamicIndexedLayer DynamicLayer StaticIndexedLayer StaticLayer StaticSlidingWindowLayer"
    ),
    "read the file with csv, json or datasets, and give the pipeline a list": (
        "CsvPipelineDataFormat JsonPipelineDataFormat PipedPipelineDataFormat PipelineDataFormat"
    ),
    "the family afmoe is not built": (
        "AfmoeConfig AfmoeForCausalLM AfmoeModel AfmoePreTrainedModel"
    ),
    "the family apertus is not built": (
        "ApertusConfig ApertusForCausalLM ApertusForTokenClassification ApertusModel ApertusPreTrainedModel"
    ),
    "the family arcee is not built": (
        "ArceeConfig ArceeForCausalLM ArceeForQuestionAnswering ArceeForSequenceClassification "
        "ArceeForTokenClassification ArceeModel ArceePreTrainedModel"
    ),
    "the family axk1 is not built": (
        "AXK1Config AXK1ForCausalLM AXK1ForSequenceClassification AXK1ForTokenClassification AXK1Model "
        "AXK1PreTrainedModel"
    ),
    "the family axk2 is not built": (
        "AXK2Config AXK2ForCausalLM AXK2ForSequenceClassification AXK2ForTokenClassification AXK2Model "
        "AXK2PreTrainedModel"
    ),
    "the family bailing_hybrid is not built": (
        "BailingHybridConfig BailingHybridForCausalLM BailingHybridModel BailingHybridPreTrainedModel"
    ),
    "the family bamba is not built": (
        "BambaConfig BambaForCausalLM BambaModel BambaPreTrainedModel"
    ),
    "the family beam is not built": (
        "BeamConfig BeamForCausalLM BeamModel BeamPreTrainedModel"
    ),
    "the family bert_generation is not built": (
        "BertGenerationConfig BertGenerationDecoder BertGenerationEncoder BertGenerationPreTrainedModel "
        "BertGenerationTokenizer"
    ),
    "the family big_bird is not built": (
        "BigBirdConfig BigBirdForCausalLM BigBirdForMaskedLM BigBirdForMultipleChoice BigBirdForPreTraining "
        "BigBirdForQuestionAnswering BigBirdForSequenceClassification BigBirdForTokenClassification BigBirdLayer "
        "BigBirdModel BigBirdPreTrainedModel BigBirdTokenizer"
    ),
    "the family bigbird_pegasus is not built": (
        "BigBirdPegasusConfig BigBirdPegasusForCausalLM BigBirdPegasusForConditionalGeneration "
        "BigBirdPegasusForQuestionAnswering BigBirdPegasusForSequenceClassification BigBirdPegasusModel "
        "BigBirdPegasusPreTrainedModel"
    ),
    "the family biogpt is not built": (
        "BioGptConfig BioGptForCausalLM BioGptForSequenceClassification BioGptForTokenClassification BioGptModel "
        "BioGptPreTrainedModel BioGptTokenizer"
    ),
    "the family bitnet is not built": (
        "BitNetConfig BitNetForCausalLM BitNetModel BitNetPreTrainedModel"
    ),
    "the family blenderbot is not built": (
        "BlenderbotConfig BlenderbotForCausalLM BlenderbotForConditionalGeneration BlenderbotModel "
        "BlenderbotPreTrainedModel BlenderbotTokenizer"
    ),
    "the family blenderbot_small is not built": (
        "BlenderbotSmallConfig BlenderbotSmallForCausalLM BlenderbotSmallForConditionalGeneration "
        "BlenderbotSmallModel BlenderbotSmallPreTrainedModel BlenderbotSmallTokenizer"
    ),
    "the family blt is not built": (
        "BltConfig BltForCausalLM BltGlobalTransformerConfig BltLocalDecoderConfig BltLocalEncoderConfig BltModel "
        "BltPatcher BltPatcherConfig BltPreTrainedModel"
    ),
    "the family bros is not built": (
        "BrosConfig BrosForTokenClassification BrosModel BrosPreTrainedModel BrosSpadeEEForTokenClassification "
        "BrosSpadeELForTokenClassification"
    ),
    "the family canine is not built": (
        "CanineConfig CanineForMultipleChoice CanineForQuestionAnswering CanineForSequenceClassification "
        "CanineForTokenClassification CanineLayer CanineModel CaninePreTrainedModel CanineTokenizer"
    ),
    "the family codegen is not built": (
        "CodeGenConfig CodeGenForCausalLM CodeGenModel CodeGenPreTrainedModel CodeGenTokenizer"
    ),
    "the family cohere2_moe is not built": (
        "Cohere2MoeConfig Cohere2MoeForCausalLM Cohere2MoeModel Cohere2MoePreTrainedModel"
    ),
    "the family convbert is not built": (
        "ConvBertConfig ConvBertForMaskedLM ConvBertForMultipleChoice ConvBertForQuestionAnswering "
        "ConvBertForSequenceClassification ConvBertForTokenClassification ConvBertLayer ConvBertModel "
        "ConvBertPreTrainedModel ConvBertTokenizer"
    ),
    "the family cpmant is not built": (
        "CpmAntConfig CpmAntForCausalLM CpmAntModel CpmAntPreTrainedModel CpmAntTokenizer"
    ),
    "the family ctrl is not built": (
        "CTRLConfig CTRLForSequenceClassification CTRLLMHeadModel CTRLModel CTRLPreTrainedModel CTRLTokenizer"
    ),
    "the family cwm is not built": (
        "CwmConfig CwmForCausalLM CwmModel CwmPreTrainedModel"
    ),
    "the family dbrx is not built": (
        "DbrxConfig DbrxForCausalLM DbrxModel DbrxPreTrainedModel"
    ),
    "the family deberta is not built": (
        "DebertaConfig DebertaForMaskedLM DebertaForQuestionAnswering DebertaForSequenceClassification "
        "DebertaForTokenClassification DebertaModel DebertaPreTrainedModel DebertaTokenizer"
    ),
    "the family deepseek_v2 is not built": (
        "DeepseekV2Config DeepseekV2ForCausalLM DeepseekV2ForSequenceClassification DeepseekV2Model "
        "DeepseekV2PreTrainedModel"
    ),
    "the family deepseek_v3 is not built": (
        "DeepseekV3Config DeepseekV3ForCausalLM DeepseekV3ForSequenceClassification DeepseekV3ForTokenClassification "
        "DeepseekV3Model DeepseekV3PreTrainedModel"
    ),
    "the family deepseek_v32 is not built": (
        "DeepseekV32Config DeepseekV32ForCausalLM DeepseekV32Model DeepseekV32PreTrainedModel"
    ),
    "the family deepseek_v4 is not built": (
        "DeepseekV4Config DeepseekV4ForCausalLM DeepseekV4Model DeepseekV4PreTrainedModel"
    ),
    "the family diffllama is not built": (
        "DiffLlamaConfig DiffLlamaForCausalLM DiffLlamaForQuestionAnswering DiffLlamaForSequenceClassification "
        "DiffLlamaForTokenClassification DiffLlamaModel DiffLlamaPreTrainedModel"
    ),
    "the family doge is not built": (
        "DogeConfig DogeForCausalLM DogeForSequenceClassification DogeModel DogePreTrainedModel"
    ),
    "the family dots1 is not built": (
        "Dots1Config Dots1ForCausalLM Dots1Model Dots1PreTrainedModel"
    ),
    "the family ernie is not built": (
        "ErnieConfig ErnieForCausalLM ErnieForMaskedLM ErnieForMultipleChoice ErnieForNextSentencePrediction "
        "ErnieForPreTraining ErnieForQuestionAnswering ErnieForSequenceClassification ErnieForTokenClassification "
        "ErnieModel ErniePreTrainedModel"
    ),
    "the family ernie4_5 is not built": (
        "Ernie4_5Config Ernie4_5ForCausalLM Ernie4_5Model Ernie4_5PreTrainedModel"
    ),
    "the family ernie4_5_moe is not built": (
        "Ernie4_5_MoeConfig Ernie4_5_MoeForCausalLM Ernie4_5_MoeModel Ernie4_5_MoePreTrainedModel"
    ),
    "the family esm is not built": (
        "EsmConfig EsmFoldPreTrainedModel EsmForMaskedLM EsmForProteinFolding EsmForSequenceClassification "
        "EsmForTokenClassification EsmModel EsmPreTrainedModel EsmTokenizer"
    ),
    "the family esmc is not built": (
        "EsmcConfig EsmcForMaskedLM EsmcForSequenceClassification EsmcForTokenClassification EsmcModel "
        "EsmcPreTrainedModel EsmcTokenizer"
    ),
    "the family exaone4 is not built": (
        "Exaone4Config Exaone4ForCausalLM Exaone4ForQuestionAnswering Exaone4ForSequenceClassification "
        "Exaone4ForTokenClassification Exaone4Model Exaone4PreTrainedModel"
    ),
    "the family exaone_moe is not built": (
        "ExaoneMoeConfig ExaoneMoeForCausalLM ExaoneMoeModel ExaoneMoePreTrainedModel"
    ),
    "the family falcon_h1 is not built": (
        "FalconH1Config FalconH1ForCausalLM FalconH1Model FalconH1PreTrainedModel"
    ),
    "the family falcon_mamba is not built": (
        "FalconMambaConfig FalconMambaForCausalLM FalconMambaModel FalconMambaPreTrainedModel"
    ),
    "the family flaubert is not built": (
        "FlaubertConfig FlaubertForMultipleChoice FlaubertForQuestionAnswering FlaubertForQuestionAnsweringSimple "
        "FlaubertForSequenceClassification FlaubertForTokenClassification FlaubertModel FlaubertPreTrainedModel "
        "FlaubertTokenizer FlaubertWithLMHeadModel"
    ),
    "the family flex_olmo is not built": (
        "FlexOlmoConfig FlexOlmoForCausalLM FlexOlmoModel FlexOlmoPreTrainedModel"
    ),
    "the family flint is not built": (
        "FlintConfig FlintForCausalLM FlintModel FlintPreTrainedModel"
    ),
    "the family fnet is not built": (
        "FNetConfig FNetForMaskedLM FNetForMultipleChoice FNetForNextSentencePrediction FNetForPreTraining "
        "FNetForQuestionAnswering FNetForSequenceClassification FNetForTokenClassification FNetLayer FNetModel "
        "FNetPreTrainedModel FNetTokenizer FNetTokenizerFast"
    ),
    "the family fsmt is not built": (
        "FSMTConfig FSMTForConditionalGeneration FSMTModel FSMTTokenizer PretrainedFSMTModel"
    ),
    "the family funnel is not built": (
        "FunnelBaseModel FunnelConfig FunnelForMaskedLM FunnelForMultipleChoice FunnelForPreTraining "
        "FunnelForQuestionAnswering FunnelForSequenceClassification FunnelForTokenClassification FunnelModel "
        "FunnelPreTrainedModel FunnelTokenizer"
    ),
    "the family gemma4_assistant is not built": (
        "Gemma4AssistantConfig Gemma4AssistantForCausalLM Gemma4AssistantPreTrainedModel"
    ),
    "the family gemma4_unified_assistant is not built": (
        "Gemma4UnifiedAssistantConfig Gemma4UnifiedAssistantForCausalLM Gemma4UnifiedAssistantPreTrainedModel"
    ),
    "the family glm is not built": (
        "GlmConfig GlmForCausalLM GlmForSequenceClassification GlmForTokenClassification GlmModel GlmPreTrainedModel"
    ),
    "the family glm4 is not built": (
        "Glm4Config Glm4ForCausalLM Glm4ForSequenceClassification Glm4ForTokenClassification Glm4Model "
        "Glm4PreTrainedModel"
    ),
    "the family glm4_moe is not built": (
        "Glm4MoeConfig Glm4MoeForCausalLM Glm4MoeModel Glm4MoePreTrainedModel"
    ),
    "the family glm4_moe_lite is not built": (
        "Glm4MoeLiteConfig Glm4MoeLiteForCausalLM Glm4MoeLiteModel Glm4MoeLitePreTrainedModel"
    ),
    "the family glm_moe_dsa is not built": (
        "GlmMoeDsaConfig GlmMoeDsaForCausalLM GlmMoeDsaModel GlmMoeDsaPreTrainedModel"
    ),
    "the family gpt_bigcode is not built": (
        "GPTBigCodeConfig GPTBigCodeForCausalLM GPTBigCodeForSequenceClassification GPTBigCodeForTokenClassification "
        "GPTBigCodeModel GPTBigCodePreTrainedModel"
    ),
    "the family gpt_neox_japanese is not built": (
        "GPTNeoXJapaneseConfig GPTNeoXJapaneseForCausalLM GPTNeoXJapaneseLayer GPTNeoXJapaneseModel "
        "GPTNeoXJapanesePreTrainedModel GPTNeoXJapaneseTokenizer"
    ),
    "the family gpt_oss is not built": (
        "GptOssConfig GptOssForCausalLM GptOssForSequenceClassification GptOssForTokenClassification GptOssModel "
        "GptOssPreTrainedModel"
    ),
    "the family gpt_sw3 is not built": (
        "GPTSw3Tokenizer"
    ),
    "the family granite_swa is not built": (
        "GraniteSWAConfig GraniteSWAForCausalLM GraniteSWAModel GraniteSWAPreTrainedModel"
    ),
    "the family granitemoe is not built": (
        "GraniteMoeConfig GraniteMoeForCausalLM GraniteMoeModel GraniteMoePreTrainedModel"
    ),
    "the family granitemoe_swa is not built": (
        "GraniteMoeSWAConfig GraniteMoeSWAForCausalLM GraniteMoeSWAModel GraniteMoeSWAPreTrainedModel"
    ),
    "the family granitemoehybrid is not built": (
        "GraniteMoeHybridConfig GraniteMoeHybridForCausalLM GraniteMoeHybridModel GraniteMoeHybridPreTrainedModel"
    ),
    "the family granitemoeshared is not built": (
        "GraniteMoeSharedConfig GraniteMoeSharedForCausalLM GraniteMoeSharedModel GraniteMoeSharedPreTrainedModel"
    ),
    "the family helium is not built": (
        "HeliumConfig HeliumForCausalLM HeliumForSequenceClassification HeliumForTokenClassification HeliumModel "
        "HeliumPreTrainedModel"
    ),
    "the family hrm_text is not built": (
        "HrmTextConfig HrmTextForCausalLM HrmTextModel HrmTextPreTrainedModel"
    ),
    "the family hunyuan_v1_dense is not built": (
        "HunYuanDenseV1Config HunYuanDenseV1ForCausalLM HunYuanDenseV1ForSequenceClassification HunYuanDenseV1Model "
        "HunYuanDenseV1PreTrainedModel"
    ),
    "the family hunyuan_v1_moe is not built": (
        "HunYuanMoEV1Config HunYuanMoEV1ForCausalLM HunYuanMoEV1ForSequenceClassification HunYuanMoEV1Model "
        "HunYuanMoEV1PreTrainedModel"
    ),
    "the family hy_v3 is not built": (
        "HYV3Config HYV3ForCausalLM HYV3Model HYV3PreTrainedModel"
    ),
    "the family hy_v4 is not built": (
        "HYV4Config HYV4ForCausalLM HYV4Model HYV4PreTrainedModel"
    ),
    "the family hyperclovax is not built": (
        "HyperCLOVAXConfig HyperCLOVAXForCausalLM HyperCLOVAXModel HyperCLOVAXPreTrainedModel"
    ),
    "the family ibert is not built": (
        "IBertConfig IBertForMaskedLM IBertForMultipleChoice IBertForQuestionAnswering IBertForSequenceClassification "
        "IBertForTokenClassification IBertModel IBertPreTrainedModel"
    ),
    "the family internlm3 is not built": (
        "InternLM3Config"
    ),
    "the family iquestcoder is not built": (
        "IQuestCoderConfig"
    ),
    "the family jais2 is not built": (
        "Jais2Config Jais2ForCausalLM Jais2Model Jais2PreTrainedModel"
    ),
    "the family jamba is not built": (
        "JambaConfig JambaForCausalLM JambaForSequenceClassification JambaModel JambaPreTrainedModel"
    ),
    "the family jetmoe is not built": (
        "JetMoeConfig JetMoeForCausalLM JetMoeForSequenceClassification JetMoeModel JetMoePreTrainedModel"
    ),
    "the family kimi_linear is not built": (
        "KimiLinearConfig KimiLinearForCausalLM KimiLinearModel KimiLinearPreTrainedModel"
    ),
    "the family kolibri1 is not built": (
        "Kolibri1Config Kolibri1ForCausalLM Kolibri1Model Kolibri1PreTrainedModel"
    ),
    "the family laguna is not built": (
        "LagunaConfig LagunaForCausalLM LagunaModel LagunaPreTrainedModel"
    ),
    "the family led is not built": (
        "LEDConfig LEDForConditionalGeneration LEDForQuestionAnswering LEDModel LEDPreTrainedModel"
    ),
    "the family lfm2 is not built": (
        "Lfm2Config Lfm2ForCausalLM Lfm2Model Lfm2PreTrainedModel"
    ),
    "the family lfm2_moe is not built": (
        "Lfm2MoeConfig Lfm2MoeForCausalLM Lfm2MoeModel Lfm2MoePreTrainedModel"
    ),
    "the family lfm3 is not built": (
        "Lfm3Config Lfm3ForCausalLM Lfm3Model Lfm3PreTrainedModel"
    ),
    "the family lilt is not built": (
        "LiltConfig LiltForQuestionAnswering LiltForSequenceClassification LiltForTokenClassification LiltModel "
        "LiltPreTrainedModel"
    ),
    "the family longcat_flash is not built": (
        "LongcatFlashConfig LongcatFlashForCausalLM LongcatFlashModel LongcatFlashPreTrainedModel"
    ),
    "the family longformer is not built": (
        "LongformerConfig LongformerForMaskedLM LongformerForMultipleChoice LongformerForQuestionAnswering "
        "LongformerForSequenceClassification LongformerForTokenClassification LongformerModel "
        "LongformerPreTrainedModel LongformerSelfAttention"
    ),
    "the family longt5 is not built": (
        "LongT5Config LongT5EncoderModel LongT5ForConditionalGeneration LongT5Model LongT5PreTrainedModel"
    ),
    "the family luke is not built": (
        "LukeConfig LukeForEntityClassification LukeForEntityPairClassification LukeForEntitySpanClassification "
        "LukeForMaskedLM LukeForMultipleChoice LukeForQuestionAnswering LukeForSequenceClassification "
        "LukeForTokenClassification LukeModel LukePreTrainedModel LukeTokenizer"
    ),
    "the family lxmert is not built": (
        "LxmertConfig LxmertEncoder LxmertForPreTraining LxmertForQuestionAnswering LxmertModel LxmertPreTrainedModel "
        "LxmertXLayer"
    ),
    "the family mamba is not built": (
        "MambaConfig MambaForCausalLM MambaModel MambaPreTrainedModel"
    ),
    "the family mamba2 is not built": (
        "Mamba2Config Mamba2ForCausalLM Mamba2Model Mamba2PreTrainedModel"
    ),
    "the family markuplm is not built": (
        "MarkupLMConfig MarkupLMForQuestionAnswering MarkupLMForSequenceClassification MarkupLMForTokenClassification "
        "MarkupLMModel MarkupLMPreTrainedModel MarkupLMTokenizer MarkupLMTokenizerFast"
    ),
    "the family megatron_bert is not built": (
        "MegatronBertConfig MegatronBertForCausalLM MegatronBertForMaskedLM MegatronBertForMultipleChoice "
        "MegatronBertForNextSentencePrediction MegatronBertForPreTraining MegatronBertForQuestionAnswering "
        "MegatronBertForSequenceClassification MegatronBertForTokenClassification MegatronBertModel "
        "MegatronBertPreTrainedModel"
    ),
    "the family mellum is not built": (
        "MellumConfig MellumForCausalLM MellumModel MellumPreTrainedModel"
    ),
    "the family mimo_v2_flash is not built": (
        "MiMoV2FlashConfig MiMoV2FlashForCausalLM MiMoV2FlashModel MiMoV2FlashPreTrainedModel"
    ),
    "the family minicpm3 is not built": (
        "MiniCPM3Config MiniCPM3ForCausalLM MiniCPM3ForSequenceClassification MiniCPM3Model MiniCPM3PreTrainedModel"
    ),
    "the family minimax is not built": (
        "MiniMaxConfig MiniMaxForCausalLM MiniMaxForQuestionAnswering MiniMaxForSequenceClassification "
        "MiniMaxForTokenClassification MiniMaxModel MiniMaxPreTrainedModel"
    ),
    "the family minimax_m2 is not built": (
        "MiniMaxM2Config MiniMaxM2ForCausalLM MiniMaxM2Model MiniMaxM2PreTrainedModel"
    ),
    "the family ministral is not built": (
        "MinistralConfig MinistralForCausalLM MinistralForQuestionAnswering MinistralForSequenceClassification "
        "MinistralForTokenClassification MinistralModel MinistralPreTrainedModel"
    ),
    "the family ministral3 is not built": (
        "Ministral3Config Ministral3ForCausalLM Ministral3ForQuestionAnswering Ministral3ForSequenceClassification "
        "Ministral3ForTokenClassification Ministral3Model Ministral3PreTrainedModel"
    ),
    "the family mixtral is not built": (
        "MixtralConfig MixtralForCausalLM MixtralForQuestionAnswering MixtralForSequenceClassification "
        "MixtralForTokenClassification MixtralModel MixtralPreTrainedModel"
    ),
    "the family mobilebert is not built": (
        "MobileBertConfig MobileBertForMaskedLM MobileBertForMultipleChoice MobileBertForNextSentencePrediction "
        "MobileBertForPreTraining MobileBertForQuestionAnswering MobileBertForSequenceClassification "
        "MobileBertForTokenClassification MobileBertLayer MobileBertModel MobileBertPreTrainedModel "
        "MobileBertTokenizer MobileBertTokenizerFast"
    ),
    "the family modernbert_decoder is not built": (
        "ModernBertDecoderConfig ModernBertDecoderForCausalLM ModernBertDecoderForSequenceClassification "
        "ModernBertDecoderModel ModernBertDecoderPreTrainedModel"
    ),
    "the family modernvbert is not built": (
        "ModernVBertConfig ModernVBertForMaskedLM ModernVBertForSequenceClassification "
        "ModernVBertForTokenClassification ModernVBertModel ModernVBertPreTrainedModel"
    ),
    "the family moshi is not built": (
        "MoshiConfig MoshiForCausalLM MoshiForConditionalGeneration MoshiModel MoshiPreTrainedModel"
    ),
    "the family mpt is not built": (
        "MptConfig MptForCausalLM MptForQuestionAnswering MptForSequenceClassification MptForTokenClassification "
        "MptModel MptPreTrainedModel"
    ),
    "the family mra is not built": (
        "MraConfig MraForMaskedLM MraForMultipleChoice MraForQuestionAnswering MraForSequenceClassification "
        "MraForTokenClassification MraLayer MraModel MraPreTrainedModel"
    ),
    "the family musicflamingo is not built": (
        "MusicFlamingoConfig MusicFlamingoForConditionalGeneration MusicFlamingoModel MusicFlamingoPreTrainedModel"
    ),
    "the family mvp is not built": (
        "MvpConfig MvpForCausalLM MvpForConditionalGeneration MvpForQuestionAnswering MvpForSequenceClassification "
        "MvpModel MvpPreTrainedModel"
    ),
    "the family nanochat is not built": (
        "NanoChatConfig NanoChatForCausalLM NanoChatModel NanoChatPreTrainedModel"
    ),
    "the family nemotron is not built": (
        "NemotronConfig NemotronForCausalLM NemotronForQuestionAnswering NemotronForSequenceClassification "
        "NemotronForTokenClassification NemotronModel NemotronPreTrainedModel"
    ),
    "the family nemotron_h is not built": (
        "NemotronHConfig NemotronHForCausalLM NemotronHModel NemotronHPreTrainedModel"
    ),
    "the family neomme is not built": (
        "NeoMMEConfig NeoMMEForMaskedLM NeoMMEModel NeoMMEPreTrainedModel"
    ),
    "the family nllb_moe is not built": (
        "NllbMoeConfig NllbMoeForConditionalGeneration NllbMoeModel NllbMoePreTrainedModel NllbMoeSparseMLP "
        "NllbMoeTop2Router"
    ),
    "the family nystromformer is not built": (
        "NystromformerConfig NystromformerForMaskedLM NystromformerForMultipleChoice "
        "NystromformerForQuestionAnswering NystromformerForSequenceClassification NystromformerForTokenClassification "
        "NystromformerLayer NystromformerModel NystromformerPreTrainedModel"
    ),
    "the family olmo is not built": (
        "OlmoConfig OlmoForCausalLM OlmoForSequenceClassification OlmoModel OlmoPreTrainedModel"
    ),
    "the family olmo3 is not built": (
        "Olmo3Config Olmo3ForCausalLM Olmo3ForSequenceClassification Olmo3Model Olmo3PreTrainedModel"
    ),
    "the family olmo_hybrid is not built": (
        "OlmoHybridConfig OlmoHybridForCausalLM OlmoHybridModel OlmoHybridPreTrainedModel"
    ),
    "the family openai is not built": (
        "OpenAIGPTConfig OpenAIGPTDoubleHeadsModel OpenAIGPTForSequenceClassification OpenAIGPTLMHeadModel "
        "OpenAIGPTModel OpenAIGPTPreTrainedModel OpenAIGPTTokenizer"
    ),
    "the family openai_privacy_filter is not built": (
        "OpenAIPrivacyFilterConfig OpenAIPrivacyFilterForTokenClassification OpenAIPrivacyFilterModel "
        "OpenAIPrivacyFilterPreTrainedModel"
    ),
    "the family pegasus_x is not built": (
        "PegasusXConfig PegasusXForConditionalGeneration PegasusXModel PegasusXPreTrainedModel"
    ),
    "the family persimmon is not built": (
        "PersimmonConfig PersimmonForCausalLM PersimmonForSequenceClassification PersimmonForTokenClassification "
        "PersimmonModel PersimmonPreTrainedModel"
    ),
    "the family phimoe is not built": (
        "PhimoeConfig PhimoeForCausalLM PhimoeForSequenceClassification PhimoeModel PhimoePreTrainedModel"
    ),
    "the family plbart is not built": (
        "PLBartConfig PLBartForCausalLM PLBartForConditionalGeneration PLBartForSequenceClassification PLBartModel "
        "PLBartPreTrainedModel PLBartTokenizer"
    ),
    "the family prophetnet is not built": (
        "ProphetNetConfig ProphetNetDecoder ProphetNetEncoder ProphetNetForCausalLM "
        "ProphetNetForConditionalGeneration ProphetNetModel ProphetNetPreTrainedModel ProphetNetTokenizer"
    ),
    "the family qwen2_moe is not built": (
        "Qwen2MoeConfig Qwen2MoeForCausalLM Qwen2MoeForQuestionAnswering Qwen2MoeForSequenceClassification "
        "Qwen2MoeForTokenClassification Qwen2MoeModel Qwen2MoePreTrainedModel"
    ),
    "the family qwen3_next is not built": (
        "Qwen3NextConfig Qwen3NextForCausalLM Qwen3NextForQuestionAnswering Qwen3NextForSequenceClassification "
        "Qwen3NextForTokenClassification Qwen3NextModel Qwen3NextPreTrainedModel"
    ),
    "the family recurrent_gemma is not built": (
        "RecurrentGemmaConfig RecurrentGemmaForCausalLM RecurrentGemmaModel RecurrentGemmaPreTrainedModel"
    ),
    "the family reformer is not built": (
        "ReformerAttention ReformerConfig ReformerForMaskedLM ReformerForQuestionAnswering "
        "ReformerForSequenceClassification ReformerLayer ReformerModel ReformerModelWithLMHead "
        "ReformerPreTrainedModel ReformerTokenizer"
    ),
    "the family rembert is not built": (
        "RemBertConfig RemBertForCausalLM RemBertForMaskedLM RemBertForMultipleChoice RemBertForQuestionAnswering "
        "RemBertForSequenceClassification RemBertForTokenClassification RemBertLayer RemBertModel "
        "RemBertPreTrainedModel RemBertTokenizer"
    ),
    "the family roberta_prelayernorm is not built": (
        "RobertaPreLayerNormConfig RobertaPreLayerNormForCausalLM RobertaPreLayerNormForMaskedLM "
        "RobertaPreLayerNormForMultipleChoice RobertaPreLayerNormForQuestionAnswering "
        "RobertaPreLayerNormForSequenceClassification RobertaPreLayerNormForTokenClassification "
        "RobertaPreLayerNormModel RobertaPreLayerNormPreTrainedModel"
    ),
    "the family roc_bert is not built": (
        "RoCBertConfig RoCBertForCausalLM RoCBertForMaskedLM RoCBertForMultipleChoice RoCBertForPreTraining "
        "RoCBertForQuestionAnswering RoCBertForSequenceClassification RoCBertForTokenClassification RoCBertLayer "
        "RoCBertModel RoCBertPreTrainedModel RoCBertTokenizer"
    ),
    "the family roformer is not built": (
        "RoFormerConfig RoFormerForCausalLM RoFormerForMaskedLM RoFormerForMultipleChoice "
        "RoFormerForQuestionAnswering RoFormerForSequenceClassification RoFormerForTokenClassification RoFormerLayer "
        "RoFormerModel RoFormerPreTrainedModel RoFormerTokenizer RoFormerTokenizerFast"
    ),
    "the family rwkv is not built": (
        "RwkvConfig RwkvForCausalLM RwkvModel RwkvPreTrainedModel"
    ),
    "the family seed_oss is not built": (
        "SeedOssConfig SeedOssForCausalLM SeedOssForQuestionAnswering SeedOssForSequenceClassification "
        "SeedOssForTokenClassification SeedOssModel SeedOssPreTrainedModel"
    ),
    "the family solar_open is not built": (
        "SolarOpenConfig SolarOpenForCausalLM SolarOpenModel SolarOpenPreTrainedModel"
    ),
    "the family splinter is not built": (
        "SplinterConfig SplinterForPreTraining SplinterForQuestionAnswering SplinterLayer SplinterModel "
        "SplinterPreTrainedModel SplinterTokenizer"
    ),
    "the family squeezebert is not built": (
        "SqueezeBertConfig SqueezeBertForMaskedLM SqueezeBertForMultipleChoice SqueezeBertForQuestionAnswering "
        "SqueezeBertForSequenceClassification SqueezeBertForTokenClassification SqueezeBertModel SqueezeBertModule "
        "SqueezeBertPreTrainedModel SqueezeBertTokenizer SqueezeBertTokenizerFast"
    ),
    "the family starcoder2 is not built": (
        "Starcoder2Config Starcoder2ForCausalLM Starcoder2ForSequenceClassification Starcoder2ForTokenClassification "
        "Starcoder2Model Starcoder2PreTrainedModel"
    ),
    "the family switch_transformers is not built": (
        "SwitchTransformersConfig SwitchTransformersEncoderModel SwitchTransformersForConditionalGeneration "
        "SwitchTransformersModel SwitchTransformersPreTrainedModel SwitchTransformersSparseMLP "
        "SwitchTransformersTop1Router"
    ),
    "the family t5gemma is not built": (
        "T5GemmaConfig T5GemmaEncoderModel T5GemmaForConditionalGeneration T5GemmaForSequenceClassification "
        "T5GemmaForTokenClassification T5GemmaModel T5GemmaModuleConfig T5GemmaPreTrainedModel"
    ),
    "the family tapas is not built": (
        "TapasConfig TapasForMaskedLM TapasForQuestionAnswering TapasForSequenceClassification TapasModel "
        "TapasPreTrainedModel TapasTokenizer"
    ),
    "the family trocr is not built": (
        "TrOCRConfig TrOCRForCausalLM TrOCRPreTrainedModel"
    ),
    "the family ultrabert is not built": (
        "UltrabertConfig UltrabertForMaskedLM UltrabertForQuestionAnswering UltrabertForSequenceClassification "
        "UltrabertForTokenClassification UltrabertModel UltrabertPreTrainedModel"
    ),
    "the family ultravbert is not built": (
        "UltraVBertConfig UltraVBertForMaskedLM UltraVBertForSequenceClassification UltraVBertForTokenClassification "
        "UltraVBertModel UltraVBertPreTrainedModel"
    ),
    "the family vaultgemma is not built": (
        "VaultGemmaConfig VaultGemmaForCausalLM VaultGemmaModel VaultGemmaPreTrainedModel"
    ),
    "the family xglm is not built": (
        "XGLMConfig XGLMForCausalLM XGLMModel XGLMPreTrainedModel XGLMTokenizer"
    ),
    "the family xlm is not built": (
        "XLMConfig XLMForMultipleChoice XLMForQuestionAnswering XLMForQuestionAnsweringSimple "
        "XLMForSequenceClassification XLMForTokenClassification XLMModel XLMPreTrainedModel XLMTokenizer "
        "XLMWithLMHeadModel"
    ),
    "the family xlm_roberta_xl is not built": (
        "XLMRobertaXLConfig XLMRobertaXLForCausalLM XLMRobertaXLForMaskedLM XLMRobertaXLForMultipleChoice "
        "XLMRobertaXLForQuestionAnswering XLMRobertaXLForSequenceClassification XLMRobertaXLForTokenClassification "
        "XLMRobertaXLModel XLMRobertaXLPreTrainedModel"
    ),
    "the family xlstm is not built": (
        "xLSTMConfig xLSTMForCausalLM xLSTMModel xLSTMPreTrainedModel"
    ),
    "the family xmod is not built": (
        "XmodConfig XmodForCausalLM XmodForMaskedLM XmodForMultipleChoice XmodForQuestionAnswering "
        "XmodForSequenceClassification XmodForTokenClassification XmodModel XmodPreTrainedModel"
    ),
    "the family yoso is not built": (
        "YosoConfig YosoForMaskedLM YosoForMultipleChoice YosoForQuestionAnswering YosoForSequenceClassification "
        "YosoForTokenClassification YosoLayer YosoModel YosoPreTrainedModel"
    ),
    "the family youtu is not built": (
        "YoutuConfig YoutuForCausalLM YoutuModel YoutuPreTrainedModel"
    ),
    "the family zamba is not built": (
        "ZambaConfig ZambaForCausalLM ZambaForSequenceClassification ZambaModel ZambaPreTrainedModel"
    ),
    "the family zamba2 is not built": (
        "Zamba2Config Zamba2ForCausalLM Zamba2ForSequenceClassification Zamba2Model Zamba2PreTrainedModel"
    ),
    "the family zaya is not built": (
        "ZayaConfig ZayaForCausalLM ZayaModel ZayaPreTrainedModel"
    ),
    "what they do is in the pipeline of the fast tokenizer: tokenizer.backend_tokenizer": (
        "BasicTokenizer BertTokenizerLegacy WordpieceTokenizer"
    ),
}  # fmt: skip
