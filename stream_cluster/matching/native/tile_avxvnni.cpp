// AVX-VNNI, the 256-bit form of VNNI on processors without AVX-512.
#define VNNI256_KERNEL kAvxVnni
#define VNNI256_NAME "avxvnni"
#define VNNI256_PREFIX "%{vex%} "
#include "tile_vnni256.h"
