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

template <class T>
void Sort(Core& core, const Record& r) {
  uint8_t* dst = core.At(r.operand[0]);
  const uint8_t* scores = core.At(r.operand[1]);
  const uint8_t* indices = core.At(r.operand[2]);
  for (uint32_t i = 0; i < r.vec.repeat; ++i, dst += 256, scores += 32 * sizeof(T), indices += 128) {
    T score[32];
    uint32_t index[32];
    int32_t key[32];
    int32_t rank[32] = {};
    std::memcpy(score, scores, sizeof score);
    std::memcpy(index, indices, sizeof index);
    for (int e = 0; e < 32; ++e) key[e] = std::min(ScoreKey(score[e]), INT32_MAX - 1);
    // How many come before each: larger ones, and equal ones further left.
    for (int from = 0; from < 32; ++from)
      for (int e = 0; e < 32; ++e) rank[e] += key[from] + (e > from ? 1 : 0) > key[e] ? 1 : 0;
    uint64_t sorted[32];
    for (int e = 0; e < 32; ++e) sorted[rank[e]] = Entry(score[e], index[e]);
    std::memcpy(dst, sorted, sizeof sorted);
  }
}

struct Queue {
  const uint8_t* at;
  uint32_t left, taken;
  int64_t key;
};

template <class T>
void Advance(Queue& q) {
  if (q.left == 0) {
    q.key = INT64_MIN;
    return;
  }
  T score;
  std::memcpy(&score, q.at, sizeof score);
  q.key = ScoreKey(score);
}

// Merges once, up to `most` entries; the first of equal scores is that of the earlier list. False: there were
// more.
template <class T>
bool Merge(uint8_t* dst, Queue (&q)[kListMax], uint32_t lists, bool stops, uint64_t most) {
  for (uint32_t l = 0; l < kListMax; ++l) {
    if (l >= lists) q[l].left = 0;
    Advance<T>(q[l]);
  }
  const auto exhausted = [&] {
    for (uint32_t l = 0; l < lists; ++l)
      if (q[l].left == 0) return true;
    return false;
  };
  uint64_t total = 0;
  for (const Queue& one : q) total += one.left;
  if (stops && exhausted()) return true;
  for (uint64_t i = 0; i < total; ++i, dst += kEntry) {
    if (i == most) return false;
    const uint32_t a = q[1].key > q[0].key ? 1 : 0, b = q[3].key > q[2].key ? 3 : 2;
    Queue& from = q[q[b].key > q[a].key ? b : a];
    std::memcpy(dst, from.at, kEntry);
    from.at += kEntry;
    --from.left;
    ++from.taken;
    Advance<T>(from);
    if (stops && from.left == 0) return true;
  }
  return true;
}

template <class T>
void MergeAll(Core& core, const Record& r) {
  const VecArgs& v = r.vec;
  const uint32_t lists = Lists(v);
  uint64_t total = 0;
  for (uint32_t l = 0; l < lists; ++l) total += v.arg[l];
  uint8_t* dst = core.At(r.operand[0]);
  Queue q[kListMax] = {};
  for (uint32_t i = 0; i < v.repeat; ++i, dst += total * kEntry) {
    for (uint32_t l = 0; l < lists; ++l)
      q[l] = {core.At(r.operand[1 + l]) + i * total * kEntry, v.arg[l], 0, 0};
    if (!Merge<T>(dst, q, lists, Stops(v), Stops(v) ? r.operand[0].unit / kEntry : total))
      core.ReportAccess(
          FindingKind::OutOfBounds, "MrgSort: the destination's buffer is full before a list is exhausted", r,
          Mem::UB, r.operand[0].base, r.operand[0].base + total * kEntry, r.operand[0].lo, r.operand[0].hi);
  }
  for (uint32_t l = 0; l < kListMax; ++l)
    core.Word(static_cast<StateWord>(static_cast<int>(StateWord::MrgSort0) + static_cast<int>(l))) =
        q[l].taken;
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
