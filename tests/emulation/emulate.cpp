// Runs src/model/cuda/kernels.cu on the CPU: the threads of a block are fibers, and the instructions of tensor cores do what their manual says.
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

struct uint4 { unsigned int x, y, z, w; };
static struct { unsigned int x; } blockIdx;
// Index of the running thread; kernels read it as threadIdx.x.
static unsigned int running;
static struct { struct { operator unsigned int() const { return running; } } x; } threadIdx;

// A fiber runs threads one after another until one waits at a barrier. Then the next fiber continues with the remaining threads.
struct Fiber {
    ucontext_t context;
    alignas(16) char stack[1 << 16];
    unsigned int thread;
    bool waiting;
};
static constexpr unsigned int BLOCK_THREADS = 128;
static Fiber fibers[BLOCK_THREADS];
static ucontext_t scheduler_context;
static unsigned int current, fibers_begun, threads_begun, threads_ended;
static void run_kernel();
// Scheduling turns since a barrier opened or a thread started.
static unsigned int turns_without_progress;

static void run_threads();

// The next fiber to run: a new one while threads remain, then the next waiting one.
static unsigned int next_fiber() {
    if (threads_begun < BLOCK_THREADS) {
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
    while (threads_begun < BLOCK_THREADS) {
        running = fibers[current].thread = threads_begun++;
        turns_without_progress = 0;
        run_kernel();
        threads_ended++;
    }
    if (threads_ended == BLOCK_THREADS) setcontext(&scheduler_context);
    current = next_fiber();
    running = fibers[current].thread;
    setcontext(&fibers[current].context);
}

static void yield() {
    if (++turns_without_progress > 4 * BLOCK_THREADS) {
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
        if (++arrived == count) { arrived = 0; turn++; turns_without_progress = 0; }
        while (turn == mine) yield();
    }
};
static Barrier block{BLOCK_THREADS}, warps[BLOCK_THREADS / 32] = {{32}, {32}, {32}, {32}};
static void __syncthreads() { block.wait(); }
static void sync_warp() { warps[running / 32].wait(); }

// Values that the lanes of a warp exchange.
struct Lane { unsigned int a[4], b[2]; float x; const unsigned short *row; };
static Lane lane_values[BLOCK_THREADS / 32][32];
static Lane *warp() { return lane_values[running / 32]; }

static float __shfl_xor_sync(unsigned int, float x, int mask) {
    warp()[running % 32].x = x;
    sync_warp();
    x = warp()[running % 32 ^ mask].x;
    sync_warp();
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
    sync_warp();
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
    sync_warp();
}

static void load_transposed(unsigned int *b0, unsigned int *b1, const unsigned short *row) {
    const int lane = running % 32;
    warp()[lane].row = row;
    sync_warp();
    unsigned int *out[2] = {b0, b1};
    for (int matrix = 0; matrix < 2; matrix++) {
        // Lane 4·g + c gets column g of rows 2c and 2c + 1.
        const int first = 8 * matrix + 2 * (lane % 4);
        *out[matrix] = warp()[first].row[lane / 4] | (unsigned int)warp()[first + 1].row[lane / 4] << 16;
    }
    sync_warp();
}

// Registry of kernels. Like the driver, it calls them with the addresses of their arguments.
struct Kernel {
    const char *name;
    size_t parameters;
    void (*entry)();
    void (*call)(void (*entry)(), void **arguments);
};
static Kernel kernels[64];
static size_t kernel_count;
static Kernel *kernel;
static void **arguments;
static void run_kernel() { kernel->call(kernel->entry, arguments); }

template <class... P, size_t... I> static void call_with_arguments(void (*entry)(P...), void **arguments, std::index_sequence<I...>) {
    entry(*(P *)arguments[I]...);
}
template <class... P> static bool register_kernel(const char *name, void (*entry)(P...)) {
    kernels[kernel_count++] = {name, sizeof...(P), (void (*)())entry, [](void (*entry)(), void **arguments) {
                            call_with_arguments((void (*)(P...))entry, arguments, std::index_sequence_for<P...>());
                        }};
    return true;
}

#define EMULATED
#define DEVICE static inline
#define KERNEL(NAME, PARAMETERS)                                   \
    static void NAME PARAMETERS;                                   \
    static const bool NAME##_is_known = register_kernel(#NAME, NAME);       \
    static void NAME PARAMETERS
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#include "../../src/model/cuda/kernels.cu"
static_assert(THREADS == BLOCK_THREADS, "threads of a block");

// Returns 0, or 1 if there is no such kernel or its number of parameters differs. A null ends the arguments.
extern "C" int run(const char *name, int blocks, void **launch_arguments) {
    size_t count = 0;
    while (launch_arguments[count] != nullptr) count++;
    kernel = kernels;
    while (kernel < kernels + kernel_count && std::strcmp(kernel->name, name) != 0) kernel++;
    if (kernel == kernels + kernel_count || kernel->parameters != count) return 1;
    arguments = launch_arguments;
    for (blockIdx.x = 0; blockIdx.x < (unsigned int)blocks; blockIdx.x++) {
        fibers_begun = threads_begun = threads_ended = current = 0;
        next_fiber();
        swapcontext(&scheduler_context, &fibers[0].context);
    }
    return 0;
}
