// SPDX-License-Identifier: Apache-2.0
// Both implementations of CRC-32C give the published values (RFC 3720, B.4) and agree at every length and alignment.
// Compiled with libreef's sources: these functions are not exported.
#include "harness.h"

#include "../../../libreef/src/session.h"

int main(void) {
    uint8_t bytes[4096];
    crc_function all[] = {crc32c_table, crc32c_best()};
    for (int f = 0; f < 2; f++) {
        EQUAL(all[f]("123456789", 9), 0xe3069283);
        EQUAL(all[f](memset(bytes, 0, 32), 32), 0x8a9136aa);
        EQUAL(all[f](memset(bytes, 0xff, 32), 32), 0x62a8ab43);
        for (int i = 0; i < 32; i++)
            bytes[i] = (uint8_t)i;
        EQUAL(all[f](bytes, 32), 0x46dd794e);
        for (int i = 0; i < 32; i++)
            bytes[i] = (uint8_t)(31 - i);
        EQUAL(all[f](bytes, 32), 0x113fdb5c);
        EQUAL(all[f](bytes, 0), 0);
    }
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i * 13 + i);
    for (unsigned length = 0; length < 200; length++)
        for (unsigned start = 0; start < 9; start++)
            EQUAL(all[0](bytes + start, length), all[1](bytes + start, length));
    return 0;
}
