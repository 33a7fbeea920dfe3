// The code of tile_avxvnni.cpp in the encoding of AVX-512, so that it is tested on processors that lack
// AVX-VNNI. Never chosen unless asked for.
#define VNNI256_KERNEL kAvx512Vnni256
#define VNNI256_NAME "avx512vnni256"
#define VNNI256_PREFIX "%{evex%} "
#include "tile_vnni256.h"
