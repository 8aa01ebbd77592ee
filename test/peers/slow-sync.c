/* Preloaded into a process (LD_PRELOAD), it makes each fsync and fdatasync take longer, as slow flash does, and counts syncs and
 * octets written to files. SLOW_SYNC_MS: milliseconds to add. SLOW_SYNC_COUNTS: a file that gets three 64-bit counters in the byte
 * order of the machine: syncs, octets written, and those of the syncs that the first thread of the process made. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static uint64_t own[3];
static uint64_t *counts = own;
static struct timespec delay;

__attribute__((constructor)) static void begin(void) {
  const char *milliseconds = getenv("SLOW_SYNC_MS");
  const char *file = getenv("SLOW_SYNC_COUNTS");
  long add = milliseconds ? atol(milliseconds) : 0;
  delay.tv_sec = add / 1000;
  delay.tv_nsec = add % 1000 * 1000000;
  if (!file) return;
  int fd = open(file, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, sizeof own) != 0) return;
  void *shared = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared != MAP_FAILED) counts = shared;
  close(fd);
}

static void slow(void) {
  __atomic_add_fetch(&counts[0], 1, __ATOMIC_RELAXED);
  if (gettid() == getpid()) __atomic_add_fetch(&counts[2], 1, __ATOMIC_RELAXED);
  if (delay.tv_sec || delay.tv_nsec) nanosleep(&delay, NULL);
}

/* Sockets and pipes are written with the same calls, and are not counted. */
static ssize_t written(int fd, ssize_t octets) {
  struct stat info;
  if (octets > 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
    __atomic_add_fetch(&counts[1], (uint64_t)octets, __ATOMIC_RELAXED);
  return octets;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int fsync(int fd) { REAL(fsync); slow(); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); slow(); return real(fd); }
ssize_t write(int fd, const void *data, size_t size) { REAL(write); return written(fd, real(fd, data, size)); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); return written(fd, real(fd, data, size, at)); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); return written(fd, real(fd, data, size, at)); }
ssize_t writev(int fd, const struct iovec *parts, int count) { REAL(writev); return written(fd, real(fd, parts, count)); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { REAL(pwritev); return written(fd, real(fd, parts, count, at)); }
