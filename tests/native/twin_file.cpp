// A kernel file as a stranger might write it: kernels of every form, and host code that launches them.
#include "acl/acl.h"
#include "kernel_operator.h"

using namespace AscendC;

#ifndef EXTRA
#define EXTRA
#endif

struct Shift {
  int32_t count;
  float scale;
  int64_t more[4];
};

extern "C" __global__ __aicore__ void copy(GM_ADDR x, GM_ADDR y, uint32_t n) {
  TPipe pipe;
  TQueBind<TPosition::VECIN, TPosition::VECOUT, 2> queue;
  pipe.InitBuffer(queue, 2, 256);
  GlobalTensor<half> from, to;
  from.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(x));
  to.SetGlobalBuffer(reinterpret_cast<__gm__ half*>(y));
  for (uint32_t i = GetBlockIdx() * 128; i < n; i += GetBlockNum() * 128) {
    LocalTensor<half> in = queue.AllocTensor<half>();
    DataCopy(in, from[i], 128);
    queue.EnQue(in);
    LocalTensor<half> out = queue.DeQue<half>();
    DataCopy(to[i], out, 128);
    queue.FreeTensor(out);
  }
}

namespace strange {

// No extern "C", a struct by value, 16-bit floats by value.
template <typename T, int kTimes = 1>
__global__ __aicore__ void shift(__gm__ T* x, __gm__ T* y, Shift t, float s, half h, double d, bool on) {
  GlobalTensor<T> from, to;
  from.SetGlobalBuffer(x);
  to.SetGlobalBuffer(y);
  for (int32_t i = 0; i < t.count; ++i) {
    const float value = static_cast<float>(from.GetValue(i)) * t.scale * kTimes + s + static_cast<float>(h);
    to.SetValue(i,
                static_cast<T>(on ? value + static_cast<float>(d) + static_cast<float>(t.more[3]) : value));
  }
}

__global__ __aicore__ void tiled(GM_ADDR y, GM_ADDR tiling) {
  const auto* t = reinterpret_cast<__gm__ Shift*>(tiling);
  GlobalTensor<int64_t> to;
  to.SetGlobalBuffer(reinterpret_cast<__gm__ int64_t*>(y));
  to.SetValue(0, t->count);
  to.SetValue(1, t->more[3]);
}

}  // namespace strange

__global__ __aicore__ void crash(GM_ADDR y, int32_t zero) { *y = static_cast<uint8_t>(100 / zero); }

extern void copy_impl(void* stream, void* x, void* y, int32_t n) {
  const uint32_t blocks = n > 512 ? 4 : 1;
  copy<<<blocks, nullptr, stream>>>(  // the launch goes on over lines
      static_cast<uint8_t*>(x), static_cast<uint8_t*>(y), n);
}

void shift_impl(void* stream, void* x, void* y) {
  Shift t{64, 2.0f, {0, 0, 0, 5}};
  strange::shift<half, 3>
      <<<1, nullptr, stream>>>(static_cast<half*>(x), static_cast<half*>(y), t, 1.0f, half(0.5f), 0.25, true);
}

void nothing() {}

void wild(void* x) { *static_cast<volatile int*>(x) = *reinterpret_cast<volatile int*>(16); }

int main() {
  constexpr uint32_t kCount = 256;
  aclrtStream stream = nullptr;
  if (aclInit(nullptr) != ACL_SUCCESS || aclrtCreateStream(&stream) != ACL_SUCCESS) return 2;
  uint8_t *x = nullptr, *y = nullptr;
  half* host = nullptr;
  aclrtMalloc(reinterpret_cast<void**>(&x), kCount * sizeof(half), ACL_MEM_MALLOC_HUGE_FIRST);
  aclrtMalloc(reinterpret_cast<void**>(&y), kCount * sizeof(half), ACL_MEM_MALLOC_HUGE_FIRST);
  aclrtMallocHost(reinterpret_cast<void**>(&host), kCount * sizeof(half));
  for (uint32_t i = 0; i < kCount; ++i) host[i] = static_cast<float>(i);
  aclrtMemcpy(x, kCount * sizeof(half), host, kCount * sizeof(half), ACL_MEMCPY_HOST_TO_DEVICE);
  copy<<<2, nullptr, stream>>>(x, y, kCount EXTRA);
  aclrtSynchronizeStream(stream);
  aclrtMemset(host, kCount * sizeof(half), 0, kCount * sizeof(half));
  aclrtMemcpy(host, kCount * sizeof(half), y, kCount * sizeof(half), ACL_MEMCPY_DEVICE_TO_HOST);
  int wrong = 0;
  for (uint32_t i = 0; i < kCount; ++i) wrong += static_cast<float>(host[i]) != static_cast<float>(i);
  aclrtFree(x);
  aclrtFree(y);
  aclrtFreeHost(host);
  aclFinalize();
  return wrong != 0;
}
