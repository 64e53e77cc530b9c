/* Makes chosen calls of the C library fail, and says so: preloaded by the harness, asleep until torture_arm() is called.

   A fault is "OP:N:ERRNO:LAST:PREFIX": the calls N to LAST (from 1) of OP on a path below PREFIX fail with ERRNO. OP is
   write, open, rename, sync, mkdir, unlink, read, shm, clock or change, which is each of the first six. Calls are counted
   in COUNTERS, a file that all processes of a case map, so that N counts over the stage and its workers. Each fault
   that is delivered is a line of LOG. With the clock nothing fails: it goes back by an hour from call N to call LAST. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum op { WRITE, OPEN, RENAME, SYNC, MKDIR, UNLINK, READ, SHM, CLOCK, CHANGE, OPS, REPORTED = OPS };
static const char *const names[OPS] = {"write", "open", "rename", "sync", "mkdir", "unlink", "read", "shm", "clock", "change"};

static struct {
    int armed, op, error, log;
    uint64_t first, last, *counters;
    char prefix[PATH_MAX];
} fault = {.log = -1};

/* fault_text: "" counts only. Returns 0, or -1 where the arguments cannot be used. */
int torture_arm(const char *fault_text, const char *counters, const char *log, const char *prefix) {
    char name[16] = "";
    int found = 0;
    unsigned long first = 0, last = 0;
    fault.armed = 0;
    fault.op = -1;
    if (*fault_text) {
        if (sscanf(fault_text, "%15[a-z]:%lu:%d:%lu", name, &first, &fault.error, &last) != 4) return -1;
        for (int i = 0; i < OPS; i++)
            if (!strcmp(name, names[i])) fault.op = i, found = 1;
        if (!found) return -1;
    }
    fault.first = first, fault.last = last;
    snprintf(fault.prefix, sizeof fault.prefix, "%s", prefix);
    int file = syscall(SYS_openat, AT_FDCWD, counters, O_RDWR | O_CLOEXEC, 0);
    fault.log = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || fault.log < 0) return -1;
    fault.log = fcntl(fault.log, F_DUPFD_CLOEXEC, 900);
    fault.counters = mmap(NULL, (REPORTED + 1) * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (fault.counters == MAP_FAILED) return -1;
    fault.armed = 1;
    return 0;
}

void torture_disarm(void) { fault.armed = 0; }

static int due(enum op op) {
    uint64_t count = __atomic_add_fetch(&fault.counters[op], 1, __ATOMIC_SEQ_CST);
    int hit = fault.op == (int)op;
    if (op == UNLINK && (fault.error == ENOSPC || fault.error == EDQUOT)) return 0; /* a full disk lets files go */
    if (op < READ) {
        uint64_t changes = __atomic_add_fetch(&fault.counters[CHANGE], 1, __ATOMIC_SEQ_CST);
        if (fault.op == CHANGE) count = changes, hit = 1;
    }
    return hit && count >= fault.first && count <= fault.last;
}

static void report(enum op op, const char *path) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%d %s %d %s\n", (int)getpid(), names[op], fault.error, path);
    syscall(SYS_write, fault.log, line, length);
}

/* Whether the call on `path`, or on the file `fd` where path is NULL, has to fail. */
static int fails(enum op op, int fd, const char *path) {
    if (!fault.armed) return 0;
    int saved = errno;
    char link[64], place[2 * PATH_MAX + 2] = "";
    if (!path || (*path != '/' && fd != AT_FDCWD)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        long length = syscall(SYS_readlinkat, AT_FDCWD, link, place, PATH_MAX - 1);
        if (length < 0) length = 0;
        place[length] = 0;
    } else if (*path != '/' && syscall(SYS_getcwd, place, PATH_MAX) < 0)
        *place = 0;
    if (path) {
        size_t length = *path == '/' ? 0 : strlen(place);
        if (length) place[length++] = '/';
        snprintf(place + length, sizeof place - length, "%s", path);
    }
    errno = saved;
    if (strncmp(place, fault.prefix, strlen(fault.prefix)) || !due(op)) return 0;
    report(op, place);
    errno = fault.error;
    return 1;
}

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))
static void *real(void **known, const char *name) {
    if (!*known) *known = dlsym(RTLD_NEXT, name);
    return *known;
}
#define CALL(op, fd, path, result, name, declared, given) \
    static void *real_##name; \
    result name declared { return fails(op, fd, path) ? (result)-1 : REAL(name) given; }

CALL(WRITE, f, NULL, ssize_t, write, (int f, const void *b, size_t n), (f, b, n))
CALL(WRITE, f, NULL, ssize_t, pwrite, (int f, const void *b, size_t n, off_t o), (f, b, n, o))
CALL(WRITE, f, NULL, ssize_t, pwrite64, (int f, const void *b, size_t n, off64_t o), (f, b, n, o))
CALL(WRITE, f, NULL, ssize_t, writev, (int f, const struct iovec *v, int n), (f, v, n))
CALL(WRITE, f, NULL, ssize_t, pwritev, (int f, const struct iovec *v, int n, off_t o), (f, v, n, o))
CALL(WRITE, f, NULL, ssize_t, pwritev64, (int f, const struct iovec *v, int n, off64_t o), (f, v, n, o))
extern ssize_t sendfile(int, int, off_t *, size_t);
extern ssize_t sendfile64(int, int, off64_t *, size_t);
CALL(WRITE, f, NULL, ssize_t, sendfile, (int f, int i, off_t *o, size_t n), (f, i, o, n))
CALL(WRITE, f, NULL, ssize_t, sendfile64, (int f, int i, off64_t *o, size_t n), (f, i, o, n))
CALL(WRITE, f, NULL, ssize_t, copy_file_range,
     (int i, off64_t *p, int f, off64_t *o, size_t n, unsigned int x), (i, p, f, o, n, x))
CALL(WRITE, f, NULL, int, ftruncate, (int f, off_t n), (f, n))
CALL(WRITE, f, NULL, int, ftruncate64, (int f, off64_t n), (f, n))
CALL(READ, f, NULL, ssize_t, read, (int f, void *b, size_t n), (f, b, n))
CALL(READ, f, NULL, ssize_t, pread, (int f, void *b, size_t n, off_t o), (f, b, n, o))
CALL(READ, f, NULL, ssize_t, pread64, (int f, void *b, size_t n, off64_t o), (f, b, n, o))
CALL(SYNC, f, NULL, int, fsync, (int f), (f))
CALL(SYNC, f, NULL, int, fdatasync, (int f), (f))
CALL(RENAME, AT_FDCWD, to, int, rename, (const char *from, const char *to), (from, to))
CALL(RENAME, g, to, int, renameat, (int f, const char *from, int g, const char *to), (f, from, g, to))
CALL(RENAME, AT_FDCWD, to, int, link, (const char *from, const char *to), (from, to))
CALL(RENAME, g, to, int, linkat, (int f, const char *from, int g, const char *to, int x), (f, from, g, to, x))
CALL(MKDIR, AT_FDCWD, p, int, mkdir, (const char *p, mode_t m), (p, m))
CALL(MKDIR, f, p, int, mkdirat, (int f, const char *p, mode_t m), (f, p, m))
CALL(UNLINK, AT_FDCWD, p, int, unlink, (const char *p), (p))
CALL(UNLINK, f, p, int, unlinkat, (int f, const char *p, int x), (f, p, x))
CALL(UNLINK, AT_FDCWD, p, int, rmdir, (const char *p), (p))
CALL(SHM, AT_FDCWD, fault.prefix, int, shm_open, (const char *p, int x, mode_t m), (p, x, m))

/* posix_fallocate returns the error instead of setting errno. */
static void *real_posix_fallocate, *real_posix_fallocate64;
int posix_fallocate(int f, off_t o, off_t n) { return fails(WRITE, f, NULL) ? errno : REAL(posix_fallocate)(f, o, n); }
int posix_fallocate64(int f, off64_t o, off64_t n) {
    return fails(WRITE, f, NULL) ? errno : REAL(posix_fallocate64)(f, o, n);
}

#define MODE(flags, mode) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }
#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define OPENED(name) \
    static void *real_##name; \
    int name(const char *path, int flags, ...) { \
        MODE(flags, mode) \
        if (CHANGES(flags) && fails(OPEN, AT_FDCWD, path)) return -1; \
        return REAL(name)(path, flags, mode); \
    }
#define OPENED_AT(name) \
    static void *real_##name; \
    int name(int folder, const char *path, int flags, ...) { \
        MODE(flags, mode) \
        if (CHANGES(flags) && fails(OPEN, folder, path)) return -1; \
        return REAL(name)(folder, path, flags, mode); \
    }
OPENED(open)
OPENED(open64)
OPENED_AT(openat)
OPENED_AT(openat64)

#define STREAM(name) \
    static void *real_##name; \
    FILE *name(const char *path, const char *mode) { \
        return strpbrk(mode, "wa+") && fails(OPEN, AT_FDCWD, path) ? NULL : REAL(name)(path, mode); \
    }
STREAM(fopen)
STREAM(fopen64)

static void *real_sem_open;
sem_t *sem_open(const char *name, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    unsigned int value = flags & O_CREAT ? va_arg(more, unsigned int) : 0;
    va_end(more);
    return fails(SHM, AT_FDCWD, fault.prefix) ? SEM_FAILED : REAL(sem_open)(name, flags, mode, value);
}

static int back(void) {
    if (!fault.armed || !due(CLOCK)) return 0;
    if (!__atomic_exchange_n(&fault.counters[REPORTED], 1, __ATOMIC_SEQ_CST)) report(CLOCK, "an hour back");
    return 3600;
}
static void *real_clock_gettime, *real_gettimeofday, *real_time;
int clock_gettime(clockid_t id, struct timespec *now) {
    int result = REAL(clock_gettime)(id, now);
    if (!result && id == CLOCK_REALTIME) now->tv_sec -= back();
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    if (!result) now->tv_sec -= back();
    return result;
}
time_t time(time_t *now) {
    time_t result = REAL(time)(NULL) - back();
    if (now) *now = result;
    return result;
}
