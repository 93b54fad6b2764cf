/*
 * Reads the time of a PTP domain, and the bound on its error, from the page that `ptp-agent run
 * --clock virtual --page PATH` keeps in shared memory. The page is described in the documentation of
 * the crate ptp-clock-reader. C11 or C++ with GCC or Clang, 64-bit Linux; nothing to link.
 */
#ifndef PTP_CLOCK_H
#define PTP_CLOCK_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PTP_CLOCK_BYTES 128
#define PTP_CLOCK_VERSION (((uint64_t)PTP_CLOCK_BYTES << 32) | 1)
#define PTP_CLOCK_NO_BOUND UINT64_MAX
#define PTP_CLOCK_NO_UTC_OFFSET INT64_MIN
#define PTP_CLOCK_NO_PRECISION 0

enum ptp_clock_state { PTP_CLOCK_UNKNOWN = 0, PTP_CLOCK_LOCKED = 1, PTP_CLOCK_HOLDOVER = 2 };

struct ptp_clock_time {
    int64_t ptp_ns;       /* since the epoch: TAI since 1970 where the grandmaster has it */
    uint64_t bound_ns;    /* the grandmaster's time is no farther; PTP_CLOCK_NO_BOUND: not known */
    int64_t utc_offset_s; /* TAI minus UTC; PTP_CLOCK_NO_UTC_OFFSET: not known */
    uint64_t steps;       /* jumps of the clock so far */
    enum ptp_clock_state state;
    /* Not known of agents that do not say it: */
    uint64_t utc_bound_ns; /* UTC is no farther; PTP_CLOCK_NO_BOUND: not known */
    uint64_t precision_ns; /* the clock repeats to within this; PTP_CLOCK_NO_PRECISION: not known */
    int64_t lowest_ns;     /* clock minus grandmaster is between these, which may be lopsided; */
    int64_t highest_ns;    /* both 0: not known */
};

/* Maps the page in `path`; NULL with errno set, EPROTO for a file that is no such page. */
static inline const uint64_t *ptp_clock_open(const char *path) {
    struct stat status;
    uint64_t magic;
    void *page;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return NULL;
    if (fstat(descriptor, &status) < 0 || status.st_size < PTP_CLOCK_BYTES) {
        close(descriptor);
        errno = EPROTO;
        return NULL;
    }
    page = mmap(NULL, PTP_CLOCK_BYTES, PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (page == MAP_FAILED)
        return NULL;
    memcpy(&magic, "PTPCLOCK", sizeof(magic));
    if (((const uint64_t *)page)[0] != magic || ((const uint64_t *)page)[1] != PTP_CLOCK_VERSION) {
        munmap(page, PTP_CLOCK_BYTES);
        errno = EPROTO;
        return NULL;
    }
    return (const uint64_t *)page;
}

static inline void ptp_clock_close(const uint64_t *page) {
    munmap((void *)(uintptr_t)page, PTP_CLOCK_BYTES);
}

/* The time at a reading of CLOCK_MONOTONIC; 0, or -1 with errno EIO when the writer died writing. */
static inline int ptp_clock_at(const uint64_t *page, int64_t mono_ns, struct ptp_clock_time *time) {
    uint64_t before, growth, word[16];
    __int128 passed, gained;
    int attempt, n;
    for (attempt = 0; attempt < 1000000; attempt++) {
        before = __atomic_load_n(&page[2], __ATOMIC_ACQUIRE);
        if (before & 1)
            continue;
        for (n = 3; n < 16; n++)
            word[n] = __atomic_load_n(&page[n], __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&page[2], __ATOMIC_RELAXED) != before)
            continue;
        passed = (__int128)mono_ns - (int64_t)word[3];
        /* In units of 2^-64 ns. */
        gained = passed * (int64_t)word[6] * (1 << 16) + (__int128)word[5];
        time->ptp_ns = (int64_t)((int64_t)word[4] + passed + (gained >> 64));
        /* A page of before the last boot lies in the future of a clock that began anew. */
        time->state = mono_ns > (int64_t)word[9] || word[10] > 2 ||
                              passed < (__int128)(int64_t)word[3] - (int64_t)word[9]
                          ? PTP_CLOCK_UNKNOWN
                          : (enum ptp_clock_state)word[10];
        time->bound_ns = PTP_CLOCK_NO_BOUND;
        time->utc_bound_ns = PTP_CLOCK_NO_BOUND;
        time->precision_ns = PTP_CLOCK_NO_PRECISION;
        time->lowest_ns = time->highest_ns = 0;
        growth = (uint64_t)((passed < 0 ? -passed : passed) * (__int128)word[8] / 1000000000);
        if (time->state != PTP_CLOCK_UNKNOWN) {
            time->precision_ns = word[15] & UINT32_MAX;
            if (word[13] != 0 || word[14] != 0) {
                time->lowest_ns = (int64_t)(word[13] - growth);
                time->highest_ns = (int64_t)(word[14] + growth);
            }
            if (word[7] != PTP_CLOCK_NO_BOUND) {
                time->bound_ns = word[7] + growth;
                if (word[15] >> 32 != 0 && (int64_t)word[11] != PTP_CLOCK_NO_UTC_OFFSET)
                    time->utc_bound_ns = time->bound_ns + (word[15] >> 32) - 1;
            }
        }
        time->utc_offset_s = (int64_t)word[11];
        time->steps = word[12];
        return 0;
    }
    errno = EIO;
    return -1;
}

/* The time now. */
static inline int ptp_clock_now(const uint64_t *page, struct ptp_clock_time *time) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        return -1;
    return ptp_clock_at(page, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec, time);
}

/* For spans: attributes that `ptp-agent trace` understands, each a 64-bit integer. Take a stamp where a
 * span starts and one where it ends, and set the four. */
#define PTP_CLOCK_SPAN_START "ptp.start_unix_nano"
#define PTP_CLOCK_SPAN_START_BOUND "ptp.start_bound_ns"
#define PTP_CLOCK_SPAN_END "ptp.end_unix_nano"
#define PTP_CLOCK_SPAN_END_BOUND "ptp.end_bound_ns"

struct ptp_clock_stamp {
    int64_t unix_nano; /* by the grandmaster's time; UTC where the domain knows it */
    int64_t bound_ns;  /* the truth is no farther */
};

/* The time now, for a span; 0, or -1 with errno ENODATA when no bound is known: set no attributes then. */
static inline int ptp_clock_stamp_now(const uint64_t *page, struct ptp_clock_stamp *stamp) {
    struct ptp_clock_time time;
    if (ptp_clock_now(page, &time) < 0)
        return -1;
    if (time.bound_ns > INT64_MAX) {
        errno = ENODATA;
        return -1;
    }
    stamp->unix_nano = time.ptp_ns;
    if (time.utc_offset_s != PTP_CLOCK_NO_UTC_OFFSET)
        stamp->unix_nano -= time.utc_offset_s * 1000000000;
    stamp->bound_ns = (int64_t)time.bound_ns;
    return 0;
}

#ifdef __cplusplus
}
#endif
#endif
