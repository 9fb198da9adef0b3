/* SPDX-License-Identifier: Apache-2.0 */
/* Decodes the person detector: anchors, sigmoid, non-maximum suppression. */
#include "person.h"

#include <math.h>
#include <stdlib.h>

/* The detector looks at the picture through three grids; each cell of a grid has some anchors at its centre. */
static const struct {
    int cells;
    int anchors;
} grids[] = {{PERSON_INPUT / 8, 2}, {PERSON_INPUT / 16, 2}, {PERSON_INPUT / 32, 6}};

static int by_score(const void *a, const void *b) {
    const float difference = ((const struct person *)b)->score - ((const struct person *)a)->score;
    return (difference > 0) - (difference < 0);
}

static float overlap(float a, float a_length, float b, float b_length) {
    const float low = fmaxf(a - a_length / 2, b - b_length / 2);
    const float high = fminf(a + a_length / 2, b + b_length / 2);
    return fmaxf(high - low, 0);
}

/* Intersection over union. */
static float similarity(const struct person *a, const struct person *b) {
    const float both = overlap(a->x, a->width, b->x, b->width) * overlap(a->y, a->height, b->y, b->height);
    const float either = a->width * a->height + b->width * b->height - both;
    return either > 0 ? both / either : 0;
}

int person_decode(const float *boxes, const float *scores, struct person people[PERSON_MAX]) {
    struct person candidates[128];
    const int room = sizeof candidates / sizeof *candidates;
    int found = 0;
    for (unsigned g = 0; g < sizeof grids / sizeof *grids; g++) {
        const int cells = grids[g].cells;
        for (int i = 0; i < cells * cells * grids[g].anchors; i++, boxes += PERSON_BOX, scores++) {
            if (*scores > 0 && found < room) { /* a logit above 0 is a score above 0.5 */
                const int cell = i / grids[g].anchors;
                candidates[found++] = (struct person){
                    .score = 1 / (1 + expf(-*scores)),
                    .x = ((float)(cell % cells) + 0.5f) / (float)cells + boxes[0] / PERSON_INPUT,
                    .y = ((float)(cell / cells) + 0.5f) / (float)cells + boxes[1] / PERSON_INPUT,
                    .width = boxes[2] / PERSON_INPUT,
                    .height = boxes[3] / PERSON_INPUT,
                };
            }
        }
    }
    qsort(candidates, (size_t)found, sizeof *candidates, by_score);

    int kept = 0;
    for (int i = 0; i < found && kept < PERSON_MAX; i++) {
        int covered = 0;
        for (int k = 0; k < kept && !covered; k++) {
            covered = similarity(&candidates[i], &people[k]) > 0.3f;
        }
        if (!covered) {
            people[kept++] = candidates[i];
        }
    }
    return kept;
}
