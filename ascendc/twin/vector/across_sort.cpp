// Sort32 and MrgSort: descending lists of 8-byte (score, index) entries.
#include <algorithm>
#include <vector>

#include "vector/across.h"
#include "vector/reduce.h"

namespace tilewright::twin {

namespace {

constexpr uint32_t kEntry = 8, kListMax = 4;
// MrgSort: VecArgs::arg holds the four lengths; mode the valid lists, and whether an exhausted one stops it.
constexpr uint8_t kStops = 0x10;

bool Stops(const VecArgs& v) { return (v.mode & kStops) != 0; }
uint32_t Lists(const VecArgs& v) { return static_cast<uint32_t>(__builtin_popcount(v.mode & 0xf)); }

// Larger score, larger key; a NaN counts as larger than all numbers. The documentation is silent about NaN.
template <class T>
int32_t ScoreKey(T bits) {
  return KeyOf<false>(bits);
}

// An entry's 8 bytes from score and index; the two bytes between a half and its index are reserved, and 0.
template <class T>
uint64_t Entry(T score, uint32_t index) {
  return uint64_t{index} << 32 | score;
}

#if defined(__x86_64__)
#define TW_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TW_CLONES
#endif
// How many come before each of 32: larger ones, and equal ones further left.
TW_CLONES void Ranks(const int32_t* key, int32_t* rank) {
  int32_t ranks[32] = {};
  for (int32_t from = 0; from < 32; ++from) {
    const int32_t here = key[from];
    for (int32_t e = 0; e < 32; ++e) ranks[e] += here + (e > from) > key[e];
  }
  std::memcpy(rank, ranks, sizeof ranks);
}
#undef TW_CLONES

template <class T>
void Sort(Core& core, const Record& r) {
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* scores = core.At(r.operand[1]);
  const uint8_t* indices = core.At(r.operand[2]);
  for (uint32_t i = 0; i < r.vec.repeat; ++i, dst += 256, scores += 32 * sizeof(T), indices += 128) {
    T score[32];
    uint32_t index[32];
    int32_t key[32];
    int32_t rank[32];
    std::memcpy(score, scores, sizeof score);
    std::memcpy(index, indices, sizeof index);
    for (int e = 0; e < 32; ++e) key[e] = std::min(ScoreKey(score[e]), INT32_MAX - 1);
    Ranks(key, rank);
    uint64_t sorted[32];
    for (int e = 0; e < 32; ++e) sorted[rank[e]] = Entry(score[e], index[e]);
    std::memcpy(dst, sorted, sizeof sorted);
  }
}

// One entry of a list while it is merged: its key above its place, so that larger means earlier.
inline uint64_t Item(int32_t key, uint32_t place) {
  return uint64_t{static_cast<uint32_t>(key) ^ 0x80000000u} << 32 | (UINT32_MAX - place);
}
inline uint32_t PlaceOf(uint64_t item) { return UINT32_MAX - static_cast<uint32_t>(item); }

// Always the larger head, without a branch on which.
void MergePair(const uint64_t* a, size_t na, const uint64_t* b, size_t nb, uint64_t* out) {
  const uint64_t *a_end = a + na, *b_end = b + nb;
  while (a != a_end && b != b_end) {
    const bool second = *b > *a;
    *out++ = second ? *b : *a;
    b += second;
    a += !second;
  }
  std::copy(b, b_end, std::copy(a, a_end, out));
}

// Merges once, into the places of the entries in the order written: list 0 first among equals.
template <class T>
void Order(Core& core, const Record& r, uint64_t skip, std::vector<uint64_t>& items,
           std::vector<uint64_t>& half) {
  const VecArgs& v = r.vec;
  size_t start[kListMax + 1] = {};
  for (uint32_t l = 0; l < kListMax; ++l) {
    const uint32_t length = l < Lists(v) ? v.arg[l] : 0;
    start[l + 1] = start[l] + length;
    const uint8_t* from = length == 0 ? nullptr : core.At(r.operand[1 + l]) + skip;
    for (uint32_t e = 0; e < length; ++e) {
      T score;
      std::memcpy(&score, from + e * kEntry, sizeof score);
      items[start[l] + e] = Item(ScoreKey(score), static_cast<uint32_t>(start[l] + e));
    }
  }
  const auto length = [&](int l) { return start[l + 1] - start[l]; };
  MergePair(&items[start[0]], length(0), &items[start[1]], length(1), &half[0]);
  MergePair(&items[start[2]], length(2), &items[start[3]], length(3), &half[start[2]]);
  MergePair(&half[0], start[2], &half[start[2]], start[4] - start[2], &items[0]);
}

template <class T>
void MergeAll(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const uint32_t lists = Lists(v);
  uint64_t total = 0;
  uint32_t start[kListMax + 1] = {};
  for (uint32_t l = 0; l < kListMax; ++l) {
    if (l < lists) total += v.arg[l];
    start[l + 1] = static_cast<uint32_t>(total);
  }
  std::vector<uint64_t> items(total + 1), half(total + 1);
  uint32_t taken[kListMax] = {};
  bool ended = false;  // a merge that stops has exhausted a list
  for (uint32_t l = 0; l < lists; ++l) ended = ended || (Stops(v) && v.arg[l] == 0);
  for (uint32_t i = 0; i < v.repeat; ++i) {
    Order<T>(core, r, i * total * kEntry, items, half);
    const uint64_t most = Stops(v) ? r.operand[0].unit / kEntry : total;
    uint8_t* dst = core.At(r.operand[0]) + i * total * kEntry;
    std::fill(taken, taken + kListMax, 0);
    for (uint64_t e = 0; e < total && !ended; ++e, dst += kEntry) {
      if (e == most) {
        core.ReportAccess(FindingKind::OutOfBounds,
                          "MrgSort: the destination's buffer is full before a list is exhausted", r, Mem::UB,
                          r.operand[0].base, r.operand[0].base + total * kEntry, r.operand[0].lo,
                          r.operand[0].hi);
        break;
      }
      const uint32_t place = PlaceOf(items[e]);
      const uint32_t l = (place >= start[1]) + (place >= start[2]) + (place >= start[3]);
      std::memcpy(dst, core.At(r.operand[1 + l]) + i * total * kEntry + (place - start[l]) * kEntry, kEntry);
      ended = Stops(v) && ++taken[l] == v.arg[l];
    }
  }
  for (uint32_t l = 0; l < kListMax; ++l)
    core.Word(static_cast<StateWord>(static_cast<int>(StateWord::MrgSort0) + static_cast<int>(l))) =
        Stops(v)    ? taken[l]
        : l < lists ? v.arg[l]
                    : 0;
}

}  // namespace

void DescribeSort32(Record& r) {
  const uint32_t repeat = r.vec.repeat;
  r.operand[0].unit = 256 * repeat;
  r.operand[1].unit = 32 * SizeOf(r.operand[1].type) * repeat;
  r.operand[2].unit = 128 * repeat;
}

bool CheckSort32(Core& core, const Record& r) {
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[1], {DType::F16, DType::F32});
  check.Require(r.operand[0].type == r.operand[1].type, "source and destination differ in type");
  check.Range("repeatTime", r.vec.repeat, 0, 255);
  if (!check.Ok()) return false;
  check.Apart(0, 1, "dst and src0");
  check.Apart(0, 2, "dst and src1");
  return check.Ok();
}

void ExecuteSort32(Core& core, const Record& r) {
  if (r.operand[1].type == DType::F16)
    Sort<uint16_t>(core, r);
  else
    Sort<uint32_t>(core, r);
}

void DescribeMrgSort(Record& r) {
  const VecArgs& v = r.vec;
  uint32_t total = 0;
  for (uint32_t l = 0; l < Lists(v); ++l) total += v.arg[l];
  Operand& dst = r.operand[0];
  dst.unit = total * kEntry * v.repeat;
  // A merge that stops writes less, how much is known when it runs.
  if (Stops(v) && dst.hi > dst.base)
    dst.unit = static_cast<uint32_t>(std::min<uint64_t>(dst.unit, dst.hi - dst.base));
  for (int o = 1; o < r.operands; ++o) {
    r.operand[o].unit = v.arg[o - 1] * kEntry;
    RepeatRange(r.operand[o], v.repeat, int64_t{total} * kEntry);
  }
}

bool CheckMrgSort(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  VecChecker check(core, r);
  check.InUb();
  check.Type(r.operand[0], {DType::F16, DType::F32});
  for (uint32_t l = 0; l < Lists(v); ++l) check.Range("elementLengths", v.arg[l], 0, 4095);
  const uint8_t valid = v.mode & 0xf;
  check.Require(valid == 3 || valid == 7 || valid == 15, "validBit must be 3, 7 or 15");
  if (v.repeat > 1) {
    bool repeats = valid == 15 && !Stops(v);
    for (uint32_t l = 1; l < Lists(v); ++l)
      repeats = repeats && v.arg[l] == v.arg[0] &&
                r.operand[1 + l].base == r.operand[l].base + uint64_t{v.arg[0]} * kEntry;
    check.Require(
        repeats,
        "repeatTimes beyond 1 takes four lists of one length that follow each other, validBit 15 and "
        "no suspension");
  }
  if (!check.Ok()) return false;
  for (int o = 1; o < r.operands; ++o)
    if (v.arg[o - 1] != 0) check.Apart(0, o, "source and destination");
  return check.Ok();
}

uint32_t AlignMrgSort(const Record&, int operand) { return operand == 0 ? kBlockBytes : kEntry; }

void ExecuteMrgSort(Core& core, const Record& r) {
  if (r.operand[0].type == DType::F16)
    MergeAll<uint16_t>(core, r);
  else
    MergeAll<uint32_t>(core, r);
}

}  // namespace tilewright::twin
