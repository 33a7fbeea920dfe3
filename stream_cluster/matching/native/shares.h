// Work on a range of rows, shared by threads.
#pragma once

#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "tile.h"

namespace stream_cluster {

// Calls `work(first, last)` for shares of 0 .. count - 1 that begin with a block, one for each thread; waits for
// all of them and rethrows what one of them ended with.
template <class Share>
void for_each_share(uint32_t count, int threads, Share work) {
    const uint32_t blocks = (count + kBlockRows - 1) / kBlockRows;
    const auto shares = uint32_t(threads < 1 ? 1 : threads);
    const uint32_t size = (blocks + shares - 1) / shares * kBlockRows;
    std::vector<std::thread> helpers;
    std::vector<std::exception_ptr> errors(shares);
    const auto run = [&](uint32_t share) {
        const uint32_t first = share * size;
        const uint32_t last = count - first < size ? count : first + size;
        try {
            work(first, last);
        } catch (...) {
            errors[share] = std::current_exception();
        }
    };
    for (uint32_t share = 1; share < shares && share * size < count; ++share) helpers.emplace_back(run, share);
    if (count) run(0);
    for (auto& helper : helpers) helper.join();
    for (const auto& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

} // namespace stream_cluster
