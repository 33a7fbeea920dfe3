// Which cut of the dimension to test at, learned from what the tests found.
#pragma once

#include <algorithm>

#include "packing.h"

namespace stream_cluster {

// A test after a share of the groups saves the rest of a tile when it excludes all its pairs, and costs a
// little when it does not. How often it does depends on the data and the threshold, so the choice is the
// cheapest by what was seen, and every 128th tile tries another. It changes no result.
class CutChoice {
public:
    explicit CutChoice(const Layout& layout) : enabled_(layout.cut_groups[0] > 0) {
        for (int cut = 0; enabled_ && cut < kCuts; ++cut) {
            share_[cut] = float(layout.cut_groups[cut]) / float(layout.groups);
        }
        std::fill(tails_, tails_ + kCuts, 0.5f);
        test_cost_ = kTestGroups / float(layout.groups);
        choose();
    }

    // The cut for the next tile; -1 for none.
    int next() {
        if (!enabled_) return -1;
        if (++tiles_ % kTryEvery != 0) return best_;
        trial_ = (trial_ + 1) % kCuts;
        return trial_;
    }

    // What the tile with that cut did.
    void learn(int cut, float tail_share) {
        if (cut < 0) return;
        const float rate = std::max(1.0f / float(++seen_[cut] + 1), kSlowestRate);
        tails_[cut] += (tail_share - tails_[cut]) * rate;
        if (++learned_ % kChooseEvery == 0) choose();
    }

private:
    static constexpr unsigned kTryEvery = 128;
    static constexpr float kTestGroups = 3.5f; // a test takes about as long as so many groups
    static constexpr unsigned kChooseEvery = 8;
    static constexpr float kSlowestRate = 1.0f / 512; // what was seen long ago fades

    void choose() {
        best_ = -1;
        float least = 1.0f;
        for (int cut = 0; enabled_ && cut < kCuts; ++cut) {
            const float cost = share_[cut] + test_cost_ + tails_[cut] * (1.0f - share_[cut]);
            if (cost < least) {
                least = cost;
                best_ = cut;
            }
        }
    }

    bool enabled_;
    float share_[kCuts] = {};
    float tails_[kCuts]; // estimated share of the work behind the test that is done in spite of it
    unsigned seen_[kCuts] = {};
    float test_cost_;
    int best_ = -1;
    int trial_ = -1;
    unsigned tiles_ = 0;
    unsigned learned_ = 0;
};

} // namespace stream_cluster
