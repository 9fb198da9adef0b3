/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a PPM and resizes pictures: a separable bicubic filter whose weights are computed once. */
#include "picture.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int picture_read(const char *path, struct picture *picture) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return -errno;
    }
    int rc = -EINVAL;
    int width = 0, height = 0, depth = 0;
    if (fscanf(file, "P6 %d %d %d", &width, &height, &depth) == 3 && fgetc(file) != EOF && depth == 255 && width > 0 &&
        height > 0 && width <= 16384 && height <= 16384) {
        const size_t size = (size_t)width * (size_t)height * 3;
        uint8_t *rgb = malloc(size);
        rc = rgb == NULL ? -ENOMEM : fread(rgb, 1, size, file) == size ? 0 : -EIO;
        if (rc == 0) {
            *picture = (struct picture){width, height, rgb};
        } else {
            free(rgb);
        }
    }
    fclose(file);
    return rc;
}

/* One axis of the filter: output i is the sum of input first[i] + k times weight[i * taps + k]. */
struct axis {
    int taps;
    int *first;
    float *weight;
};

struct resizer {
    int size;
    struct axis vertical;
    struct axis horizontal;
    int height;
    uint8_t *narrow; /* height rows, already resized horizontally */
    float *line;     /* one resized row */
};

/* Catmull-Rom's cousin with a = -0.5. */
static double cubic(double x) {
    x = fabs(x);
    if (x < 1) {
        return (1.5 * x - 2.5) * x * x + 1;
    }
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static int axis_init(struct axis *axis, int from, int to) {
    const double scale = (double)from / to;
    const double stretch = scale > 1 ? scale : 1; /* the filter grows with the reduction, so that no pixel is skipped */
    axis->taps = (int)ceil(4 * stretch) + 1;
    if (axis->taps > from) {
        axis->taps = from;
    }
    axis->first = calloc((size_t)to, sizeof *axis->first);
    axis->weight = calloc((size_t)to * (size_t)axis->taps, sizeof *axis->weight);
    if (axis->first == NULL || axis->weight == NULL) {
        return -ENOMEM;
    }
    for (int i = 0; i < to; i++) {
        const double centre = (i + 0.5) * scale;
        int first = (int)(centre - 2 * stretch + 0.5);
        first = first < 0 ? 0 : first;
        first = first > from - axis->taps ? from - axis->taps : first;
        float *weight = axis->weight + (size_t)i * (size_t)axis->taps;
        double sum = 0;
        for (int k = 0; k < axis->taps; k++) {
            sum += cubic((first + k + 0.5 - centre) / stretch);
        }
        for (int k = 0; k < axis->taps; k++) {
            weight[k] = (float)(cubic((first + k + 0.5 - centre) / stretch) / sum);
        }
        axis->first[i] = first;
    }
    return 0;
}

struct resizer *resizer_new(int width, int height, int size) {
    struct resizer *resizer = calloc(1, sizeof *resizer);
    if (resizer == NULL) {
        return NULL;
    }
    resizer->size = size;
    resizer->height = height;
    resizer->narrow = malloc((size_t)height * (size_t)size * 3);
    resizer->line = malloc((size_t)size * 3 * sizeof *resizer->line);
    if (resizer->narrow == NULL || resizer->line == NULL || axis_init(&resizer->vertical, height, size) != 0 ||
        axis_init(&resizer->horizontal, width, size) != 0) {
        resizer_free(resizer);
        return NULL;
    }
    return resizer;
}

/* Image libraries deliver whole numbers between the passes too; bicubic overshoots at edges. */
static uint8_t whole(float value) { return (uint8_t)(fminf(fmaxf(value, 0), 255) + 0.5f); }

void resizer_run(const struct resizer *resizer, const struct picture *picture, float *planes) {
    const int size = resizer->size, row = size * 3;
    const struct axis *horizontal = &resizer->horizontal, *vertical = &resizer->vertical;
    for (int y = 0; y < resizer->height; y++) {
        const uint8_t *line = picture->rgb + (size_t)y * (size_t)picture->width * 3;
        uint8_t *narrow = resizer->narrow + (size_t)y * (size_t)row;
        for (int x = 0; x < size; x++) {
            const float *weight = horizontal->weight + x * horizontal->taps;
            const uint8_t *pixel = line + horizontal->first[x] * 3;
            float red = 0, green = 0, blue = 0;
            for (int k = 0; k < horizontal->taps; k++, pixel += 3) {
                red += weight[k] * pixel[0];
                green += weight[k] * pixel[1];
                blue += weight[k] * pixel[2];
            }
            narrow[3 * x] = whole(red);
            narrow[3 * x + 1] = whole(green);
            narrow[3 * x + 2] = whole(blue);
        }
    }
    for (int y = 0; y < size; y++) {
        float *restrict line = resizer->line;
        memset(line, 0, (size_t)row * sizeof *line);
        for (int k = 0; k < vertical->taps; k++) {
            const float weight = vertical->weight[y * vertical->taps + k];
            const uint8_t *restrict narrow = resizer->narrow + (size_t)(vertical->first[y] + k) * (size_t)row;
            for (int i = 0; i < row; i++) {
                line[i] += weight * narrow[i];
            }
        }
        for (int x = 0; x < size; x++) {
            for (int c = 0; c < 3; c++) {
                planes[(c * size + y) * size + x] = whole(line[3 * x + c]) / 127.5f - 1;
            }
        }
    }
}

void resizer_free(struct resizer *resizer) {
    if (resizer != NULL) {
        free(resizer->vertical.first);
        free(resizer->vertical.weight);
        free(resizer->horizontal.first);
        free(resizer->horizontal.weight);
        free(resizer->narrow);
        free(resizer->line);
        free(resizer);
    }
}
