// SPDX-License-Identifier: Apache-2.0
// Models and tensors are described, inputs and outputs lie where they should, and answers are right, for every slot.
#include "harness.h"

int main(void) {
    begin();
    START_PEER("--bytes=602112");
    reef_session *session = open_session(0);
    struct reef_model_info model;
    struct reef_tensor_info tensor;
    EQUAL(reef_model_count(session), 2);
    EQUAL(reef_model_find(session, "pair"), 1);
    EQUAL(reef_model_find(session, "nothing"), -ENOENT);
    EQUAL(reef_model_info(session, 1, &model), 0);
    CHECK(strcmp(model.name, "pair") == 0 && model.inputs == 2 && model.outputs == 2);
    EQUAL(reef_model_info(session, 2, &model), -EINVAL);
    EQUAL(reef_input_info(session, 1, 0, &tensor), 0);
    CHECK(strcmp(tensor.name, "a") == 0 && tensor.dtype == REEF_INT32 && tensor.rank == 2 && tensor.size == 24);
    CHECK(tensor.shape[0] == 2 && tensor.shape[1] == 3);
    EQUAL(reef_output_info(session, 1, 0, &tensor), 0);
    CHECK(strcmp(tensor.name, "sum") == 0 && tensor.dtype == REEF_FLOAT64 && tensor.rank == 0 && tensor.size == 8);
    EQUAL(reef_input_info(session, 1, 2, &tensor), -EINVAL);
    EQUAL(reef_output_info(session, 0, 1, &tensor), -EINVAL);
    EQUAL(reef_header(session)->slots, 4);
    CHECK(strcmp(reef_header(session)->task, "test") == 0);

    struct reef_loan loans[4];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            EQUAL(reef_loan(session, 0, 0, &loans[i]), 0);
            CHECK((uintptr_t)reef_input(session, &loans[i], 0) % REEF_PAGE == 0);
            CHECK((uintptr_t)reef_output(session, &loans[i], 0) % REEF_PAGE == 0);
            fill(session, &loans[i], (uint32_t)(round * 4 + i));
        }
        for (int i = 3; i >= 0; i--) {
            struct reef_completion done;
            struct reef_options options = {.user_data = 77, .data_id = 5};
            EQUAL(reef_infer(session, &loans[i], &options, LONG_TIME, &done), 0);
            EQUAL(done.user_data, 77);
            EQUAL(done.slot, loans[i].slot);
            EQUAL(done.generation, loans[i].generation);
            CHECK(done.accept_ns && done.start_ns >= done.accept_ns && done.end_ns >= done.start_ns);
        }
        for (int i = 0; i < 4; i++) {
            CHECK(echoed(session, &loans[i], (uint32_t)(round * 4 + i)));
            EQUAL(reef_release(session, &loans[i]), 0);
        }
    }
    struct reef_loan loan = loan_of(session, 1);
    int32_t *a = (int32_t *)reef_input(session, &loan, 0);
    for (int i = 0; i < 6; i++)
        a[i] = i * 1000 - 7;
    memcpy(reef_input(session, &loan, 1), "reefs", 5);
    EQUAL(reef_infer(session, &loan, NULL, LONG_TIME, NULL), 0);
    CHECK(*(const double *)reef_output(session, &loan, 0) == 14958.0);
    CHECK(memcmp(reef_output(session, &loan, 1), "reefs", 5) == 0);
    CHECK(reef_input(session, &loan, 2) == NULL && reef_output(session, &loan, 2) == NULL);
    struct reef_stats stats;
    EQUAL(reef_stats(session, &stats), 0);
    EQUAL(stats.accepted, 13);
    EQUAL(stats.completed, 13);
    reef_close(session);
    finish(0);
}
