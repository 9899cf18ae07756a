"""What the official implementations have: parameters, entries of the state dict, and measured MACs.

Counted by instantiating the official code; MACs in thousand millions with fvcore at the size of ``MACS``.
"""

from __future__ import annotations

S12, S24, S36, M36, M48 = "s12", "s24", "s36", "m36", "m48"
_POOLFORMER = {S12: 11_915_176, S24: 21_388_968, S36: 30_862_760, M36: 56_172_520, M48: 73_473_448}
_IDENTITY = {S12: 11_891_712, S24: 21_341_464, S36: 30_791_216, M36: 56_077_168, M48: 73_346_056}
_RANDOM = {S12: 12_127_010, S24: 21_812_060, S36: 31_497_110, M36: 56_783_062, M48: 74_287_248}
_CONV = {"s18": 26_774_448, "s36": 40_012_152, "m36": 57_051_640, "b36": 99_882_616}
_CA = {"s18": 26_341_656, "s36": 39_297_102, "m36": 56_204_878, "b36": 98_753_614}

PARAMETERS: dict[str, int] = {
    **{f"poolformer_{k}": v for k, v in _POOLFORMER.items()},
    **{f"metaformer_{k}": v for k, v in _POOLFORMER.items()},
    "metaformer_id_s12": 11_915_176,
    "metaformer_pppa_s12_224": 14_038_440,
    "metaformer_ppaa_s12_224": 16_535_592,
    "metaformer_pppf_s12_224": 11_919_978,
    "metaformer_ppff_s12_224": 12_150_474,
    **{f"identityformer_{k}": v for k, v in _IDENTITY.items()},
    **{f"poolformerv2_{k}": v for k, v in _IDENTITY.items()},
    **{f"randformer_{k}": v for k, v in _RANDOM.items()},
    **{f"convformer_{k}{size}": v for k, v in _CONV.items() for size in ("", "_384")},
    **{f"caformer_{k}{size}": v for k, v in _CA.items() for size in ("", "_384")},
    "ffnet_1": 13_775_656,
    "ffnet_2": 27_208_408,
    "ffnet_3": 48_817_896,
    "ffnet_4": 79_868_968,
    "transnext_micro": 12_809_304,
    "transnext_tiny": 28_258_960,
    "transnext_small": 49_741_564,
    "transnext_small_384": 49_741_564,
    "transnext_base": 89_721_496,
    "transnext_base_384": 89_721_496,
    "transnext_micro_AAAA": 13_114_008,
    "rmt_t": 14_334_216,
    "rmt_s": 26_967_240,
    "rmt_b": 54_154_896,
    "rmt_l": 95_464_864,
}
FUSED_PARAMETERS = {"ffnet_1": 13_660_152, "ffnet_2": 26_908_440, "ffnet_3": 48_330_632, "ffnet_4": 79_200_360}
KEYS: dict[str, int] = {
    **dict(zip((f"poolformer_{k}" for k in _POOLFORMER), (132, 252, 372, 372, 492), strict=True)),
    "metaformer_ppaa_s12_224": 157,
    "metaformer_pppa_s12_224": 139,
    "metaformer_pppf_s12_224": 134,
    "metaformer_ppff_s12_224": 140,
    "identityformer_s12": 104,
    "poolformerv2_s12": 104,
    "randformer_s12": 112,
    "convformer_s18": 242,
    "convformer_m36": 458,
    "caformer_s18": 206,
    "caformer_b36": 395,
    "ffnet_1": 553,
    "ffnet_2": 1057,
    "ffnet_3": 1593,
    "ffnet_4": 1737,
    "transnext_micro": 617,
    "transnext_tiny": 617,
    "transnext_small": 1054,
    "transnext_base": 1083,
    "transnext_micro_AAAA": 635,
    "rmt_t": 374,
    "rmt_s": 704,
    "rmt_b": 1122,
    "rmt_l": 1122,
}
MACS: dict[str, tuple[int, float]] = {
    "ffnet_1": (256, 3.02),
    "ffnet_2": (256, 6.10),
    "ffnet_3": (256, 10.29),
    "transnext_micro": (224, 2.66),
    "transnext_tiny": (224, 5.73),
    "transnext_small": (224, 10.33),
    "transnext_base": (224, 18.35),
    "rmt_t": (224, 2.65),
    "rmt_s": (224, 4.80),
    "rmt_b": (224, 10.41),
    "rmt_l": (224, 19.55),
}
