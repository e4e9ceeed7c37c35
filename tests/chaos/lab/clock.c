/* Sets the clock of the processes that preload it ahead, by the seconds in the file CLOCK_FILE.
 *
 * cc -shared -fPIC -o clock.so clock.c
 *
 * Time namespaces cannot change this clock. libfaketime 0.9.10 makes every sleep of Python fail. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

typedef int timed_wait(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static long ahead_s(void) {
    static const long none = 0;
    static const volatile long *ahead = NULL;
    if (ahead == NULL) {
        const char *path = getenv("CLOCK_FILE");
        int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        ahead = map == MAP_FAILED ? &none : map;
    }
    return *ahead;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead_s();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    if (result == 0) now->tv_sec += ahead_s();
    return result;
}

time_t time(time_t *copy) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (copy != NULL) *copy = now.tv_sec;
    return now.tv_sec;
}

/* The kernel waits by its own clock. A deadline below a year's seconds is of the monotonic one. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                           const struct timespec *deadline) {
    static timed_wait *wait = NULL;
    if (wait == NULL) wait = (timed_wait *)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (wait == NULL) wait = (timed_wait *)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec real = *deadline;
    if (real.tv_sec > 365 * 24 * 3600) real.tv_sec -= ahead_s();
    return wait(condition, mutex, &real);
}
