#include "run.h"

#include <algorithm>
#include <stdexcept>

namespace stream_cluster {
namespace {

constexpr size_t kMostReady = 2; // chunks that wait, at most
// Starting a thread takes as long as so many multiplications, about; less work than that is not shared.
constexpr double kMultiplicationsPerThread = 4e6;

int useful_threads(int threads, const Work& work) {
    const double shares = work.multiplications() / kMultiplicationsPerThread;
    const double most = std::min({double(threads), double(work.unit_count()), shares});
    return std::max(1, int(most));
}

} // namespace

Run::Run(std::unique_ptr<Source> queries, std::unique_ptr<Source> rows, Plan plan, int threads, size_t max_hits)
    : queries_(std::move(queries)),
      rows_(std::move(rows)),
      max_hits_(max_hits),
      full_(std::max(max_hits, kTileHits) - kTileHits + 1),
      work_((plan.queries = queries_.get(), plan.rows = rows_ ? rows_.get() : queries_.get(), plan), threads),
      own_(work_) {
    if (max_hits == 0) throw std::invalid_argument("max_hits: found 0, expected 1 or more");
    const int helpers = useful_threads(threads, work_) - 1;
    helpers_.reserve(size_t(helpers));
    try {
        for (int i = 0; i < helpers; ++i) {
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                ++helping_;
            }
            helpers_.emplace_back([this] { help(); });
        }
    } catch (const std::system_error&) {
        // No more threads to be had: those that started do the work.
        const std::lock_guard<std::mutex> lock(mutex_);
        --helping_;
    }
}

Run::~Run() { stop(); }

void Run::stop() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stopped_ = true;
    }
    changed_.notify_all();
    for (auto& helper : helpers_) {
        if (helper.joinable()) helper.join();
    }
}

void Run::help() {
    std::exception_ptr error;
    try {
        Worker worker(work_);
        Hits hits;
        while (!stopped_ && worker.step(hits, full_)) {
            if (hits.size >= full_ && !deliver(hits)) break;
        }
        if (hits.size) deliver(hits);
    } catch (...) {
        error = std::current_exception();
    }
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        --helping_;
        if (error) error_ = error;
    }
    changed_.notify_all();
}

// Hand over hits and begin anew; waits while enough are waiting. False when the run was stopped.
bool Run::deliver(Hits& hits) {
    {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return ready_.size() < kMostReady || stopped_; });
        if (stopped_) return false;
        ready_.push_back(std::move(hits));
        any_ready_ = true;
    }
    changed_.notify_all();
    hits = Hits{};
    return true;
}

bool Run::next(double timeout_s, HitChunk& chunk) {
    const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                             std::chrono::duration<double>(std::min(timeout_s, 1e6)));
    while (!done_ && !stopped_) {
        if (cut(chunk) || take_ready(chunk)) return true;
        if (!own_done_) {
            own_done_ = !own_.step(own_hits_, full_);
            if (own_hits_.size >= full_) return take_own(chunk);
        } else if (own_hits_.size) {
            return take_own(chunk);
        } else if (!wait_for_others(deadline)) {
            done_ = true;
            break;
        }
        if (Clock::now() >= deadline) return false;
    }
    return false;
}

// Take what the other threads have delivered.
bool Run::take_ready(HitChunk& chunk) {
    if (!any_ready_) return false;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (ready_.empty()) return false;
        current_ = {std::make_shared<Hits>(std::move(ready_.front())), 0, 0};
        ready_.pop_front();
        any_ready_ = !ready_.empty();
    }
    changed_.notify_all();
    current_.count = current_.hits->size;
    return cut(chunk);
}

bool Run::take_own(HitChunk& chunk) {
    const size_t count = own_hits_.size;
    current_ = {std::make_shared<Hits>(std::move(own_hits_)), 0, count};
    own_hits_ = Hits{};
    return cut(chunk);
}

// The next `max_hits` of what was taken.
bool Run::cut(HitChunk& chunk) {
    if (current_.count == 0) return false;
    const size_t count = std::min(current_.count, max_hits_);
    chunk = {current_.hits, current_.first, count};
    current_.first += count;
    current_.count -= count;
    if (current_.count == 0) current_.hits.reset();
    return true;
}

// False when no other thread works any more and nothing of theirs is left.
bool Run::wait_for_others(Clock::time_point deadline) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_until(lock, deadline, [this] { return !ready_.empty() || helping_ == 0; });
    if (error_) std::rethrow_exception(error_);
    return !ready_.empty() || helping_ > 0;
}

} // namespace stream_cluster
