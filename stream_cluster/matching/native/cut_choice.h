// Which test to make before a tile is compared in full, learned from what the tests found.
#pragma once

#include <algorithm>

#include "sketch.h"

namespace stream_cluster {

// A test that costs a share of a tile saves the rest of it when it excludes all its pairs. How often it does
// depends on the data and the threshold, so the choice is the cheapest by what was seen, and every 512th tile
// tries another. It changes no result.
class CutChoice {
public:
    // `parts`: of the sketches; 0: there are none.
    CutChoice(const Layout& layout, int parts) {
        const auto groups = float(layout.groups);
        for (int cut = 0; cut < kCuts && layout.cut_groups[cut] > 0; ++cut) {
            const auto head = float(layout.cut_groups[cut]);
            // What is behind the head is done for some tiles, and the head never twice.
            tests_[count_++] = {cut, -1, (head + kHeadTestGroups) / groups, 1.0f - head / groups, 0.5f, 0};
        }
        for (int part = 0; part < parts; ++part) {
            const auto sketch = float(uint32_t(part + 1) * kPartGroups + 1);
            tests_[count_++] = {-1, part, (sketch + kSketchTestGroups) / groups, 1.0f, 0.0f, 0};
        }
        choose();
    }

    struct Test {
        int cut;         // of the dimension, -1: none
        int part;        // up to which the sketch is taken, -1: no sketch
        float cost;      // of the test, as a share of the whole tile
        float behind;    // cost of all work behind it
        float done;      // share of that work that is done in spite of the test, as it was seen
        unsigned seen;
    };

    // The test for the next tile; null: compare it at once.
    Test* next() {
        if (count_ == 0) return nullptr;
        if (++tiles_ % kTryEvery != 0) return best_;
        trial_ = (trial_ + 1) % count_;
        return &tests_[trial_];
    }

    // What share of the work behind a test was done.
    void learn(Test* test, float done) {
        if (test == nullptr) return;
        const float rate = std::max(1.0f / float(++test->seen + 1), kSlowestRate);
        test->done += (done - test->done) * rate;
        if (++learned_ % kChooseEvery == 0) choose();
    }

private:
    static constexpr unsigned kTryEvery = 512;
    static constexpr float kHeadTestGroups = 6.0f; // a test takes about as long as so many groups
    static constexpr float kSketchTestGroups = 3.0f;
    static constexpr unsigned kChooseEvery = 8;
    static constexpr float kSlowestRate = 1.0f / 2048; // what was seen long ago fades

    void choose() {
        best_ = nullptr;
        float least = 1.0f;
        for (int i = 0; i < count_; ++i) {
            const float cost = tests_[i].cost + tests_[i].done * tests_[i].behind;
            if (cost < least) {
                least = cost;
                best_ = &tests_[i];
            }
        }
    }

    Test tests_[kCuts + kMostParts] = {};
    int count_ = 0;
    Test* best_ = nullptr;
    int trial_ = -1;
    unsigned tiles_ = 0;
    unsigned learned_ = 0;
};

} // namespace stream_cluster
