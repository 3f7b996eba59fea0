"""Which test compares each API name with an independent oracle: name -> pytest node id."""

from __future__ import annotations

from types import MappingProxyType

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
}

CONFORMANCE = MappingProxyType({**_ACROSS_LANES, **_DATA_FORMS})
