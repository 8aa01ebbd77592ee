/* Preloaded into a process (LD_PRELOAD), it records what the process does to the files of one folder, in the order in which it
 * happens. RECORD_FOLDER: the folder, without a slash at its end. RECORD_LOG: the file that gets the record.
 * Each entry: octet kind, 64-bit time (CLOCK_MONOTONIC, ns), 16-bit length of the name, name, 64-bit offset, 32-bit length, data; in
 * the byte order of the machine. Kinds: W write, T truncate (offset is the new length), B a sync begins, E it has ended, U unlink,
 * R rename (data is the new name). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int log_fd = -1;

__attribute__((constructor)) static void begin(void) {
  const char *log = getenv("RECORD_LOG");
  folder = getenv("RECORD_FOLDER");
  if (!folder || !log) return;
  folder_length = strlen(folder);
  log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The name of a file below the folder, or NULL. */
static const char *name_of(const char *path) {
  if (log_fd < 0 || strncmp(path, folder, folder_length) != 0 || path[folder_length] != '/') return NULL;
  return path + folder_length + 1;
}

static const char *name_of_fd(int fd, char *path) {
  char link[64];
  if (log_fd < 0 || fd == log_fd) return NULL;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return NULL;
  path[length] = 0;
  return name_of(path);
}

static void record(char kind, const char *name, uint64_t offset, const void *data, uint32_t length) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  uint64_t time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  uint16_t name_length = (uint16_t)strlen(name);
  struct iovec parts[] = {
    { &kind, 1 }, { &time, 8 }, { &name_length, 2 }, { (void *)name, name_length },
    { &offset, 8 }, { &length, 4 }, { (void *)data, data ? length : 0 },
  };
  if (syscall(SYS_writev, log_fd, parts, 7) < 0) abort();
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A write is recorded before it is made, within the lock: what is synced later was recorded earlier. */
#define RECORDED(kind, offset, data, length, call) \
  char path[PATH_MAX]; \
  const char *name = name_of_fd(fd, path); \
  if (!name) return call; \
  pthread_mutex_lock(&lock); \
  record(kind, name, (uint64_t)(offset), data, (uint32_t)(length)); \
  __auto_type result = call; \
  pthread_mutex_unlock(&lock); \
  return result

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  REAL(pwrite);
  RECORDED('W', at, data, size, real(fd, data, size, at));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REAL(pwrite64);
  RECORDED('W', at, data, size, real(fd, data, size, at));
}
ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  RECORDED('W', lseek(fd, 0, SEEK_CUR), data, size, real(fd, data, size));
}
int ftruncate(int fd, off_t length) {
  REAL(ftruncate);
  RECORDED('T', length, NULL, 0, real(fd, length));
}
int ftruncate64(int fd, off64_t length) {
  REAL(ftruncate64);
  RECORDED('T', length, NULL, 0, real(fd, length));
}

#define SYNC(function) \
  int function(int fd) { \
    REAL(function); \
    char path[PATH_MAX]; \
    const char *name = name_of_fd(fd, path); \
    if (!name) return real(fd); \
    pthread_mutex_lock(&lock); \
    record('B', name, 0, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    int result = real(fd); \
    pthread_mutex_lock(&lock); \
    record('E', name, 0, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    return result; \
  }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
  REAL(unlink);
  const char *name = name_of(path);
  pthread_mutex_lock(&lock);
  if (name) record('U', name, 0, NULL, 0);
  int result = real(path);
  pthread_mutex_unlock(&lock);
  return result;
}
int rename(const char *from, const char *to) {
  REAL(rename);
  const char *name = name_of(from), *target = name_of(to);
  pthread_mutex_lock(&lock);
  if (name && target) record('R', name, 0, target, (uint32_t)strlen(target));
  int result = real(from, to);
  pthread_mutex_unlock(&lock);
  return result;
}
