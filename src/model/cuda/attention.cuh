// Softmax attention in one kernel: scores never leave the registers. f16 in and out, f32 sums, for tensor cores from sm_80 on.
//
// q, k, v, out: [groups, len, DIM], contiguous. q holds the scale already. A block takes 64 queries of a group, a warp 16 of them;
// groups · ⌈len / 64⌉ blocks; keys and values come by 64 into shared memory. Softmax is kept up as keys come: the maximum so far, the sum of the
// exponentials, and the output, rescaled whenever the maximum rises. The C of scores, by twos, is the A of weights.

#define QUERIES 64
#define KEYS 64

// Largest and sum over the four lanes that share a row.
DEVICE float largest_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

DEVICE float sum_of_row(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

template <int DIM>
DEVICE void attend(const half_bits *q, const half_bits *k, const half_bits *v, half_bits *out, int len,
                   half_bits (*keys)[DIM + 8], half_bits (*values)[DIM + 8]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, c = lane % 4;
    const int tiles = (len + QUERIES - 1) / QUERIES;
    const long long group = (long long)(blockIdx.x / tiles) * len * DIM;
    const int first = blockIdx.x % tiles * QUERIES + warp * 16;
    const int rows[2] = {first + g, first + g + 8};

    pair query[DIM / 16][4];
    for (int d = 0; d < DIM / 16; d++) {
        for (int i = 0; i < 4; i++) {
            const int row = rows[i % 2];
            const long long at = group + (long long)row * DIM + 16 * d + 2 * c + 8 * (i / 2);
            query[d][i] = row < len ? *(const pair *)(q + at) : 0;
        }
    }

    float sums[DIM / 8][4];
    for (int d = 0; d < DIM / 8; d++)
        for (int i = 0; i < 4; i++) sums[d][i] = 0;
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};

    for (int start = 0; start < len; start += KEYS) {
        __syncthreads();
        // Sixteen bytes a thread and turn; past the end zeros, which no weight is given to but which must be numbers.
        for (int i = threadIdx.x; i < KEYS * DIM / 8; i += THREADS) {
            const int row = i / (DIM / 8), column = 8 * (i % (DIM / 8));
            const long long at = group + (long long)(start + row) * DIM + column;
            const uint4 none = {0, 0, 0, 0};
            *(uint4 *)&keys[row][column] = start + row < len ? *(const uint4 *)(k + at) : none;
            *(uint4 *)&values[row][column] = start + row < len ? *(const uint4 *)(v + at) : none;
        }
        __syncthreads();

        float scores[KEYS / 8][4];
        for (int n = 0; n < KEYS / 8; n++) {
            for (int i = 0; i < 4; i++) scores[n][i] = 0;
            for (int d = 0; d < DIM / 16; d++) {
                const half_bits *key = &keys[8 * n + g][16 * d + 2 * c];
                multiply_add(scores[n], query[d], *(const pair *)key, *(const pair *)(key + 8));
            }
            for (int i = 0; i < 4; i++)
                if (start + 8 * n + 2 * c + i % 2 >= len) scores[n][i] = -INFINITY;
        }

        for (int r = 0; r < 2; r++) {
            float most = largest[r];
            for (int n = 0; n < KEYS / 8; n++) most = fmaxf(most, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
            // Every tile has a key, so this is a number unless a score is none.
            most = largest_of_row(most);
            const float shrink = exp2f((largest[r] - most) * 1.44269504f);
            largest[r] = most;
            float sum = 0;
            for (int n = 0; n < KEYS / 8; n++) {
                for (int i = 2 * r; i < 2 * r + 2; i++) {
                    scores[n][i] = exp2f((scores[n][i] - most) * 1.44269504f);
                    sum += scores[n][i];
                }
            }
            total[r] = total[r] * shrink + sum_of_row(sum);
            for (int d = 0; d < DIM / 8; d++)
                for (int i = 2 * r; i < 2 * r + 2; i++) sums[d][i] *= shrink;
        }

        for (int n = 0; n < KEYS / 16; n++) {
            const float *left = scores[2 * n], *right = scores[2 * n + 1];
            const pair weights[4] = {to_pair(left[0], left[1]), to_pair(left[2], left[3]), to_pair(right[0], right[1]),
                                     to_pair(right[2], right[3])};
            for (int d = 0; d < DIM / 8; d++) {
                pair b0, b1;
                load_transposed(&b0, &b1, &values[16 * n + lane % 16][8 * d]);
                multiply_add(sums[d], weights, b0, b1);
            }
        }
    }

    for (int r = 0; r < 2; r++) {
        if (rows[r] >= len) continue;
        const float scale = 1 / total[r];
        for (int d = 0; d < DIM / 8; d++)
            *(pair *)(out + group + (long long)rows[r] * DIM + 8 * d + 2 * c) =
                to_pair(sums[d][2 * r] * scale, sums[d][2 * r + 1] * scale);
    }
}

// Unrolled by the compiler: all bounds but len are constants.
#define ATTEND(DIM)                                                                                                             \
    KERNEL(attend_##DIM, (const half_bits *q, const half_bits *k, const half_bits *v, half_bits *out, int len)) {               \
        __shared__ __align__(16) half_bits keys[KEYS][DIM + 8];                                                                 \
        __shared__ __align__(16) half_bits values[KEYS][DIM + 8];                                                               \
        attend<DIM>(q, k, v, out, len, keys, values);                                                                           \
    }
ATTEND(32)
ATTEND(48)
ATTEND(64)
