// The instruction sets: which this processor has, and which one is used.
#pragma once

#include <string>
#include <vector>

#include "tile.h"

namespace stream_cluster {

// Those that run on this processor, the fastest first; "portable" is always among them.
std::vector<std::string> available_paths();

// The kernel of a path. An empty name means what the environment variable STREAM_CLUSTER_KERNEL asks for, or
// else the fastest. Throws std::invalid_argument for one that this processor or this build does not have.
const TileKernel& kernel_of(const std::string& path);

} // namespace stream_cluster
