/* Kernels on observed pairs in CSR form and on rows, for float32 on the CPU. They know arrays only: neither Python nor threads.

   A call works on rows until none is left; `next`, shared by all callers, is the first row that nobody has claimed. All of a row is
   found by one caller, pair after pair, so that results do not depend on how many callers there are. Rows of the kernels on pairs
   are contiguous, k floats each, k a multiple of 8 up to 128. Where it says so, an array may be NULL. */

#include <stdint.h>

typedef float v16 __attribute__((vector_size(64), aligned(4)));
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
#ifdef CLONES /* code for newer processors beside that for all of them */
#define EXPORT __attribute__((target_clones("arch=x86-64-v3", "default")))
#define WIDE __attribute__((target("arch=x86-64-v4"))) static
#define HAS_WIDE __builtin_cpu_supports("x86-64-v4")
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

/* What is done with rows by vectors of which each lane is a row. A row has `width` numbers, up to 129: k factors and, with biases,
   one more; `biases` is NULL without. `numbers` begin with the noise. */

#define WIDEST 132 /* numbers of a row, and what fills the last tile */
#define TILE 12 /* vectors that a product finds at once */
#define PART 2048 /* rows whose moments are one sum */
#define ROWS_AT_ONCE 64 /* rows whose half-step is made while what was read for it is in the cache */
#define ALIGNED __attribute__((aligned(64)))

/* Turns eight vectors, which are rows, into columns. */
INLINE void turn8(v8 *r) {
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

/* Newton steps, see nn/row_steps.py. With `filled` for the width filled up to tiles by zeros, `table` is a Frame's, (5 width + 1,
   filled); `prior` has rows `prior_stride` apart, 0 where all are alike. */
#define STEPS \
  int64_t *next, int64_t n_rows, int64_t k, int64_t width, int64_t prior_stride, int64_t slopes_stride, const float *factors, \
      const float *biases, const float *prior, const float *slopes, const float *slope, const float *count, const float *table, \
      const float *numbers, float *moves, float *move_biases, float *along, float *bend, float *turn

/* Moments of rows, a part of PART rows after another, each of which has its own sums in `found`: the products of the rows less
   `reference`, a one after them, with themselves, (width + 1, width + 1 filled up to a tile); the same with the weights `count`; and
   the variances noise / (count curvature + noise) summed over rows and over weights, (width) each. */
#define MOMENTS_OF \
  int64_t *next, int64_t n_rows, int64_t width, int64_t k, const float *factors, const float *biases, const float *reference, \
      const float *count, const float *curvature, const float *numbers, float *found

#define V v8
#define LANES 8
#define OF_LANES(name) name##_8
#include "row_kernels.h"
#undef V
#undef LANES
#undef OF_LANES
#ifdef WIDE
#define V v16
#define LANES 16
#define OF_LANES(name) name##_16
#include "row_kernels.h"
#define BY_LANES(name, PARAMETERS, ...) \
  WIDE void wide_##name(PARAMETERS) { name##_16(__VA_ARGS__); } \
  EXPORT void narrow_##name(PARAMETERS) { name##_8(__VA_ARGS__); } \
  void name(PARAMETERS) { HAS_WIDE ? wide_##name(__VA_ARGS__) : narrow_##name(__VA_ARGS__); }
#else
#define BY_LANES(name, PARAMETERS, ...) \
  void name(PARAMETERS) { name##_8(__VA_ARGS__); }
#endif

BY_LANES(steps, STEPS, next, n_rows, k, width, prior_stride, slopes_stride, factors, biases, prior, slopes, slope, count, table,
         numbers, moves, move_biases, along, bend, turn)
BY_LANES(moments, MOMENTS_OF, next, n_rows, width, k, factors, biases, reference, count, curvature, numbers, found)

/* A half-step of the squared error, from the pairs to where the rows are then. `numbers` are the noise, what is added to all scores,
   and the longest step; `errors` are the squared ones after it, summed. c and weight may be NULL. */
EXPORT void half_step(int64_t *next, int64_t n_rows, int64_t n_vectors, int64_t n_pairs, int64_t width, int64_t prior_stride,
                      const int32_t *pointers, const int32_t *columns, float *factors, float *biases, const float *Q, const float *c,
                      const float *rating, const float *weight, const float *prior, const float *count, const float *table,
                      const float *numbers, float *errors) {
  const int64_t k = 8 * n_vectors;
  float slopes[ROWS_AT_ONCE * 8 * LARGEST] ALIGNED, moves[ROWS_AT_ONCE * 8 * LARGEST] ALIGNED;
  float b[ROWS_AT_ONCE], slope[ROWS_AT_ONCE], move_biases[ROWS_AT_ONCE];
  float along[ROWS_AT_ONCE], bend[ROWS_AT_ONCE], turn[ROWS_AT_ONCE], moved[ROWS_AT_ONCE];
  for (int64_t first; (first = __atomic_fetch_add(next, ROWS_AT_ONCE, __ATOMIC_RELAXED)) < n_rows;) {
    const int n = n_rows - first < ROWS_AT_ONCE ? (int)(n_rows - first) : ROWS_AT_ONCE;
    const int32_t *own_pointers = pointers + first;
    float *P = factors + first * k, *own = biases ? biases + first : 0;
    for (int i = 0; own && i < n; i++) b[i] = own[i] + numbers[1];
    int64_t done = 0;
    gradient(&done, n, n_vectors, n_pairs, own_pointers, columns, P, Q, own ? b : 0, c, rating, weight, slopes, slope, errors + first);
    done = 0;
    steps(&done, n, k, width, prior_stride, k, P, own, prior + first * prior_stride, slopes, slope, count + first, table, numbers, moves,
          move_biases, along, bend, turn);
    done = 0;
    squares(&done, n, n_vectors, n_pairs, own_pointers, columns, moves, Q, own ? move_biases : 0, weight, moved);
    for (int i = 0; i < n; i++) {
      const float by = moved[i] + bend[i], to = along[i] / (by < 1e-30f ? 1e-30f : by);
      const float length = to > numbers[2] ? numbers[2] : to; /* what is not a number stays so */
      for (int j = 0; j < k; j++) P[i * k + j] -= length * moves[i * k + j];
      if (own) own[i] -= length * move_biases[i];
      errors[first + i] += length * (length * moved[i] - 2 * turn[i]);
    }
  }
}
