/* Threads that wait for each other without the wish to be alone on the machine.
 *
 * Every op of a step ends with such a wait, hundreds of times a token. OpenMP's own barrier spins for milliseconds before it
 * sleeps: where other programs hold the cores, a thread burns its share of the processor on that while the one it waits for is
 * not running, and a token takes seconds. Here a thread spins for a part of the time that it has just worked, then sleeps; and
 * where the waiting took longer than the others' help saved, the next calls do without them (`cw_judge`). */
#ifndef CW_TEAM_H
#define CW_TEAM_H

#include <linux/futex.h>
#include <omp.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#define PATIENCE 60000 /* ticks of the processor's clock that are always spent spinning, some 20 us: a sleep costs as much */
#define SHARE 4        /* beyond them, one tick for so many worked */

/* A number that threads wait for, and how many of them sleep; in a cache line of its own. */
typedef struct {
    int value, sleepers;
    char gap[56];
} Signal;

/* What the threads of one region share; zeros at its beginning. */
typedef struct {
    int arrived;
    char gap[60];
    Signal round, left;
    uint64_t worked; /* by the first thread */
} Team;

/* What each of them has: its number, how many they are, when it began to work, and how long it has worked before that. */
typedef struct {
    Team *team;
    int number, members;
    uint64_t since, worked;
} Member;

/* Until the signal is no longer `value`; after `ticks` of spinning the thread sleeps. */
static inline void cw_await(Signal *signal, int value, uint64_t ticks) {
    const uint64_t start = __rdtsc();
    do {
        if (__atomic_load_n(&signal->value, __ATOMIC_ACQUIRE) != value) return;
        _mm_pause();
    } while (__rdtsc() - start < ticks);
    /* first counted, then looked at again by the kernel: who changes the value after that look sees a sleeper */
    __atomic_fetch_add(&signal->sleepers, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&signal->value, __ATOMIC_SEQ_CST) == value)
        syscall(SYS_futex, &signal->value, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    __atomic_fetch_sub(&signal->sleepers, 1, __ATOMIC_RELAXED);
}

static inline void cw_signal(Signal *signal) {
    __atomic_fetch_add(&signal->value, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&signal->sleepers, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &signal->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* The time since the last wait is work; returns how long the next may spin. */
static inline uint64_t cw_patience(Member *member) {
    const uint64_t worked = __rdtsc() - member->since;
    member->worked += worked;
    return worked / SHARE > PATIENCE ? worked / SHARE : PATIENCE;
}

/* All have arrived, and what each wrote before is there for all. */
static inline void cw_wait(Member *member) {
    if (member->members == 1) return;
    Team *team = member->team;
    const uint64_t ticks = cw_patience(member);
    const int round = __atomic_load_n(&team->round.value, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == member->members) {
        __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
        cw_signal(&team->round);
    } else cw_await(&team->round, round, ticks);
    member->since = __rdtsc();
}

static inline Member cw_join(Team *team) { return (Member){team, omp_get_thread_num(), omp_get_num_threads(), __rdtsc(), 0}; }

/* The end of a region: the first thread waits for the others here, since behind it OpenMP's barrier spins. */
static inline void cw_leave(Member *member) {
    if (member->members == 1) return;
    Team *team = member->team;
    if (member->number) {
        cw_signal(&team->left);
        return;
    }
    const uint64_t ticks = cw_patience(member);
    for (int n; (n = __atomic_load_n(&team->left.value, __ATOMIC_ACQUIRE)) < member->members - 1;) cw_await(&team->left, n, ticks);
    team->worked = member->worked;
}

/* Kinds of regions: without other threads, and two that are judged apart. Where others hold a core for some milliseconds, many a
 * short region comes late that alone would have been done by then, and a long one is still nearly twice as fast with help. */
enum { ALONE, SHORT, LONG, KINDS_OF_REGIONS };

/* How many of `threads` a region that begins now should have: all, or one as long as the others are known to be late. */
int cw_members(int threads, int kind, uint64_t now) __attribute__((visibility("hidden")));
/* What such a region has shown, which began at `start`. */
void cw_judge(const Team *team, int threads, int kind, uint64_t start) __attribute__((visibility("hidden")));

#endif
