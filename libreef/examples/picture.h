/* SPDX-License-Identifier: Apache-2.0 */
/* A camera's picture: reading one from a file, and resizing it into the tensor of a network. */
#ifndef PICTURE_H
#define PICTURE_H

#include <stdint.h>

struct picture {
    int width;
    int height;
    uint8_t *rgb; /* height x width x 3 */
};

/* Reads a binary PPM (P6, 8 bits). 0 or a negative errno. */
int picture_read(const char *path, struct picture *picture);

struct resizer;

/* Prepares resizing from width x height to size x size. NULL: no memory. */
struct resizer *resizer_new(int width, int height, int size);

/* Writes the picture as 3 planes of size x size, scaled from 0..255 to -1..1: the input that MediaPipe's detectors want.
 * Bicubic, and averaging over all pixels that shrink into one, as Pillow's BICUBIC does. */
void resizer_run(const struct resizer *resizer, const struct picture *picture, float *planes);

void resizer_free(struct resizer *resizer);

#endif
