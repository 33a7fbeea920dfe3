#include "packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>

namespace stream_cluster {
namespace {

constexpr uint32_t kOffsetWord = 0x80808080u; // x ^ 128 is x + 128 for a signed byte read as unsigned
constexpr uint32_t kFewestGroupsToCut = 16;

uint8_t* word_at(uint8_t* block, uint32_t group, int row) { return block + size_t(group) * kGroupBytes + 4 * row; }

uint32_t load(const void* bytes) {
    uint32_t word;
    std::memcpy(&word, bytes, 4);
    return word;
}

void store(void* bytes, uint32_t word) { std::memcpy(bytes, &word, 4); }

// Four words in one register of any processor.
using Words = uint32_t __attribute__((vector_size(16)));

Words load_words(const void* bytes) {
    Words words;
    std::memcpy(&words, bytes, sizeof words);
    return words ^ kOffsetWord;
}

// Four groups of four rows, from row-major to packed.
void put_four(const int8_t* const* codes, size_t first_byte, uint8_t* packed) {
    const Words a = load_words(codes[0] + first_byte), b = load_words(codes[1] + first_byte);
    const Words c = load_words(codes[2] + first_byte), d = load_words(codes[3] + first_byte);
    const Words ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Words cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const Words columns[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                              __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                              __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                              __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
    for (int group = 0; group < 4; ++group) std::memcpy(packed + group * kGroupBytes, &columns[group], 16);
}

} // namespace

Layout::Layout(int dimension) : dim(dimension), groups(uint32_t(dimension + 3) / 4) {
    for (int cut = 0; cut < kCuts; ++cut) {
        cut_groups[cut] = groups < kFewestGroupsToCut ? 0 : groups * uint32_t(kCutParts[cut]) / 32;
    }
}

AlignedBytes aligned_bytes(size_t count) {
    return AlignedBytes(static_cast<uint8_t*>(::operator new(count, std::align_val_t(64))));
}

void FreeAligned::operator()(void* memory) const {
    if (mapped) {
        munmap(memory, mapped);
    } else {
        ::operator delete(memory, std::align_val_t(64));
    }
}

AlignedBytes mapped_bytes(int file, size_t offset, size_t count) {
    // Allocated, not only made longer: a full disk would otherwise be a signal in the middle of a write.
    if (posix_fallocate(file, off_t(offset), off_t(count)) != 0) throw std::bad_alloc();
    void* memory = mmap(nullptr, count, PROT_READ | PROT_WRITE, MAP_SHARED, file, off_t(offset));
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return AlignedBytes(static_cast<uint8_t*>(memory), FreeAligned{count});
}

AlignedFacts aligned_facts(size_t count) {
    static_assert(alignof(BlockFacts) == 64 && std::is_trivially_destructible_v<BlockFacts>);
    void* memory = ::operator new(count * sizeof(BlockFacts), std::align_val_t(64));
    return AlignedFacts(new (memory) BlockFacts[count]);
}

bool facts_of(const Layout& layout, const int8_t* code, RowFacts& facts) {
    int64_t behind[kCuts + 1]; // squares of each part between cuts, then of all behind its start
    int lowest = 0;
    int first = 0;
    for (int part = 0; part <= kCuts; ++part) {
        const int last = part == kCuts ? layout.dim : std::min(int(layout.cut_groups[part]) * 4, layout.dim);
        int32_t squares = 0; // at most 128 * 128 * 4096 = 2**26
        for (int d = first; d < last; ++d) {
            squares += int32_t(code[d]) * code[d];
            lowest = std::min(lowest, int(code[d]));
        }
        behind[part] = squares;
        first = last;
    }
    for (int part = kCuts - 1; part >= 0; --part) behind[part] += behind[part + 1];
    const double norm = std::sqrt(double(behind[0]));
    facts.norm = behind[0] ? float(1.0 / norm) : 0.0f;
    for (int cut = 0; cut < kCuts; ++cut) {
        const double rest = behind[0] ? std::sqrt(double(behind[cut + 1])) / norm : 0.0;
        facts.rests[cut] = uint8_t(std::ceil(rest * 255.0)); // at most 255: a part is not above the whole
    }
    return lowest >= -kCodeMax;
}

void clear_block(const Layout& layout, uint8_t* block, BlockFacts& facts) {
    std::memset(block, 128, layout.block_bytes());
    facts = BlockFacts{};
}

int32_t get_word(const uint8_t* block, uint32_t group, int row) {
    return int32_t(load(block + size_t(group) * kGroupBytes + 4 * row) ^ kOffsetWord);
}

int32_t get_word(const Layout& layout, const int8_t* code, uint32_t group) {
    const int first = int(group) * 4;
    if (first + 4 <= layout.dim) return int32_t(load(code + first));
    int8_t padded[4] = {0, 0, 0, 0};
    std::memcpy(padded, code + first, size_t(layout.dim - first));
    return int32_t(load(padded));
}

void put_word(uint8_t* block, uint32_t group, int row, const int8_t* codes) {
    store(word_at(block, group, row), load(codes) ^ kOffsetWord);
}

void put_row(const Layout& layout, const int8_t* code, const RowFacts& facts, int row, uint8_t* block,
             BlockFacts& block_facts) {
    for (uint32_t group = 0; group < layout.groups; ++group) {
        store(word_at(block, group, row), uint32_t(get_word(layout, code, group)) ^ kOffsetWord);
    }
    block_facts.norms[row] = facts.norm;
    for (int cut = 0; cut < kCuts; ++cut) block_facts.rests[cut][row] = facts.rests[cut];
    block_facts.live |= uint64_t(1) << row;
}

void put_block(const Layout& layout, const int8_t* const* codes, const RowFacts* facts, uint8_t* block,
               BlockFacts& block_facts) {
    // From the beginning of the block to its end, so that it is written in order.
    const uint32_t whole = uint32_t(layout.dim) / 16 * 4;
    for (uint32_t group = 0; group < whole; group += 4) {
        for (int row = 0; row < kBlockRows; row += 4) {
            put_four(codes + row, size_t(group) * 4, word_at(block, group, row));
        }
    }
    for (uint32_t group = whole; group < layout.groups; ++group) {
        for (int row = 0; row < kBlockRows; ++row) {
            store(word_at(block, group, row), uint32_t(get_word(layout, codes[row], group)) ^ kOffsetWord);
        }
    }
    block_facts = BlockFacts{};
    for (int row = 0; row < kBlockRows; ++row) {
        block_facts.norms[row] = facts[row].norm;
        for (int cut = 0; cut < kCuts; ++cut) block_facts.rests[cut][row] = facts[row].rests[cut];
    }
    block_facts.live = ~uint64_t(0);
}

void erase_row(const Layout& layout, int row, uint8_t* block, BlockFacts& facts) {
    for (uint32_t group = 0; group < layout.groups; ++group) store(word_at(block, group, row), kOffsetWord);
    facts.norms[row] = 0.0f;
    for (auto& rests : facts.rests) rests[row] = 0;
    facts.live &= ~(uint64_t(1) << row);
}

void get_row(const Layout& layout, const uint8_t* block, int row, int8_t* code) {
    const uint32_t whole = uint32_t(layout.dim) / 4;
    for (uint32_t group = 0; group < whole; ++group) {
        store(code + size_t(group) * 4, uint32_t(get_word(block, group, row)));
    }
    for (uint32_t group = whole; group < layout.groups; ++group) {
        const int32_t word = get_word(block, group, row);
        std::memcpy(code + size_t(group) * 4, &word, size_t(layout.dim) - size_t(group) * 4);
    }
}

} // namespace stream_cluster
