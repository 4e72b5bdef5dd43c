// Memory-bound kernels between the matrix products. A block handles a row (in the norm a warp does), a thread four neighbouring features
// at a time. Features, and the parts of a row, come in multiples of four.

template <class T> struct alignas(4 * sizeof(T)) Packed { T at[4]; };
struct Four { float at[4]; };

DEVICE float to_float(float x) { return x; }
DEVICE void round_to(float *to, float x) { *to = x; }
DEVICE void round_to(half_bits *to, float x) { *to = to_half(x); }

template <class T> DEVICE Four load(const T *from) {
    const Packed<T> packed = *(const Packed<T> *)from;
    Four out;
    for (int j = 0; j < 4; j++) out.at[j] = to_float(packed.at[j]);
    return out;
}

template <class T> DEVICE void store(T *to, Four x) {
    Packed<T> packed;
    for (int j = 0; j < 4; j++) round_to(&packed.at[j], x.at[j]);
    *(Packed<T> *)to = packed;
}

DEVICE float sigmoid(float x) { return 1 / (1 + expf(-x)); }
DEVICE float gelu(float x) { return 0.5f * x * (1 + erff(x * 0.70710678f)); }

// x, out: [rows, dim], gamma: [dim]. ⌈rows / WARPS⌉ blocks.
template <class T> DEVICE void rms_norm(const float *x, const float *gamma, T *out, int rows, int dim) {
    const int lane = threadIdx.x % 32, row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    x += (long long)row * dim;
    out += (long long)row * dim;
    float sum = 0;
    for (int i = 4 * lane; i < dim; i += 4 * 32) {
        const Four v = load(x + i);
        for (int j = 0; j < 4; j++) sum += v.at[j] * v.at[j];
    }
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    const float scale = sqrtf(dim / (sum + 1e-24f));
    for (int i = 4 * lane; i < dim; i += 4 * 32) {
        Four v = load(x + i);
        const Four gain = load(gamma + i);
        for (int j = 0; j < 4; j++) v.at[j] *= scale * gain.at[j];
        store(out + i, v);
    }
}

// qkv: [sequences, len, 3, heads, dim] → out: [3, sequences, heads, len, dim], the first 2 · pairs features of q and k rotated by cos and sin,
// [len, pairs], and q scaled. sequences · len blocks.
template <class T>
DEVICE void split_heads(const T *qkv, const T *cos, const T *sin, T *out, int sequences, int len, int heads, int dim, int pairs) {
    const int sequence = blockIdx.x / len, token = blockIdx.x % len, inner = heads * dim;
    const float scale = 1 / sqrtf((float)dim);
    qkv += (long long)blockIdx.x * 3 * inner;
    cos += (long long)token * pairs;
    sin += (long long)token * pairs;
    for (int i = 4 * threadIdx.x; i < 3 * inner; i += 4 * THREADS) {
        const int part = i / inner, head = i % inner / dim, d = i % dim;
        Four v = load(qkv + i);
        for (int j = 0; j < 4; j += 2) {
            const int turn = (d + j) / 2;
            if (part < 2 && turn < pairs) {
                const float c = to_float(cos[turn]), s = to_float(sin[turn]), re = v.at[j], im = v.at[j + 1];
                v.at[j] = re * c - im * s;
                v.at[j + 1] = re * s + im * c;
            }
        }
        for (int j = 0; j < 4 && part == 0; j++) v.at[j] *= scale;
        store(out + ((((long long)part * sequences + sequence) * heads + head) * len + token) * dim + d, v);
    }
}

// x: [sequences, heads, len, dim] → out: [sequences, len, heads, dim], times the sigmoid of gates [sequences, len, heads] + bias [heads].
// sequences · len blocks.
template <class T>
DEVICE void join_heads(const T *x, const T *gates, const T *bias, T *out, int len, int heads, int dim) {
    const int sequence = blockIdx.x / len, token = blockIdx.x % len;
    gates += (long long)blockIdx.x * heads;
    out += (long long)blockIdx.x * heads * dim;
    for (int i = 4 * threadIdx.x; i < heads * dim; i += 4 * THREADS) {
        const int head = i / dim;
        const float gate = sigmoid(to_float(gates[head]) + to_float(bias[head]));
        Four v = load(x + (((long long)sequence * heads + head) * len + token) * dim + i % dim);
        for (int j = 0; j < 4; j++) v.at[j] *= gate;
        store(out + i, v);
    }
}

// x, out: [n, rows, columns], bias: [n, columns]. n · rows blocks.
template <class T, float (*ACTIVATION)(float)> DEVICE void bend(const T *x, const T *bias, T *out, int rows, int columns) {
    x += (long long)blockIdx.x * columns;
    out += (long long)blockIdx.x * columns;
    bias += (long long)(blockIdx.x / rows) * columns;
    for (int i = 4 * threadIdx.x; i < columns; i += 4 * THREADS) {
        Four v = load(x + i);
        const Four b = load(bias + i);
        for (int j = 0; j < 4; j++) v.at[j] = ACTIVATION(v.at[j] + b.at[j]);
        store(out + i, v);
    }
}

// x: [rows, columns] in T, bias: [columns] or null, onto and out: [rows, columns] in float. rows blocks.
template <class T> DEVICE void add(const T *x, const T *bias, const float *onto, float *out, int columns) {
    const long long row = (long long)blockIdx.x * columns;
    for (int i = 4 * threadIdx.x; i < columns; i += 4 * THREADS) {
        const Four v = load(x + row + i);
        const Four b = bias ? load(bias + i) : Four{{0, 0, 0, 0}};
        Four sum = load(onto + row + i);
        for (int j = 0; j < 4; j++) sum.at[j] += v.at[j] + b.at[j];
        store(out + row + i, sum);
    }
}

// The gated linear unit of `bands` neighbouring bands, laid side by side. x: [bands, stems, rows, 2 · half], bias: [bands, stems, 2 · half] →
// out: [stems, rows, bands, half] in float. stems · rows blocks.
template <class T>
DEVICE void gate_bands(const T *x, const T *bias, float *out, int bands, int stems, int rows, int half) {
    const int stem = blockIdx.x / rows, row = blockIdx.x % rows;
    out += (long long)blockIdx.x * bands * half;
    for (int i = 4 * threadIdx.x; i < bands * half; i += 4 * THREADS) {
        const int mlp = i / half * stems + stem, f = i % half;
        const T *from = x + ((long long)mlp * rows + row) * 2 * half + f, *b = bias + (long long)mlp * 2 * half + f;
        Four value = load(from);
        const Four gate = load(from + half), value_bias = load(b), gate_bias = load(b + half);
        for (int j = 0; j < 4; j++)
            value.at[j] = (value.at[j] + value_bias.at[j]) * sigmoid(gate.at[j] + gate_bias.at[j]);
        store(out + i, value);
    }
}

#define ROWS(SUFFIX, T)                                                                                                         \
    KERNEL(rms_norm_##SUFFIX, (const float *x, const float *gamma, T *out, int rows, int dim)) {                                \
        rms_norm<T>(x, gamma, out, rows, dim);                                                                                  \
    }                                                                                                                           \
    KERNEL(split_heads_##SUFFIX,                                                                                                \
           (const T *qkv, const T *cos, const T *sin, T *out, int sequences, int len, int heads, int dim, int pairs)) {         \
        split_heads<T>(qkv, cos, sin, out, sequences, len, heads, dim, pairs);                                                  \
    }                                                                                                                           \
    KERNEL(join_heads_##SUFFIX, (const T *x, const T *gates, const T *bias, T *out, int len, int heads, int dim)) {             \
        join_heads<T>(x, gates, bias, out, len, heads, dim);                                                                    \
    }                                                                                                                           \
    KERNEL(gelu_##SUFFIX, (const T *x, const T *bias, T *out, int rows, int columns)) {                                         \
        bend<T, gelu>(x, bias, out, rows, columns);                                                                             \
    }                                                                                                                           \
    KERNEL(tanh_##SUFFIX, (const T *x, const T *bias, T *out, int rows, int columns)) {                                         \
        bend<T, tanhf>(x, bias, out, rows, columns);                                                                            \
    }                                                                                                                           \
    KERNEL(add_##SUFFIX, (const T *x, const float *onto, float *out, int columns)) {                                            \
        add<T>(x, (const T *)0, onto, out, columns);                                                                            \
    }                                                                                                                           \
    KERNEL(add_bias_##SUFFIX, (const T *x, const T *bias, const float *onto, float *out, int columns)) {                        \
        add<T>(x, bias, onto, out, columns);                                                                                    \
    }                                                                                                                           \
    KERNEL(gate_bands_##SUFFIX, (const T *x, const T *bias, float *out, int bands, int stems, int rows, int half)) {            \
        gate_bands<T>(x, bias, out, bands, stems, rows, half);                                                                  \
    }
ROWS(f16, half_bits)
ROWS(f32, float)

struct alignas(8) Complex { float re, im; };

// A stem's mask of a bin; 0 for the first of `silent` bins.
DEVICE Complex mask_of(const Complex *masks, long long at, bool silent) { return silent ? Complex{0, 0} : masks[at]; }
DEVICE bool is_finite(Complex z) { return (z.re - z.re) + (z.im - z.im) == 0; }

// spec: [batch, frames, freqs, channels], masks: [batch, stems, frames, freqs, channels] → out: [batch, stems, channels, frames, 2 · freqs] in
// float, real parts first. With `complete` the masks of a bin are made to sum to 1, the rest shared among stems by the power of their masks.
// batch · frames blocks.
KERNEL(mask_mixture, (const Complex *spec, const Complex *masks, float *out, int stems, int frames, int freqs, int channels, int complete,
                      int zero_dc)) {
    const int frame = blockIdx.x % frames, bins = freqs * channels;
    const long long first = (long long)(blockIdx.x / frames) * stems;
    for (int i = threadIdx.x; i < bins; i += THREADS) {
        const int f = i / channels, c = i % channels;
        const bool silent = zero_dc && f == 0;
        const Complex mixture = spec[(long long)blockIdx.x * bins + i];
        Complex rest = {1, 0};
        float power = 0;
        for (int n = 0; n < stems && complete; n++) {
            const Complex mask = mask_of(masks, ((first + n) * frames + frame) * bins + i, silent);
            if (!is_finite(mask)) continue;
            rest.re -= mask.re;
            rest.im -= mask.im;
            power += mask.re * mask.re + mask.im * mask.im;
        }
        for (int n = 0; n < stems; n++) {
            Complex mask = mask_of(masks, ((first + n) * frames + frame) * bins + i, silent);
            if (complete) {
                if (!is_finite(mask)) mask = {0, 0};
                // Below the smallest normal number the quotient is meaningless.
                const float weight = power > 1.17549435e-38f ? (mask.re * mask.re + mask.im * mask.im) / power : 1.0f / stems;
                mask.re += weight * rest.re;
                mask.im += weight * rest.im;
            }
            float *to = out + (((first + n) * channels + c) * frames + frame) * 2 * freqs + f;
            to[0] = mask.re * mixture.re - mask.im * mixture.im;
            to[freqs] = mask.re * mixture.im + mask.im * mixture.re;
        }
    }
}
