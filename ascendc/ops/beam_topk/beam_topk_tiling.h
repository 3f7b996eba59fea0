// The launch parameters of beam_topk: fields of 32 bits, written by the host, read by the kernel word by
// word.
#pragma once

#include <cstdint>

struct TwBeamTopkTiling {
  int32_t rows, columns, row;  // `row`: elements from one row of logits to the next
  int32_t k;
  int32_t kept, keep;     // survivors: k, or more where they are ranked again; in whole blocks of 32 bytes
  int32_t tile, tiles;    // elements of a tile, tiles of a row
  int32_t parts, blocks;  // cores of one row, cores in all
  int32_t direct;         // tiles of at most so many elements are sorted whole
  int32_t groups;         // of 8 elements that survive in longer ones
  int32_t capacity;       // entries that the sorter holds
  int32_t inverse;        // bits of the float that logits are multiplied with: 1 / temperature
  int32_t whole_row;      // softmax over the row, not over the survivors
  int32_t beams;          // rows of a group whose continuations are ranked together; 0: rows stand alone
  int32_t results, eos;   // of a group; the token that finished beams go on with
};
