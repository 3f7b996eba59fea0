// Which configs may serve a launch whose caller gave none, the best first, and why.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <functional>
#include <utility>

#include "border.hpp"

namespace tw::border {
namespace {

// As tilewright.buckets._log2: log2 in steps of 2^-16, rounded down, in integers only.
int64_t fixed_log2(int64_t value) {
  const uint64_t bits = static_cast<uint64_t>(value);
  const int whole = std::bit_width(bits) - 1;
  const int shift = whole - 31;
  uint64_t mantissa = shift > 0 ? bits >> shift : bits << -shift;
  int64_t found = int64_t{whole} << 16;
  for (int64_t step = 1 << 15; step != 0; step >>= 1) {
    mantissa = mantissa * mantissa >> 31;
    if (mantissa >> 32 == 0) continue;
    found += step;
    mantissa >>= 1;
  }
  return found;
}

// As tilewright.buckets.octaves: 0 only for equal sizes.
int64_t octaves(int64_t one, int64_t other) {
  if (one == other) return 0;
  return 1 + std::abs(fixed_log2(std::max<int64_t>(one, 1)) - fixed_log2(std::max<int64_t>(other, 1)));
}

// As tilewright.tables.distance: 0 for sizes in the bucket.
int64_t distance_of(const Tuned& row, const std::vector<int64_t>& sizes) {
  int64_t distance = 0;
  for (size_t i = 0; i < row.bucket.size(); ++i) {
    const bool inside = i == 0 && row.over < sizes[0] && sizes[0] <= row.bucket[0];
    const bool below = i == 0 && sizes[0] <= row.over;
    if (!inside) distance += octaves(sizes[i], below ? row.over + 1 : row.bucket[i]);
  }
  return distance;
}

bool serves(const Tuned& row, const Launch& launch, std::string_view level) {
  if (!row.level.empty() && row.level != level) return false;
  for (size_t i = 0; i < row.flags.size(); ++i)
    if (row.flags[i] >= 0 && row.flags[i] != launch.flags[i]) return false;
  return true;
}

// Appends the rows that may serve a launch: those of its precision first, then by distance.
void append_ranked(const OpSpec& op, std::span<const Tuned> table, const Launch& launch,
                   std::string_view level, std::vector<const Tuned*>* rows) {
  const auto precision = static_cast<int>(launch.precision - op.precisions.data());
  struct Ranked {
    bool relative;
    int64_t distance;
    const Tuned* row;
  };
  std::vector<Ranked> ranked;
  for (const Tuned& row : table) {
    const bool relative = row.precision != precision;
    const PrecisionSpec& its = op.precisions[static_cast<size_t>(row.precision)];
    if ((relative && its.operands != launch.precision->operands) || !serves(row, launch, level)) continue;
    ranked.push_back({relative, distance_of(row, launch.sizes), &row});
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& x, const Ranked& y) {
    return std::pair(x.relative, x.distance) < std::pair(y.relative, y.distance);
  });
  for (const Ranked& one : ranked) rows->push_back(one.row);
}

}  // namespace

std::vector<const Tuned*> candidates(const OpSpec& op, const Launch& launch, std::string_view level) {
  std::vector<const Tuned*> rows;
  append_ranked(op, op.tuned, launch, level, &rows);
  append_ranked(op, op.tiling, launch, level, &rows);
  return rows;
}

std::string why(const OpSpec& op, const Launch& launch, const Tuned* candidate) {
  if (candidate == nullptr)
    return launch.candidates.empty() ? "default: nothing tuned for this precision and layout"
                                     : "default: nothing tuned is taken here";
  const Tuned& row = *candidate;
  const auto sizes = static_cast<size_t>(op.case_sizes);
  std::string ends =
      std::string(op.sizes[0]) + "=" + std::to_string(row.over + 1) + ".." + std::to_string(row.bucket[0]);
  for (size_t i = 1; i < sizes; ++i)
    ends += "," + std::string(op.sizes[i]) + "=" + std::to_string(row.bucket[i]);
  const PrecisionSpec& its = op.precisions[static_cast<size_t>(row.precision)];
  const bool exact = &its == launch.precision && distance_of(row, launch.sizes) == 0;
  const Tuned* const suggested = op.tiling.data();
  if (std::less_equal<>()(suggested, candidate) && std::less<>()(candidate, suggested + op.tiling.size()))
    return (exact ? "tiling for " : "nearest tiling: ") + ends;
  return (exact ? "tuned for " : "nearest tuned: ") + ends + " " + its.name;
}

}  // namespace tw::border
