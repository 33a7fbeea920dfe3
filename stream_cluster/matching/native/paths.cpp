#include "paths.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace stream_cluster {
namespace {

struct Path {
    const TileKernel* kernel;
    bool (*supported)();
    bool automatic; // false: only when asked for
};

bool always() { return true; }

#if defined(__x86_64__)

bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }

bool has_avx512vnni() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
}

bool has_avx512vnni256() { return has_avx512vnni() && __builtin_cpu_supports("avx512vl"); }

bool has_avxvnni() {
    // Not known to __builtin_cpu_supports of every compiler: leaf 7, subleaf 1, EAX bit 4. That the system
    // saves the registers is part of "avx2".
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

const Path kPaths[] = {
    {&kAvx512Vnni, has_avx512vnni, true},
    {&kAvxVnni, has_avxvnni, true},
    {&kAvx2, has_avx2, true},
    {&kPortable, always, true},
    {&kAvx512Vnni256, has_avx512vnni256, false},
};

#elif defined(__aarch64__)

bool has_dot_product() {
#if defined(__linux__)
    constexpr unsigned long kAsimdDp = 1UL << 20; // HWCAP_ASIMDDP of <asm/hwcap.h>
    return getauxval(AT_HWCAP) & kAsimdDp;
#else
    return true; // every other aarch64 system this builds on (Apple's) has it
#endif
}

const Path kPaths[] = {
    {&kNeonDot, has_dot_product, true},
    {&kPortable, always, true},
};

#else

const Path kPaths[] = {{&kPortable, always, true}};

#endif

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

} // namespace

std::vector<std::string> available_paths() {
    std::vector<std::string> names;
    for (const auto& path : kPaths) {
        if (path.supported()) names.emplace_back(path.kernel->name);
    }
    return names;
}

const TileKernel& kernel_of(const std::string& asked) {
    std::string name = asked;
    if (name.empty()) {
        const char* variable = std::getenv("STREAM_CLUSTER_KERNEL");
        if (variable != nullptr) name = variable;
    }
    for (const auto& path : kPaths) {
        const bool wanted = name.empty() ? path.automatic : name == path.kernel->name;
        if (wanted && path.supported()) return *path.kernel;
    }
    throw std::invalid_argument((asked.empty() ? "STREAM_CLUSTER_KERNEL" : "path") + (": found \"" + name) +
                                "\", expected one that this processor supports: " + joined(available_paths()));
}

} // namespace stream_cluster
