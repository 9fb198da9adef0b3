/* SPDX-License-Identifier: Apache-2.0 */
#include <reef.h>
int main(void) { return reef_version() == NULL; }
