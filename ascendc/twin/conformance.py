"""The conformance test of each API name: it holds the instruction against an independent oracle."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _all(test: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, test)


_BINARY = "tests/test_twin_vec_binary.py::"
_UNARY = "tests/test_twin_vec_unary.py::"
_CAST = "tests/test_twin_vec_cast.py::"
_SELECT = "tests/test_twin_vec_select.py::"
_FAULTS = "tests/test_twin_vec_faults.py::"

ELEMENTWISE: Mapping[str, str] = MappingProxyType(
    {
        **_all(
            _BINARY + "test_two_sources",
            *("Add", "Sub", "Mul", "Div", "Max", "Min", "And", "Or", "AddRelu", "SubRelu"),
            *("SetMaskNorm", "SetMaskCount", "SetVectorMask", "ResetMask"),
        ),
        **_all(_BINARY + "test_saturation_mode", "SetSaturationFlag"),
        **_all(_BINARY + "test_mul_add_dst", "MulAddDst"),
        **_all(_BINARY + "test_fused_mul_add", "FusedMulAdd", "FusedMulAddRelu", "MulAddRelu"),
        **_all(
            _UNARY + "test_one_source",
            *("Abs", "Exp", "Ln", "Sqrt", "Rsqrt", "Reciprocal", "Relu", "Not"),
        ),
        **_all(_UNARY + "test_with_a_scalar", "Adds", "Muls", "Maxs", "Mins", "LeakyRelu"),
        **_all(_UNARY + "test_axpy", "Axpy"),
        **_all(_UNARY + "test_shifts", "ShiftLeft", "ShiftRight"),
        **_all(_UNARY + "test_duplicate", "Duplicate"),
        **_all(_UNARY + "test_create_vec_index", "CreateVecIndex"),
        **_all(_CAST + "test_cast", "Cast"),
        **_all(_CAST + "test_int32_to_half_with_a_scale", "SetDeqScale", "AddDeqRelu"),
        **_all(_CAST + "test_relu_cast", "AddReluCast", "SubReluCast"),
        **_all(_CAST + "test_mul_cast", "MulCast"),
        **_all(_CAST + "test_dequant_to_8_bits", "CastDequant", "CastDeq"),
        **_all(_SELECT + "test_compare", "Compare", "Compares", "CompareScalar"),
        **_all(_SELECT + "test_compare_to_the_register", "GetCmpMask"),
        **_all(_SELECT + "test_select", "Select"),
        **_all(_SELECT + "test_select_by_registers", "SetCmpMask"),
        **_all(
            _FAULTS + "test_atomic_copies_of_many_cores",
            *("SetAtomicAdd", "SetAtomicMax", "SetAtomicMin", "DisableDmaAtomic"),
        ),
        **_all(_FAULTS + "test_atomic_fixpipe_of_many_cores", "SetAtomicNone"),
        **_all(
            _FAULTS + "test_atomic_registers",
            *("SetAtomicType", "SetStoreAtomicConfig", "GetStoreAtomicConfig"),
            "GetSaturationFlag",
        ),
    }
)

_REDUCE = "tests/test_twin_vec_reduce.py"
_SORT = "tests/test_twin_vec_sort.py"
_GATHER = "tests/test_twin_vec_gather.py"
_MOVE = "tests/test_twin_vec_move.py"
_FORMS = "tests/test_twin_data_forms.py"

_ACROSS_LANES = {
    "BilinearInterpolation": f"{_MOVE}::test_bilinear",
    "BlockReduceMax": f"{_REDUCE}::test_conformance",
    "BlockReduceMin": f"{_REDUCE}::test_conformance",
    "BlockReduceSum": f"{_REDUCE}::test_conformance",
    "Brcb": f"{_MOVE}::test_brcb",
    "Copy": f"{_MOVE}::test_copy",
    "Gather": f"{_GATHER}::test_gather",
    "GatherMask": f"{_GATHER}::test_gather_mask",
    "Gatherb": f"{_GATHER}::test_gatherb",
    "GetAccVal": f"{_REDUCE}::test_one_result",
    "GetMrgSortResult": f"{_SORT}::test_mrgsort",
    "GetReduceMaxMinCount": f"{_REDUCE}::test_one_result",
    "GetReduceRepeatMaxMinSpr": f"{_REDUCE}::test_one_result",
    "GetReduceRepeatSumSpr": f"{_REDUCE}::test_one_result",
    "MrgSort": f"{_SORT}::test_mrgsort",
    "PairReduceSum": f"{_REDUCE}::test_conformance",
    "ReduceDataBlock": f"{_REDUCE}::test_conformance",
    "ReduceMax": f"{_REDUCE}::test_one_result",
    "ReduceMin": f"{_REDUCE}::test_one_result",
    "ReducePairElem": f"{_REDUCE}::test_conformance",
    "ReduceRepeat": f"{_REDUCE}::test_conformance",
    "ReduceSum": f"{_REDUCE}::test_one_result",
    "RepeatReduceSum": f"{_REDUCE}::test_conformance",
    "Sort32": f"{_SORT}::test_sort32",
    "TransDataTo5HD": f"{_MOVE}::test_trans_data",
    "Transpose": f"{_MOVE}::test_transpose_planes",
    "WholeReduceMax": f"{_REDUCE}::test_conformance",
    "WholeReduceMin": f"{_REDUCE}::test_conformance",
    "WholeReduceSum": f"{_REDUCE}::test_conformance",
}

_DATA_FORMS = {
    "Fill": f"{_FORMS}::test_fill_l1",
    "InitConstValue": f"{_FORMS}::test_fill_l0",
    "SetFmatrix": f"{_FORMS}::test_load_3d_forms",
    "SetLoadDataBoundary": f"{_FORMS}::test_load_3d_beyond_the_boundary",
    "SetLoadDataPaddingValue": f"{_FORMS}::test_load_3d_forms",
    "SetLoadDataRepeat": f"{_FORMS}::test_load_3d_repeats",
    "SetPadValue": f"{_FORMS}::test_padding_from_the_register",
}

_SCALAR = {
    name: "tests/test_twin_api.py::test_scalar_utilities"
    for name in (
        *("CountBitsCntSameAsSignBit", "CountLeadingZero", "GetBitCount", "GetSFFValue"),
        *("ReadGmByPassDCache", "WriteGmByPassDCache", "ScalarCast", "ScalarCountLeadingZero"),
        *("ScalarGetCountOfValue", "ScalarGetSFFValue", "ToBfloat16", "ToFloat"),
    )
}

_MOVES = "tests/test_twin_instructions.py::"
_ORDER = "tests/test_twin_async.py::"

# The way of data through a cube core, and what orders it.
_CUBE_AND_ORDER = {
    "DataCopy": _MOVES + "test_nd2nz",
    "DataCopyPad": _MOVES + "test_copy_pad",
    "LoadData": _MOVES + "test_image_to_column",
    "LoadDataWithTranspose": _MOVES + "test_square_transpose_of_floats",
    "Mmad": "tests/test_twin_gemm.py::test_any_shape_under_any_legal_config",
    "Fixpipe": _MOVES + "test_fixpipe_vector_of_scales",
    "SetFlag": _ORDER + "test_the_timeline_shows_what_a_missing_flag_lets_happen",
    "WaitFlag": _ORDER + "test_a_wait_may_come_before_its_set",
    "PipeBarrier": "tests/test_twin_corpus.py::test_planted_faults_are_found_whatever_the_order",
    "CrossCoreSetFlag": _ORDER + "test_a_cube_core_feeds_its_vector_cores",
    "CrossCoreWaitFlag": _ORDER + "test_a_cube_core_feeds_its_vector_cores",
    "SyncAll": _ORDER + "test_all_cores_meet",
    "IBSet": _ORDER + "test_one_vector_core_tells_another",
    "IBWait": _ORDER + "test_one_vector_core_tells_another",
    "WaitPreBlock": _ORDER + "test_blocks_take_turns",
    "NotifyNextBlock": _ORDER + "test_blocks_take_turns",
    "DataCacheCleanAndInvalid": _ORDER
    + "test_what_a_scalar_unit_wrote_is_read_after_its_cache_is_cleaned",
    "GetSystemCycle": _ORDER + "test_the_system_counter_runs_in_simulated_time",
    **_all(
        _ORDER + "test_cores_know_who_they_are",
        *("GetBlockIdx", "GetBlockNum", "GetSubBlockIdx", "GetSubBlockNum"),
    ),
}

CONFORMANCE: Mapping[str, str] = MappingProxyType(
    {**ELEMENTWISE, **_ACROSS_LANES, **_DATA_FORMS, **_SCALAR, **_CUBE_AND_ORDER}
)
