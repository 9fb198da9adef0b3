// SPDX-License-Identifier: Apache-2.0
// A damaged region is refused with a reason; nothing of it is used before it was checked.
#include "harness.h"

static void expect(const char *how, int error) {
    if (chdir(need("REEF_TEST_DIR")) ||
        system("rm -f *.c *.d")) /* so that no peer adopts what its predecessor damaged */
        finish(1);
    char option[64], reason[REEF_TEXT_MAX] = "";
    snprintf(option, sizeof option, "--corrupt=%s", how);
    START_PEER(option);
    struct reef_open_params given = params(0);
    reef_session *session = NULL;
    given.reason = reason;
    int rc = reef_open(&given, &session);
    if (rc != error)
        fprintf(stderr, "%s: %d %s\n", how, rc, reason);
    EQUAL(rc, error);
    CHECK(reason[0]);
    reef_close(session);
    peer_kill();
}

int main(void) {
    begin();
    static const char *const bad[] = {"crc",
                                      "bit",
                                      "magic",
                                      "header-size-small",
                                      "header-size-huge",
                                      "session",
                                      "c-size",
                                      "d-size",
                                      "file",
                                      "no-slots",
                                      "many-slots",
                                      "entries",
                                      "entries-odd",
                                      "no-models",
                                      "many-models",
                                      "many-tensors",
                                      "more-tensors",
                                      "sq-far",
                                      "sq-wrap",
                                      "sq-unaligned",
                                      "sq-on-hot",
                                      "slots-on-sq",
                                      "inputs-unaligned",
                                      "inputs-stride",
                                      "inputs-stride-small",
                                      "inputs-stride-odd",
                                      "cq-far",
                                      "cq-on-hot",
                                      "d-slots-far",
                                      "models-far",
                                      "tensors-far",
                                      "outputs-far",
                                      "outputs-stride",
                                      "class",
                                      "policy",
                                      "flags",
                                      "task",
                                      "model-name",
                                      "model-inputs",
                                      "model-first",
                                      "tensor-name",
                                      "tensor-dtype",
                                      "tensor-dtype-huge",
                                      "tensor-rank",
                                      "tensor-rank-huge",
                                      "tensor-shape",
                                      "tensor-shape-wrap",
                                      "tensor-offset",
                                      "tensor-offset-wrap",
                                      "tensor-unaligned",
                                      "tail",
                                      "head"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect(bad[i], -EBADMSG);
    expect("major", -EPROTONOSUPPORT);
    expect("feature", -EPROTONOSUPPORT);
    START_PEER("--read-only");
    reef_session *session = open_session(0);
    struct reef_loan loan = loan_of(session, 0);
    EQUAL(reef_submit(session, &loan, NULL), -EROFS);
    reef_close(session);
    finish(0);
}
