/* Kernels on observed pairs in CSR form and on rows, for float32 on the CPU. They know arrays only: neither Python nor threads.

   A call works on rows until none is left; `next`, shared by all callers, is the first row that nobody has claimed. All of a row is
   found by one caller, pair after pair, so that results do not depend on how many callers there are. Rows of the kernels on pairs
   are contiguous, k floats each, k a multiple of 8 up to 128. Where it says so, an array may be NULL. */

#include <stdint.h>

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef float v4 __attribute__((vector_size(16), aligned(4)));

#define AHEAD 12 /* pairs between that whose row is fetched and that which is worked on */
#define CLAIM 32 /* rows claimed at a time */
#define LARGEST 16 /* vectors of a row */
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#ifdef CLONES
#define EXPORT __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define EXPORT
#endif

INLINE v4 halves(v8 x) {
  return __builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7);
}

/* The four sums of the entries of four vectors. */
INLINE v4 sums_of(v8 a, v8 b, v8 c, v8 d) {
  v8 ab = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  v8 cd = __builtin_shufflevector(c, d, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(c, d, 1, 9, 3, 11, 5, 13, 7, 15);
  return halves(__builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15));
}

INLINE float sum_of(v8 a) {
  v4 x = halves(a);
  return (x[0] + x[1]) + (x[2] + x[3]);
}

INLINE void fetch(const float *row, int n) {
  for (int j = 0; j < n; j += 2) __builtin_prefetch(row + 8 * j);
}

/* Products of a row p, n vectors, with the rows Q of four pairs, or of one. */
#define FOUR(n) \
  const float *q0 = Q + (int64_t)columns[t] * k, *q1 = Q + (int64_t)columns[t + 1] * k; \
  const float *q2 = Q + (int64_t)columns[t + 2] * k, *q3 = Q + (int64_t)columns[t + 3] * k; \
  for (int j = 0; j < 4; j++) fetch(Q + (int64_t)columns[t + AHEAD + j < n_pairs ? t + AHEAD + j : t] * k, n); \
  v8 x0 = p[0] * *(const v8 *)q0, x1 = p[0] * *(const v8 *)q1, x2 = p[0] * *(const v8 *)q2, x3 = p[0] * *(const v8 *)q3; \
  UNROLL for (int j = 1; j < n; j++) { \
    x0 += p[j] * *(const v8 *)(q0 + 8 * j); \
    x1 += p[j] * *(const v8 *)(q1 + 8 * j); \
    x2 += p[j] * *(const v8 *)(q2 + 8 * j); \
    x3 += p[j] * *(const v8 *)(q3 + 8 * j); \
  } \
  v4 dot = sums_of(x0, x1, x2, x3)
#define ONE(n) \
  const float *q = Q + (int64_t)columns[t] * k; \
  fetch(Q + (int64_t)columns[t + AHEAD < n_pairs ? t + AHEAD : t] * k, n); \
  v8 x = p[0] * *(const v8 *)q; \
  UNROLL for (int j = 1; j < n; j++) x += p[j] * *(const v8 *)(q + 8 * j); \
  float dot = sum_of(x)
#define ROW(n) \
  const int k = 8 * (n); \
  v8 p[LARGEST]; /* of which n are used: no array of variable length */ \
  UNROLL for (int j = 0; j < n; j++) p[j] = *(const v8 *)(P + row * k + 8 * j); \
  const int64_t last = pointers[row + 1]; \
  int64_t t = pointers[row]

#define SHAPE \
  int64_t row, int64_t n_pairs, const int32_t *restrict pointers, const int32_t *restrict columns, const float *restrict P, \
      const float *restrict Q

/* What a row's pairs say of it: with the errors e = p.q + b + c[column] - rating and weights w, the sums of w e q, w e and w e e.
   b, c and weight may be NULL. */
#define GRADIENT SHAPE, const float *b, const float *c, const float *rating, const float *weight, float *sums, float *slopes, float *squares
INLINE void gradient_of(const int n, GRADIENT) {
  ROW(n);
  v8 g[LARGEST];
  UNROLL for (int j = 0; j < n; j++) g[j] = (v8){0};
  const float bias = b ? b[row] : 0;
  v4 slope = {0}, square = {0};
  float slope_of_rest = 0, square_of_rest = 0;
  for (; t + 4 <= last; t += 4) {
    FOUR(n);
    v4 e = dot + bias - *(const v4 *)(rating + t);
    if (c) e += (v4){c[columns[t]], c[columns[t + 1]], c[columns[t + 2]], c[columns[t + 3]]};
    v4 w = weight ? e * *(const v4 *)(weight + t) : e;
    float one[4];
    *(v4 *)one = w;
    UNROLL for (int j = 0; j < n; j++) {
      v8 sum = g[j] + one[0] * *(const v8 *)(q0 + 8 * j);
      sum += one[1] * *(const v8 *)(q1 + 8 * j);
      sum += one[2] * *(const v8 *)(q2 + 8 * j);
      g[j] = sum + one[3] * *(const v8 *)(q3 + 8 * j);
    }
    slope += w;
    square += w * e;
  }
  for (; t < last; t++) {
    ONE(n);
    float e = dot + bias - rating[t];
    if (c) e += c[columns[t]];
    float w = weight ? e * weight[t] : e;
    UNROLL for (int j = 0; j < n; j++) g[j] += w * *(const v8 *)(q + 8 * j);
    slope_of_rest += w;
    square_of_rest += w * e;
  }
  UNROLL for (int j = 0; j < n; j++) *(v8 *)(sums + row * k + 8 * j) = g[j];
  slopes[row] = (slope[0] + slope[1]) + (slope[2] + slope[3]) + slope_of_rest;
  squares[row] = (square[0] + square[1]) + (square[2] + square[3]) + square_of_rest;
}

/* The sums of w (p.q + b)^2 over a row's pairs. b and weight may be NULL. */
#define SQUARES SHAPE, const float *b, const float *weight, float *squares
INLINE void squares_of(const int n, SQUARES) {
  ROW(n);
  const float bias = b ? b[row] : 0;
  v4 all = {0};
  float rest = 0;
  for (; t + 4 <= last; t += 4) {
    FOUR(n);
    v4 m = dot + bias;
    all += weight ? m * m * *(const v4 *)(weight + t) : m * m;
  }
  for (; t < last; t++) {
    ONE(n);
    float m = dot + bias;
    rest += weight ? m * m * weight[t] : m * m;
  }
  squares[row] = (all[0] + all[1]) + (all[2] + all[3]) + rest;
}

/* Adds p.q to the values of a row's pairs. */
#define DOTS SHAPE, float *values
INLINE void dots_of(const int n, DOTS) {
  ROW(n);
  for (; t + 4 <= last; t += 4) {
    FOUR(n);
    *(v4 *)(values + t) += dot;
  }
  for (; t < last; t++) {
    ONE(n);
    values[t] += dot;
  }
}

/* Each kernel for every k, over the rows that the caller claims. */
#define CASE(kernel, n, ...) \
  case n: \
    for (int64_t row = first; row < end; row++) kernel(n, row, __VA_ARGS__); \
    break;
#define OVER_ROWS(kernel, ...) \
  for (int64_t first; (first = __atomic_fetch_add(next, CLAIM, __ATOMIC_RELAXED)) < n_rows;) { \
    int64_t end = first + CLAIM < n_rows ? first + CLAIM : n_rows; \
    switch (n_vectors) { \
      CASE(kernel, 1, __VA_ARGS__) \
      CASE(kernel, 2, __VA_ARGS__) \
      CASE(kernel, 3, __VA_ARGS__) \
      CASE(kernel, 4, __VA_ARGS__) \
      CASE(kernel, 6, __VA_ARGS__) \
      CASE(kernel, 8, __VA_ARGS__) \
      CASE(kernel, 12, __VA_ARGS__) \
      CASE(kernel, 16, __VA_ARGS__) \
    } \
  }
#define ROWS \
  int64_t *next, int64_t n_rows, int64_t n_vectors, int64_t n_pairs, const int32_t *pointers, const int32_t *columns, const float *P, \
      const float *Q

EXPORT int kernels_version(void) { return 2; }

EXPORT void gradient(ROWS, const float *b, const float *c, const float *rating, const float *weight, float *sums, float *slopes, float *squares) {
  OVER_ROWS(gradient_of, n_pairs, pointers, columns, P, Q, b, c, rating, weight, sums, slopes, squares)
}

EXPORT void squares(ROWS, const float *b, const float *weight, float *found) {
  OVER_ROWS(squares_of, n_pairs, pointers, columns, P, Q, b, weight, found)
}

EXPORT void dots(ROWS, float *values) {
  OVER_ROWS(dots_of, n_pairs, pointers, columns, P, Q, values)
}

/* The algebra of rows, eight at a time, each of which is one lane of the vectors. A row has `width` numbers, up to 129: k factors
   and, with biases, one more. */

#define LANES 8
#define WIDEST 132 /* numbers of a row, and what fills the last tile */
#define TILE 12 /* vectors that a product finds at once */
#define CLAIM_LANES 256 /* rows claimed at a time */
#define PART 2048 /* rows whose moments are one sum */
#define TILED(n) (((n) + TILE - 1) / TILE * TILE)

/* Turns eight vectors, which are rows, into columns. */
INLINE void turn(v8 *r) {
  v8 t[8], s[8];
  UNROLL for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  UNROLL for (int i = 0; i < 8; i += 4) {
    UNROLL for (int j = 0; j < 2; j++) {
      s[i + 2 * j] = __builtin_shufflevector(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      s[i + 2 * j + 1] = __builtin_shufflevector(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  UNROLL for (int i = 0; i < 4; i++) {
    r[i] = __builtin_shufflevector(s[i], s[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    r[i + 4] = __builtin_shufflevector(s[i], s[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

/* The first n numbers of rows, `stride` apart, into lanes. Of fewer than eight rows the last fills the lanes that are left. */
INLINE void into_lanes(const float *rows, int64_t stride, int n_rows, int n, v8 *lanes) {
  const float *row[LANES];
  for (int i = 0; i < LANES; i++) row[i] = rows + stride * (i < n_rows ? i : n_rows - 1);
  int j = 0;
  for (; j + 8 <= n; j += 8) {
    UNROLL for (int i = 0; i < LANES; i++) lanes[j + i] = *(const v8 *)(row[i] + j);
    turn(lanes + j);
  }
  for (; j < n; j++)
    for (int i = 0; i < LANES; i++) lanes[j][i] = row[i][j];
}

/* The reverse; the lanes are written to. */
INLINE void out_of_lanes(v8 *lanes, int n_rows, int n, float *rows, int64_t stride) {
  int j = 0;
  for (; j + 8 <= n; j += 8) {
    turn(lanes + j);
    for (int i = 0; i < n_rows; i++) *(v8 *)(rows + stride * i + j) = lanes[j + i];
  }
  for (; j < n; j++)
    for (int i = 0; i < n_rows; i++) rows[stride * i + j] = lanes[j][i];
}

/* A number of each row into lanes, and out of them. */
INLINE v8 lanes_of(const float *numbers, int n_rows) {
  v8 lanes = {0};
  for (int i = 0; i < n_rows; i++) lanes[i] = numbers[i];
  return lanes;
}

INLINE void put(v8 lanes, int n_rows, float *numbers) {
  for (int i = 0; i < n_rows; i++) numbers[i] = lanes[i];
}

/* A tile of the products of n vectors with the rows of a matrix. */
#define PRODUCT(n, vectors, matrix, stride) \
  v8 tile[TILE]; \
  UNROLL for (int t = 0; t < TILE; t++) tile[t] = (v8){0}; \
  for (int i = 0; i < (n); i++) { \
    const float *row = (matrix) + (int64_t)i * (stride) + j; \
    const v8 x = (vectors)[i]; \
    UNROLL for (int t = 0; t < TILE; t++) tile[t] += x * row[t]; \
  }

/* Newton steps of rows, see nn/row_steps.py. `prior` has rows `prior_stride` apart, 0 where all are alike. With `filled` for the
   width filled up to tiles by zeros, `to_basis` is (3 width, filled), `uncertainty` and `from_basis` are (width, filled), and
   `curvature` is (filled). `slope` and `move_biases` are NULL without biases. */
EXPORT void steps(int64_t *next, int64_t n_rows, int64_t k, int64_t width, int64_t prior_stride, int64_t slopes_stride,
                  const float *rows, const float *prior, const float *slopes, const float *slope, const float *count,
                  const float *to_basis, const float *uncertainty, const float *from_basis, const float *curvature,
                  const float *noise_of_all, float *moves, float *move_biases, float *slope_along, float *bend_along) {
  const int w = (int)width, filled = TILED(w);
  const float noise = *noise_of_all;
  for (int64_t first; (first = __atomic_fetch_add(next, CLAIM_LANES, __ATOMIC_RELAXED)) < n_rows;) {
    const int64_t end = first + CLAIM_LANES < n_rows ? first + CLAIM_LANES : n_rows;
    for (int64_t at = first; at < end; at += LANES) {
      const int n = end - at < LANES ? (int)(end - at) : LANES;
      v8 given[3 * WIDEST] __attribute__((aligned(64))), step[WIDEST] __attribute__((aligned(64)));
      v8 *deviation = given + 2 * w, *scaled = given + w; /* after the slopes */
      into_lanes(slopes + at * slopes_stride, slopes_stride, n, (int)k, given);
      into_lanes(rows + at * width, width, n, w, scaled);
      if (w > k) given[k] = lanes_of(slope + at, n);
      const v8 c = lanes_of(count + at, n);
      if (prior_stride) into_lanes(prior + at * prior_stride, prior_stride, n, w, deviation);
      for (int i = 0; i < w; i++) {
        const v8 x = scaled[i];
        deviation[i] = prior_stride ? (x - deviation[i]) * noise : (x - prior[i]) * noise;
        scaled[i] = x * c;
      }
      if (w > k) scaled[k] = c;
      v8 along = {0}, bend = {0}, bend_of_uncertainty = {0};
      for (int j = 0; j < filled; j += TILE) {
        PRODUCT(3 * w, given, to_basis, filled)
        UNROLL for (int t = 0; t < TILE; t++) {
          v8 s = tile[t] / (c * curvature[j + t] + noise);
          along += tile[t] * s;
          bend += s * s;
          step[j + t] = s;
        }
      }
      for (int j = 0; j < filled; j += TILE) { /* above the diagonal alone, where all is twice what it is */
        PRODUCT(j + TILE < w ? j + TILE : w, step, uncertainty, filled)
        UNROLL for (int t = 0; t < TILE; t++) bend_of_uncertainty += tile[t] * step[j + t];
      }
      put(along, n, slope_along + at);
      put(bend * noise + bend_of_uncertainty * c, n, bend_along + at);
      for (int j = 0; j < filled; j += TILE) {
        PRODUCT(w, step, from_basis, filled)
        UNROLL for (int t = 0; t < TILE; t++) given[j + t] = tile[t];
      }
      out_of_lanes(given, n, (int)k, moves + at * k, k);
      if (w > k) put(given[k], n, move_biases + at);
    }
  }
}

/* Moments of rows, a part of PART rows after another, each of which has its own sums in `found`: the products of the rows less
   `reference`, a one after them, (width + 1)^2; the same with the weights `count`; and the variances noise / (count curvature + noise)
   summed over rows and over weights, (width) each. */
#define TOGETHER 32 /* vectors of a number that are summed together */
#define MOMENTS 6 /* products of a number found at once, without weights and with them */
EXPORT void moments(int64_t *next, int64_t n_rows, int64_t width, const float *rows, const float *reference, const float *count,
                    const float *curvature, const float *noise_of_all, float *found) {
  const int w = (int)width, n = w + 1, filled = (n + MOMENTS - 1) / MOMENTS * MOMENTS;
  const float noise = *noise_of_all;
  v8 Y[TOGETHER * WIDEST] __attribute__((aligned(32))), c[TOGETHER], is_row[TOGETHER];
  for (int64_t first; (first = __atomic_fetch_add(next, PART, __ATOMIC_RELAXED)) < n_rows;) {
    const int64_t end = first + PART < n_rows ? first + PART : n_rows;
    float *plain = found + first / PART * 2 * (n * n + w), *weighted = plain + n * n, *of_rows = weighted + n * n;
    float *of_weights = of_rows + w;
    for (int i = 0; i < 2 * (n * n + w); i++) plain[i] = 0;
    for (int64_t at = first; at < end; at += TOGETHER * LANES) {
      const int n_here = end - at < TOGETHER * LANES ? (int)(end - at) : TOGETHER * LANES;
      const int n_vectors = (n_here + LANES - 1) / LANES;
      for (int b = 0; b < n_vectors; b++) {
        const int m = n_here - b * LANES < LANES ? n_here - b * LANES : LANES;
        v8 *y = Y + b * filled, one = {0};
        for (int i = 0; i < m; i++) one[i] = 1;
        into_lanes(rows + (at + b * LANES) * width, width, m, w, y);
        for (int i = 0; i < w; i++) y[i] = (y[i] - reference[i]) * one;
        for (int i = n; i < filled; i++) y[i] = (v8){0};
        y[w] = is_row[b] = one;
        c[b] = lanes_of(count + at + b * LANES, m);
      }
      for (int i = 0; i < n; i++) {
        for (int j = i / MOMENTS * MOMENTS; j < n; j += MOMENTS) {
          v8 p[MOMENTS], q[MOMENTS];
          UNROLL for (int t = 0; t < MOMENTS; t++) p[t] = q[t] = (v8){0};
          for (int b = 0; b < n_vectors; b++) {
            const v8 *y = Y + b * filled, x = y[i], cx = c[b] * x;
            UNROLL for (int t = 0; t < MOMENTS; t++) {
              p[t] += x * y[j + t];
              q[t] += cx * y[j + t];
            }
          }
          for (int t = 0; t < MOMENTS && j + t < n; t++) {
            plain[i * n + j + t] += sum_of(p[t]);
            weighted[i * n + j + t] += sum_of(q[t]);
          }
        }
      }
      for (int j = 0; j < w; j++) {
        v8 all = {0}, by_weight = {0};
        for (int b = 0; b < n_vectors; b++) {
          const v8 v = is_row[b] * noise / (c[b] * curvature[j] + noise);
          all += v;
          by_weight += v * c[b];
        }
        of_rows[j] += sum_of(all);
        of_weights[j] += sum_of(by_weight);
      }
    }
    for (int i = 0; i < n; i++)
      for (int j = 0; j < i; j++) plain[i * n + j] = plain[j * n + i], weighted[i * n + j] = weighted[j * n + i];
  }
}
