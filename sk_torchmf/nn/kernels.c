/* Kernels on observed pairs in CSR form, for float32 on the CPU. They know arrays only: neither Python nor threads.

   Rows are contiguous, k floats each, k a multiple of 8 up to 128. A call works on rows until none is left; `next`, shared by all
   callers, is the first row that nobody has claimed. All of a row is found by one caller, pair after pair, so that results do not
   depend on how many callers there are. Where it says so, an array may be NULL. */

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
  int n_vectors, int64_t *next, int64_t n_rows, int64_t n_pairs, const int32_t *pointers, const int32_t *columns, const float *P, \
      const float *Q

EXPORT int kernels_version(void) { return 1; }

EXPORT void gradient(ROWS, const float *b, const float *c, const float *rating, const float *weight, float *sums, float *slopes, float *squares) {
  OVER_ROWS(gradient_of, n_pairs, pointers, columns, P, Q, b, c, rating, weight, sums, slopes, squares)
}

EXPORT void squares(ROWS, const float *b, const float *weight, float *found) {
  OVER_ROWS(squares_of, n_pairs, pointers, columns, P, Q, b, weight, found)
}

EXPORT void dots(ROWS, float *values) {
  OVER_ROWS(dots_of, n_pairs, pointers, columns, P, Q, values)
}
