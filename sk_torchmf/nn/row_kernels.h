/* What kernels.c does with rows, for vectors V of LANES floats, each lane a row. It is included once for each width of vectors. */

/* The first n numbers of rows, `stride` apart, into lanes. Of fewer rows than lanes the last fills those that are left. */
INLINE void OF_LANES(gather)(const float *rows, int64_t stride, int n_rows, int n, V *lanes) {
  for (int half = 0; half < LANES; half += 8) {
    const float *row[8];
    for (int i = 0; i < 8; i++) row[i] = rows + stride * (half + i < n_rows ? half + i : n_rows - 1);
    int j = 0;
    for (; j + 8 <= n; j += 8) {
      v8 r[8];
      UNROLL for (int i = 0; i < 8; i++) r[i] = *(const v8 *)(row[i] + j);
      turn8(r);
      UNROLL for (int i = 0; i < 8; i++) *(v8 *)((float *)(lanes + j + i) + half) = r[i];
    }
    for (; j < n; j++)
      for (int i = 0; i < 8; i++) ((float *)(lanes + j))[half + i] = row[i][j];
  }
}

/* The reverse. */
INLINE void OF_LANES(scatter)(const V *lanes, int n_rows, int n, float *rows, int64_t stride) {
  for (int half = 0; half < n_rows; half += 8) {
    const int m = n_rows - half < 8 ? n_rows - half : 8;
    int j = 0;
    for (; j + 8 <= n; j += 8) {
      v8 r[8];
      UNROLL for (int i = 0; i < 8; i++) r[i] = *(const v8 *)((const float *)(lanes + j + i) + half);
      turn8(r);
      for (int i = 0; i < m; i++) *(v8 *)(rows + stride * (half + i) + j) = r[i];
    }
    for (; j < n; j++)
      for (int i = 0; i < m; i++) rows[stride * (half + i) + j] = ((const float *)(lanes + j))[half + i];
  }
}

/* A number of each row into lanes, zeros where there are fewer rows; and out of them. */
INLINE V OF_LANES(lanes_of)(const float *numbers, int n_rows) {
  if (n_rows == LANES) return *(const V *)numbers;
  V lanes = {0};
  for (int i = 0; i < n_rows; i++) lanes[i] = numbers[i];
  return lanes;
}

INLINE void OF_LANES(put)(V lanes, int n_rows, float *numbers) {
  for (int i = 0; i < n_rows; i++) numbers[i] = lanes[i];
}

/* The sums over lanes of a vector, and of four. */
INLINE v8 OF_LANES(folded)(V lanes) {
  const v8 *parts = (const v8 *)&lanes;
  return LANES == 8 ? parts[0] : parts[0] + parts[LANES / 8 - 1];
}

INLINE float OF_LANES(total)(V lanes) { return sum_of(OF_LANES(folded)(lanes)); }

INLINE v4 OF_LANES(totals)(V a, V b, V c, V d) {
  return sums_of(OF_LANES(folded)(a), OF_LANES(folded)(b), OF_LANES(folded)(c), OF_LANES(folded)(d));
}

/* A tile of the products of n vectors with the rows of a matrix that has `filled` columns. */
#define PRODUCT(n, vectors, matrix) \
  V tile[TILE]; \
  UNROLL for (int t = 0; t < TILE; t++) tile[t] = (V){0}; \
  for (int i = 0; i < (n); i++) { \
    const float *row = (matrix) + i * filled + j; \
    const V x = (vectors)[i]; \
    UNROLL for (int t = 0; t < TILE; t++) tile[t] += x * row[t]; \
  }

#define CLAIMED(size) \
  for (int64_t first; (first = __atomic_fetch_add(next, size, __ATOMIC_RELAXED)) < n_rows;) { \
    const int n_here = n_rows - first < (size) ? (int)(n_rows - first) : (size);

INLINE void OF_LANES(steps)(STEPS) {
  const int w = (int)width, filled = (w + TILE - 1) / TILE * TILE;
  const float *uncertainty = table + 3 * w * filled, *from_basis = uncertainty + w * filled, *curvature = from_basis + w * filled;
  const float noise = numbers[0];
  CLAIMED(LANES * 16)
    for (int64_t at = first; at < first + n_here; at += LANES) {
      const int n = first + n_here - at < LANES ? (int)(first + n_here - at) : LANES;
      V given[3 * WIDEST] ALIGNED, found[WIDEST] ALIGNED;
      V *scaled = given + w, *deviation = given + 2 * w; /* after the slopes */
      const V c = OF_LANES(lanes_of)(count + at, n);
      OF_LANES(gather)(slopes + at * slopes_stride, slopes_stride, n, (int)k, given);
      OF_LANES(gather)(factors + at * k, k, n, (int)k, scaled);
      if (biases) given[k] = OF_LANES(lanes_of)(slope + at, n), scaled[k] = OF_LANES(lanes_of)(biases + at, n);
      if (prior_stride) OF_LANES(gather)(prior + at * prior_stride, prior_stride, n, w, deviation);
      for (int i = 0; i < w; i++) {
        const V x = scaled[i];
        deviation[i] = prior_stride ? (x - deviation[i]) * noise : (x - prior[i]) * noise;
        scaled[i] = x * c;
      }
      if (biases) scaled[k] = c;
      V slope_along = {0}, bend_of_prior = {0}, bend_of_uncertainty = {0}, turned = {0};
      for (int j = 0; j < filled; j += TILE) {
        PRODUCT(3 * w, given, table)
        UNROLL for (int t = 0; t < TILE; t++) {
          const V s = tile[t] / (c * curvature[j + t] + noise);
          slope_along += tile[t] * s;
          bend_of_prior += s * s;
          found[j + t] = s;
        }
      }
      for (int j = 0; j < filled; j += TILE) { /* it has nothing below the diagonal */
        PRODUCT(j + TILE < w ? j + TILE : w, found, uncertainty)
        UNROLL for (int t = 0; t < TILE; t++) bend_of_uncertainty += tile[t] * found[j + t];
      }
      OF_LANES(put)(slope_along, n, along + at);
      OF_LANES(put)(bend_of_prior * noise + bend_of_uncertainty * c, n, bend + at);
      for (int j = 0; j < filled; j += TILE) {
        PRODUCT(w, found, from_basis)
        UNROLL for (int t = 0; t < TILE; t++) {
          turned += given[j + t] * tile[t]; /* beyond the slopes times zero */
          given[j + t] = tile[t];
        }
      }
      OF_LANES(put)(turned, n, turn + at);
      OF_LANES(scatter)(given, n, (int)k, moves + at * k, k);
      if (biases) OF_LANES(put)(given[k], n, move_biases + at);
    }
  }
}

#define TOGETHER (256 / LANES) /* vectors of a number that are summed together */
#define MOMENTS 6 /* products of a number found at once, without weights and with them */
INLINE void OF_LANES(moments)(MOMENTS_OF) {
  const int w = (int)width, n = w + 1, filled = (n + MOMENTS - 1) / MOMENTS * MOMENTS;
  const float noise = numbers[0];
  V Y[TOGETHER * WIDEST] ALIGNED, c[TOGETHER], is_row[TOGETHER];
  CLAIMED(PART)
    float *plain = found + first / PART * 2 * (n * filled + w), *weighted = plain + n * filled, *of_rows = weighted + n * filled;
    float *of_weights = of_rows + w;
    for (int i = 0; i < 2 * (n * filled + w); i++) plain[i] = 0;
    for (int at = 0; at < n_here; at += TOGETHER * LANES) {
      const int n_left = n_here - at < TOGETHER * LANES ? n_here - at : TOGETHER * LANES;
      const int n_vectors = (n_left + LANES - 1) / LANES;
      for (int b = 0; b < n_vectors; b++) {
        const int m = n_left - b * LANES < LANES ? n_left - b * LANES : LANES;
        const int64_t row = first + at + b * LANES;
        V *y = Y + b * filled, one = {0};
        for (int i = 0; i < m; i++) one[i] = 1;
        OF_LANES(gather)(factors + row * k, k, m, (int)k, y);
        if (biases) y[k] = OF_LANES(lanes_of)(biases + row, m);
        for (int i = 0; i < w; i++) y[i] = (y[i] - reference[i]) * one;
        for (int i = n; i < filled; i++) y[i] = (V){0};
        y[w] = is_row[b] = one;
        c[b] = OF_LANES(lanes_of)(count + row, m);
      }
      for (int i = 0; i < n; i++) {
        for (int j = i / MOMENTS * MOMENTS; j < n; j += MOMENTS) {
          V p[MOMENTS], q[MOMENTS];
          UNROLL for (int t = 0; t < MOMENTS; t++) p[t] = q[t] = (V){0};
          for (int b = 0; b < n_vectors; b++) {
            const V *y = Y + b * filled, x = y[i], cx = c[b] * x;
            UNROLL for (int t = 0; t < MOMENTS; t++) {
              p[t] += x * y[j + t];
              q[t] += cx * y[j + t];
            }
          }
          float *one = plain + i * filled + j, *other = weighted + i * filled + j;
          *(v4 *)one += OF_LANES(totals)(p[0], p[1], p[2], p[3]);
          *(v4 *)other += OF_LANES(totals)(q[0], q[1], q[2], q[3]);
          const v4 rest = OF_LANES(totals)(p[4], p[5], q[4], q[5]);
          one[4] += rest[0], one[5] += rest[1], other[4] += rest[2], other[5] += rest[3];
        }
      }
      for (int j = 0; j < w; j++) {
        V all = {0}, by_weight = {0};
        for (int b = 0; b < n_vectors; b++) {
          const V v = is_row[b] * noise / (c[b] * curvature[j] + noise);
          all += v;
          by_weight += v * c[b];
        }
        of_rows[j] += OF_LANES(total)(all);
        of_weights[j] += OF_LANES(total)(by_weight);
      }
    }
    for (int i = 0; i < n; i++)
      for (int j = 0; j < i; j++) plain[i * filled + j] = plain[j * filled + i], weighted[i * filled + j] = weighted[j * filled + i];
  }
}

#undef TOGETHER
#undef MOMENTS
#undef CLAIMED
#undef PRODUCT
