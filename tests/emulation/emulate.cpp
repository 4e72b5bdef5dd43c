// Runs src/model/cuda/kernels.cu on the CPU: the threads of a block are fibers, and the instructions of tensor cores do what their manual says.
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

struct uint4 { unsigned int x, y, z, w; };
static struct { unsigned int x; } blockIdx;
// The thread that runs, under the name that kernels know.
static unsigned int running;
static struct { struct { operator unsigned int() const { return running; } } x; } threadIdx;

// A fiber runs threads one after the other until one has to wait; then the next fiber goes on with those that are left.
struct Fiber {
    ucontext_t context;
    alignas(16) char stack[1 << 16];
    unsigned int thread;
    bool waiting;
};
static constexpr unsigned int MOST = 128;
static Fiber fibers[MOST];
static ucontext_t home;
static unsigned int current, fibers_begun, threads_begun, threads_ended;
static void run_kernel();
// Turns since a barrier opened or a thread began.
static unsigned int idle;

static void run_threads();

// The fiber to go on with: a new one while threads are left, then the next that waits.
static unsigned int next_fiber() {
    if (threads_begun < MOST) {
        Fiber &fiber = fibers[fibers_begun];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = sizeof fiber.stack;
        makecontext(&fiber.context, run_threads, 0);
        return fibers_begun++;
    }
    unsigned int next = current;
    do next = (next + 1) % fibers_begun; while (!fibers[next].waiting && next != current);
    return next;
}

static void run_threads() {
    while (threads_begun < MOST) {
        running = fibers[current].thread = threads_begun++;
        idle = 0;
        run_kernel();
        threads_ended++;
    }
    if (threads_ended == MOST) setcontext(&home);
    current = next_fiber();
    running = fibers[current].thread;
    setcontext(&fibers[current].context);
}

static void yield() {
    if (++idle > 4 * MOST) {
        std::fprintf(stderr, "thread %u waits for threads that have ended\n", running);
        std::abort();
    }
    const unsigned int from = current;
    fibers[from].waiting = true;
    current = next_fiber();
    running = fibers[current].thread;
    swapcontext(&fibers[from].context, &fibers[current].context);
    fibers[from].waiting = false;
}

struct Barrier {
    int count, arrived = 0, turn = 0;
    void wait() {
        const int mine = turn;
        if (++arrived == count) { arrived = 0; turn++; idle = 0; }
        while (turn == mine) yield();
    }
};
static Barrier block{MOST}, warps[MOST / 32] = {{32}, {32}, {32}, {32}};
static void __syncthreads() { block.wait(); }
static void meet() { warps[running / 32].wait(); }

// What the lanes of a warp show each other.
struct Lane { unsigned int a[4], b[2]; float x; const unsigned short *row; };
static Lane shown[MOST / 32][32];
static Lane *warp() { return shown[running / 32]; }

static float __shfl_xor_sync(unsigned int, float x, int mask) {
    warp()[running % 32].x = x;
    meet();
    x = warp()[running % 32 ^ mask].x;
    meet();
    return x;
}

static float to_float(unsigned short bits) { _Float16 x; std::memcpy(&x, &bits, 2); return (float)x; }
static unsigned short to_half(float value) { _Float16 x = (_Float16)value; unsigned short bits; std::memcpy(&bits, &x, 2); return bits; }
static unsigned int to_pair(float low, float high) { return to_half(low) | (unsigned int)to_half(high) << 16; }
static float low(unsigned int pair) { return to_float((unsigned short)(pair & 0xffff)); }
static float high(unsigned int pair) { return to_float((unsigned short)(pair >> 16)); }

static void multiply_add(float c[4], const unsigned int a[4], unsigned int b0, unsigned int b1) {
    const int lane = running % 32;
    std::memcpy(warp()[lane].a, a, sizeof warp()[lane].a);
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

// Kernels, called as the driver calls them: with the addresses of their arguments.
struct Kernel {
    const char *name;
    size_t parameters;
    void (*entry)();
    void (*call)(void (*entry)(), void **arguments);
};
static Kernel kernels[64];
static size_t known;
static Kernel *kernel;
static void **arguments;
static void run_kernel() { kernel->call(kernel->entry, arguments); }

template <class... P, size_t... I> static void spread(void (*entry)(P...), void **arguments, std::index_sequence<I...>) {
    entry(*(P *)arguments[I]...);
}
template <class... P> static bool enlist(const char *name, void (*entry)(P...)) {
    kernels[known++] = {name, sizeof...(P), (void (*)())entry, [](void (*entry)(), void **arguments) {
                            spread((void (*)(P...))entry, arguments, std::index_sequence_for<P...>());
                        }};
    return true;
}

#define EMULATED
#define DEVICE static inline
#define KERNEL(NAME, PARAMETERS)                                   \
    static void NAME PARAMETERS;                                   \
    static const bool NAME##_is_known = enlist(#NAME, NAME);       \
    static void NAME PARAMETERS
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#include "../../src/model/cuda/kernels.cu"
static_assert(THREADS == MOST, "threads of a block");

// 0, or 1 where there is no such kernel or it takes another number of arguments; a null ends them.
extern "C" int run(const char *name, int blocks, void **given) {
    size_t count = 0;
    while (given[count] != nullptr) count++;
    kernel = kernels;
    while (kernel < kernels + known && std::strcmp(kernel->name, name) != 0) kernel++;
    if (kernel == kernels + known || kernel->parameters != count) return 1;
    arguments = given;
    for (blockIdx.x = 0; blockIdx.x < (unsigned int)blocks; blockIdx.x++) {
        fibers_begun = threads_begun = threads_ended = current = 0;
        next_fiber();
        swapcontext(&home, &fibers[0].context);
    }
    return 0;
}
