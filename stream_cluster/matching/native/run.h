// A search under way: its threads, and the chunks of hits that wait for the caller.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "match.h"

namespace stream_cluster {

// Hits first .. first + count - 1 of some that are shared by the chunks cut from them.
struct HitChunk {
    std::shared_ptr<Hits> hits;
    size_t first = 0;
    size_t count = 0;
};

// Pulled by one caller, whose thread works too: with one thread no other is started, and however slow the
// caller is, at most a few chunks exist at a time, because the other threads wait when nobody takes theirs.
class Run {
public:
    // Starts threads - 1 others, fewer when there is little to do. The sources of the plan are owned.
    Run(std::unique_ptr<Source> queries, std::unique_ptr<Source> rows, Plan plan, int threads, size_t max_hits);
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    // Work until there is a chunk of at most `max_hits` hits, or the time is up, or all is done; false
    // unless there is a chunk. Rethrows what another thread ended with (std::bad_alloc).
    bool next(double timeout_s, HitChunk& chunk);

    bool done() const { return done_; }                    // no chunk will come any more
    double progress() const { return work_.progress(); }   // share of the pairs compared
    void stop();                                           // end the other threads; waits for them
    int threads() const { return int(helpers_.size()) + 1; } // with that of the caller

private:
    using Clock = std::chrono::steady_clock;

    void help();
    bool deliver(Hits& hits);
    bool take_ready(HitChunk& chunk);
    bool take_own(HitChunk& chunk);
    bool cut(HitChunk& chunk);
    bool wait_for_others(Clock::time_point deadline);

    const std::unique_ptr<Source> queries_;
    const std::unique_ptr<Source> rows_; // null when the queries are the rows
    const size_t max_hits_;
    const size_t full_; // hits at which a thread delivers
    Work work_;
    Worker own_;
    Hits own_hits_;
    bool own_done_ = false;
    bool done_ = false;
    HitChunk current_; // what is left of a chunk that was larger than `max_hits`

    std::mutex mutex_; // guards what follows
    std::condition_variable changed_;
    std::deque<Hits> ready_;
    int helping_ = 0;
    std::exception_ptr error_;
    std::atomic<bool> stopped_{false};
    std::atomic<bool> any_ready_{false};
    std::vector<std::thread> helpers_;
};

} // namespace stream_cluster
