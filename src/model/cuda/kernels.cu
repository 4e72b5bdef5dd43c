// The network's CUDA kernels. build.rs compiles this file with nvcc. Tests run the same source on the CPU (tests/emulation), which
// replaces the part under `#ifndef EMULATED`.
//
// Every block has THREADS threads. Tensors are contiguous; "T" is the number type of the matrix products, half or float, and all sums are float.

typedef unsigned short half_bits;
typedef unsigned int pair;  // Two halves.

#define WARPS 4
#define THREADS (32 * WARPS)

#ifndef EMULATED
#define DEVICE static __device__ __forceinline__
#define KERNEL(NAME, PARAMETERS) extern "C" __global__ void __launch_bounds__(THREADS) NAME PARAMETERS

DEVICE float to_float(half_bits x) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(x));
    return out;
}

DEVICE half_bits to_half(float x) {
    half_bits out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
}

DEVICE pair to_pair(float low, float high) {
    pair out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

// Products of tensor cores. Fragments of mma.m16n8k16 (lane = 4·g + c): A holds rows g and g + 8, columns 2c, 2c+1 and 2c+8, 2c+9; B holds
// column g, rows 2c, 2c+1 and 2c+8, 2c+9; C holds rows g and g + 8, columns 2c, 2c+1.
DEVICE void multiply_add(float c[4], const pair a[4], pair b0, pair b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two 8 × 8 matrices, transposed; lanes 0 to 15 give the rows.
DEVICE void load_transposed(pair *b0, pair *b1, const half_bits *row) {
    unsigned int at = (unsigned int)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(*b0), "=r"(*b1) : "r"(at) : "memory");
}
#endif

#include "attention.cuh"
#include "rows.cuh"
