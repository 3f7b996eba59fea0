// The launch parameters of the attention kernels: 32-bit fields only, written by the host, read by the kernel
// word by word.
#pragma once

#include <cstdint>

struct TwAttentionTiling {
  int32_t sequences, sq, sk;  // lengths are those of cu_q and cu_k where `ragged`
  int32_t hq, hkv, dk, dv;    // dk and dv: multiples of 16
  int32_t ragged, causal;
  int32_t window;               // 0: none
  int32_t prescale;             // 1: scores are scaled on their own, before softcap and alibi
  float scale, softcap;         // softcap 0: none
  int32_t has_alibi, has_lse;   //
  int32_t q_b, q_s, q_h;        // elements from one sequence, token and head to the next
  int32_t k_b, k_s, k_h;        //
  int32_t v_b, v_s, v_h;        //
  int32_t o_b, o_s, o_h;        //
  int32_t lse_b, lse_s, lse_h;  //
  int32_t tile_q;               // queries a block works on: 32, 64 or 128
  int32_t tile_k;               // keys of a step: a power of two, 16 at least
  int32_t chunk;                // keys of one Mmad: a multiple of 16
  int32_t preload;              // steps that QK^T runs ahead of PV: 1 to 3
  int32_t stagger;              // 1: cores begin at different steps of the keys
};
