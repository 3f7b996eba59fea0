// Sort32 and MrgSort: descending lists of 8-byte (score, index) entries.
#include <algorithm>

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

// What a merge works on: the entries of its lists one after the other, and their items before, between and
// after the two rounds of pairs.
struct Work {
  uint64_t *entries, *items, *half;
  uint32_t start[kListMax + 1];  // of each list
};

// Merges once: afterwards the items stand in the order in which their entries are written.
template <class T>
void Order(Core& core, const Record& r, uint64_t skip, Work& w) {
  for (uint32_t l = 0; l < kListMax; ++l) {
    const uint32_t first = w.start[l], length = w.start[l + 1] - first;
    if (length != 0)
      std::memcpy(w.entries + first, core.At(r.operand[1 + l]) + skip, uint64_t{length} * kEntry);
  }
  const uint32_t total = w.start[kListMax];
  for (uint32_t e = 0; e < total; ++e) w.items[e] = Item(ScoreKey(static_cast<T>(w.entries[e])), e);
  const uint32_t* at = w.start;
  MergePair(w.items, at[1], w.items + at[1], at[2] - at[1], w.half);
  MergePair(w.items + at[2], at[3] - at[2], w.items + at[3], at[4] - at[3], w.half + at[2]);
  MergePair(w.half, at[2], w.half + at[2], at[4] - at[2], w.items);
}

// How many of the ordered entries are written before a list is exhausted, and how many of each.
uint32_t StopAt(const Work& w, uint32_t lists, uint32_t (&taken)[kListMax]) {
  for (uint32_t l = 0; l < lists; ++l)
    if (w.start[l + 1] == w.start[l]) return 0;
  for (uint32_t e = 0; e < w.start[kListMax]; ++e) {
    const uint32_t place = PlaceOf(w.items[e]);
    const uint32_t l = (place >= w.start[1]) + (place >= w.start[2]) + (place >= w.start[3]);
    if (++taken[l] == w.start[l + 1] - w.start[l]) return e + 1;
  }
  return w.start[kListMax];
}

template <class T>
void MergeAll(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const uint32_t lists = Lists(v);
  Work w{};
  uint32_t taken[kListMax] = {};
  for (uint32_t l = 0; l < kListMax; ++l) {
    if (l < lists && !Stops(v)) taken[l] = v.arg[l];
    w.start[l + 1] = w.start[l] + (l < lists ? v.arg[l] : 0);
  }
  const uint32_t total = w.start[kListMax];
  w.entries = reinterpret_cast<uint64_t*>(core.Scratch(0, size_t{total} * 2));
  w.items = reinterpret_cast<uint64_t*>(core.Scratch(1, size_t{total} * 2));
  w.half = reinterpret_cast<uint64_t*>(core.Scratch(2, size_t{total} * 2));
  for (uint32_t i = 0; i < v.repeat; ++i) {
    const uint64_t skip = uint64_t{i} * total * kEntry;
    Order<T>(core, r, skip, w);
    uint32_t count = Stops(v) ? StopAt(w, lists, taken) : total;
    const uint32_t most = Stops(v) ? r.operand[0].unit / kEntry : total;
    if (count > most) {
      core.ReportAccess(FindingKind::OutOfBounds,
                        "MrgSort: the destination's buffer is full before a list is exhausted", r, Mem::UB,
                        r.operand[0].base, r.operand[0].base + uint64_t{count} * kEntry, r.operand[0].lo,
                        r.operand[0].hi);
      count = most;
    }
    uint8_t* dst = core.At(r.operand[0]) + skip;
    for (uint32_t e = 0; e < count; ++e)
      std::memcpy(dst + uint64_t{e} * kEntry, &w.entries[PlaceOf(w.items[e])], kEntry);
  }
  for (uint32_t l = 0; l < kListMax; ++l)
    core.Word(static_cast<StateWord>(static_cast<int>(StateWord::MrgSort0) + static_cast<int>(l))) = taken[l];
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
