/* Prints what the page in argv[1] says of the instant argv[2], with the header. */
#include <stdio.h>
#include <stdlib.h>

#include "ptp_clock.h"

int main(int argc, char **argv) {
    struct ptp_clock_time time;
    const uint64_t *page;
    if (argc != 3)
        return 2;
    page = ptp_clock_open(argv[1]);
    if (!page) {
        perror(argv[1]);
        return 1;
    }
    if (ptp_clock_now(page, &time) < 0 || ptp_clock_at(page, strtoll(argv[2], NULL, 10), &time) < 0)
        return 1;
    printf("%lld %llu %lld %llu %d", (long long)time.ptp_ns, (unsigned long long)time.bound_ns,
           (long long)time.utc_offset_s, (unsigned long long)time.steps, (int)time.state);
    printf(" %llu %llu %lld %lld\n", (unsigned long long)time.utc_bound_ns,
           (unsigned long long)time.precision_ns, (long long)time.lowest_ns,
           (long long)time.highest_ns);
    /* A stamp for a span is known when the time is, and is UTC where that is known. */
    {
        struct ptp_clock_stamp stamp;
        int known = ptp_clock_stamp_now(page, &stamp) == 0;
        if (ptp_clock_now(page, &time) < 0 || known != (time.bound_ns != PTP_CLOCK_NO_BOUND))
            return 3;
        if (known && time.utc_offset_s != PTP_CLOCK_NO_UTC_OFFSET &&
            (stamp.unix_nano > time.ptp_ns - time.utc_offset_s * 1000000000 ||
             stamp.bound_ns > (int64_t)time.bound_ns))
            return 4;
    }
    ptp_clock_close(page);
    return 0;
}
