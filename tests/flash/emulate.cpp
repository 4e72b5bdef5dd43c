// Runs src/model/attention/flash.cu on the CPU: threads are fibers, and the instructions of tensor cores do what their manual says. Prints the
// worst SNR in dB against attention in double precision.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

struct uint4 { unsigned int x, y, z, w; };
struct Index { int x; };

constexpr int THREADS = 128;
static ucontext_t fibers[THREADS], home;
static std::vector<char> stacks[THREADS];
static bool done[THREADS];
static int running;
static Index blockIdx;

// The index of the running thread, under the name that kernels know.
struct ThreadIndex { struct { operator int() const { return running; } } x; };
static ThreadIndex threadIdx;

static void yield() {
    const int from = running;
    do running = (running + 1) % THREADS; while (done[running]);
    if (running != from) swapcontext(&fibers[from], &fibers[running]);
}

struct Barrier {
    int count, arrived = 0, turn = 0;
    void wait() {
        const int mine = turn;
        if (++arrived == count) { arrived = 0; turn++; }
        while (turn == mine) yield();
    }
};
static Barrier block{THREADS}, warps[4] = {{32}, {32}, {32}, {32}};
static void __syncthreads() { block.wait(); }

static float to_float(uint16_t bits) { _Float16 x; memcpy(&x, &bits, 2); return (float)x; }
static uint16_t to_half(float value) { _Float16 x = (_Float16)value; uint16_t bits; memcpy(&bits, &x, 2); return bits; }
static float low(unsigned int pair) { return to_float(pair & 0xffff); }
static float high(unsigned int pair) { return to_float(pair >> 16); }

// What the lanes of a warp show each other.
struct Lane { unsigned int a[4], b[2]; float x; const unsigned short *row; };
static Lane shown[4][32];
static Lane *warp() { return shown[running / 32]; }
static void meet() { warps[running / 32].wait(); }

static void multiply_add(float c[4], const unsigned int a[4], unsigned int b0, unsigned int b1) {
    const int lane = running % 32;
    memcpy(warp()[lane].a, a, sizeof warp()[lane].a);
    warp()[lane].b[0] = b0;
    warp()[lane].b[1] = b1;
    meet();
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        float sum = 0;
        for (int k = 0; k < 16; k++) {
            const unsigned int x = warp()[4 * (row % 8) + k % 8 / 2].a[row / 8 + 2 * (k / 8)];
            const unsigned int y = warp()[4 * column + k % 8 / 2].b[k / 8];
            sum += (k % 2 ? high(x) : low(x)) * (k % 2 ? high(y) : low(y));
        }
        c[i] += sum;
    }
    meet();
}

static void load_transposed(unsigned int *b0, unsigned int *b1, const unsigned short *row) {
    const int lane = running % 32;
    warp()[lane].row = row;
    meet();
    unsigned int *out[2] = {b0, b1};
    for (int matrix = 0; matrix < 2; matrix++) {
        // Lane 4·g + c gets column g of rows 2c and 2c + 1.
        const int first = 8 * matrix + 2 * (lane % 4);
        *out[matrix] = warp()[first].row[lane / 4] | (unsigned int)warp()[first + 1].row[lane / 4] << 16;
    }
    meet();
}

static unsigned int to_pair(float low, float high) { return to_half(low) | (unsigned int)to_half(high) << 16; }

static float over_row(float x, float (*join)(float, float)) {
    const int lane = running % 32;
    warp()[lane].x = x;
    meet();
    for (int i = 1; i < 4; i++) x = join(x, warp()[lane ^ i].x);
    meet();
    return x;
}
static float largest_of_row(float x) { return over_row(x, [](float a, float b) { return std::max(a, b); }); }
static float sum_of_row(float x) { return over_row(x, [](float a, float b) { return a + b; }); }

#define EMULATED
#define DEVICE static
#include "../../src/model/attention/flash.cu"

static const half_bits *q, *k, *v;
static half_bits *out;
static int len;
template <int DIM> static void thread() {
    alignas(16) static half_bits keys[KEYS][DIM + 8], values[KEYS][DIM + 8];
    attend<DIM>(q, k, v, out, len, keys, values);
    const int me = running;
    done[me] = true;
    for (int i = 0; i < THREADS; i++)
        if (!done[i]) { running = i; setcontext(&fibers[i]); }
    setcontext(&home);
}

template <int DIM> static double run(int groups, int length) {
    unsigned int state = 1;
    const size_t size = (size_t)groups * length * DIM;
    std::vector<half_bits> data[3], result(size, 0x7e00);
    for (auto &part : data)
        for (size_t i = 0; i < size; i++) {
            state = state * 1664525 + 1013904223;
            part.push_back(to_half((float)((int)(state >> 8) - (1 << 23)) / (1 << 23)));
        }
    q = data[0].data(), k = data[1].data(), v = data[2].data(), out = result.data(), len = length;
    for (blockIdx.x = 0; blockIdx.x < groups * ((length + QUERIES - 1) / QUERIES); blockIdx.x++) {
        for (int i = 0; i < THREADS; i++) {
            stacks[i].resize(1 << 16);
            done[i] = false;
            getcontext(&fibers[i]);
            fibers[i].uc_stack.ss_sp = stacks[i].data();
            fibers[i].uc_stack.ss_size = stacks[i].size();
            makecontext(&fibers[i], thread<DIM>, 0);
        }
        running = 0;
        swapcontext(&home, &fibers[0]);
    }
    double signal = 0, error = 0;
    for (int group = 0; group < groups; group++)
        for (int i = 0; i < length; i++) {
            const size_t base = (size_t)group * length * DIM;
            std::vector<double> weights(length), sum(DIM);
            double total = 0;
            for (int j = 0; j < length; j++) {
                double score = 0;
                for (int d = 0; d < DIM; d++) score += (double)to_float(q[base + i * DIM + d]) * to_float(k[base + j * DIM + d]);
                total += weights[j] = std::exp(score);
            }
            for (int j = 0; j < length; j++)
                for (int d = 0; d < DIM; d++) sum[d] += weights[j] / total * to_float(v[base + j * DIM + d]);
            for (int d = 0; d < DIM; d++) {
                signal += sum[d] * sum[d];
                error += std::pow(sum[d] - to_float(out[base + i * DIM + d]), 2);
            }
        }
    return 10 * std::log10(signal / error);
}

int main() {
    double worst = 1e9;
    for (int length : {1, 7, 62, 64, 65, 130})
        for (double db : {run<32>(2, length), run<48>(1, length), run<64>(2, length)}) worst = std::min(worst, std::isnan(db) ? -1 : db);
    std::printf("%.1f\n", worst);
}
