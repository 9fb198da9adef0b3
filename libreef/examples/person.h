/* SPDX-License-Identifier: Apache-2.0 */
/* What the person detector's outputs mean. */
#ifndef PERSON_H
#define PERSON_H

enum { PERSON_INPUT = 224, PERSON_ANCHORS = 2254, PERSON_BOX = 12, PERSON_MAX = 16 };

struct person {
    float score; /* 0..1 */
    float x;     /* centre and size, as shares of the picture's width and height */
    float y;
    float width;
    float height;
};

/* boxes: PERSON_ANCHORS x PERSON_BOX, scores: PERSON_ANCHORS logits. Writes at most PERSON_MAX people with a score above
 * 0.5, the surest first, none covering another, and returns how many. */
int person_decode(const float *boxes, const float *scores, struct person people[PERSON_MAX]);

#endif
