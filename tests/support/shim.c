/* Preloaded into the service under test: a wall clock that jumps, and files that cannot be synced.
 *
 * The test writes to the file named by SHIM_CONTROL, which both sides map:
 *     int64  seconds to add to the wall clock
 *     int32  how many syncs of matching files are to fail with EIO; negative for all
 *     int32  how many have failed
 *     char[] part of the path of files that match, up to a NUL
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t clock_offset_s;
    volatile int32_t syncs_to_fail;
    volatile int32_t syncs_failed;
    char path_part[240];
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("SHIM_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED) control = found;
}

int clock_gettime(clockid_t id, struct timespec *when) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, when);
    if (result == 0 && control && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        when->tv_sec += control->clock_offset_s;
    return result;
}

int gettimeofday(struct timeval *restrict when, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    when->tv_sec = now.tv_sec;
    when->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *when) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (when) *when = now.tv_sec;
    return now.tv_sec;
}

static int is_to_fail(int fd) {
    char link[64], path[1024];
    if (!control || control->syncs_to_fail == 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, control->path_part)) return 0;
    if (control->syncs_to_fail > 0) control->syncs_to_fail--;
    control->syncs_failed++;
    return 1;
}

#define SYNC(name)                                           \
    int name(int fd) {                                       \
        static int (*real)(int);                             \
        if (!real) real = dlsym(RTLD_NEXT, #name);           \
        if (is_to_fail(fd)) { errno = EIO; return -1; }      \
        return real(fd);                                     \
    }

SYNC(fsync)
SYNC(fdatasync)
