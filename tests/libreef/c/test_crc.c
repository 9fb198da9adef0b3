// SPDX-License-Identifier: Apache-2.0
// Both implementations of CRC-32C give the published values (RFC 3720, B.4) and agree at every length and alignment.
// Long ones go through the instruction in three streams. Compiled with libreef's sources: these functions are not exported.
#include "harness.h"

#include "../../../libreef/src/session.h"

int main(void) {
    uint8_t bytes[4096];
    crc_function all[] = {crc32c_table, crc32c_best()};
    for (int f = 0; f < 2; f++) {
        EQUAL(all[f](0, "123456789", 9), 0xe3069283);
        EQUAL(all[f](0, memset(bytes, 0, 32), 32), 0x8a9136aa);
        EQUAL(all[f](0, memset(bytes, 0xff, 32), 32), 0x62a8ab43);
        for (int i = 0; i < 32; i++)
            bytes[i] = (uint8_t)i;
        EQUAL(all[f](0, bytes, 32), 0x46dd794e);
        for (int i = 0; i < 32; i++)
            bytes[i] = (uint8_t)(31 - i);
        EQUAL(all[f](0, bytes, 32), 0x113fdb5c);
        EQUAL(all[f](0, bytes, 0), 0);
    }
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i * 13 + i);
    for (unsigned length = 0; length < 200; length++)
        for (unsigned start = 0; start < 9; start++)
            EQUAL(all[0](0, bytes + start, length), all[1](0, bytes + start, length));
    static uint8_t many[20000];
    for (unsigned i = 0; i < sizeof many; i++)
        many[i] = (uint8_t)(i * i * 7 + (i >> 5));
    for (unsigned length = 3000; length < sizeof many - 8; length += 517)
        for (int f = 0; f < 2; f++) {
            uint32_t whole = all[0](0, many + length % 7, length);
            EQUAL(all[f](0, many + length % 7, length), whole);
            unsigned first = length / 3;
            EQUAL(all[f](all[1 - f](0, many + length % 7, first), many + length % 7 + first, length - first), whole);
        }
    return 0;
}
