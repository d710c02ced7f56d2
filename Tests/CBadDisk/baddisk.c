#define _GNU_SOURCE
#include "CBadDisk.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char root[PATH_MAX];
// NULL: this process has no bad disk.
static _Atomic uint64_t *control;

// The directory may be made later: its name is compared as it was given, and must be absolute and free of links.
__attribute__((constructor)) static void begin(void) {
  const char *directory = getenv("BANYAN_BAD_DISK"), *file = getenv("BANYAN_BAD_DISK_CONTROL");
  if (!directory || !file || directory[0] != '/' || strlen(directory) >= sizeof root) return;
  strcpy(root, directory);
  int descriptor = open(file, O_RDWR | O_CLOEXEC);
  if (descriptor < 0) abort();
  void *map = mmap(NULL, bad_disk_byte_count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (map == MAP_FAILED) abort();
  close(descriptor);
  // Last: the calls above are none of the disk's.
  control = map;
}

static uint64_t get(int field) { return atomic_load(&control[field]); }

static int is_below(const char *path) {
  size_t length = strlen(root);
  return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int is_quiet(void) {
  return !control || (!get(bad_disk_sync_milliseconds) && !get(bad_disk_stall) && !get(bad_disk_error) && !get(bad_disk_is_full));
}

// Whether the open file is on the bad disk. Sockets and pipes never are.
static int is_ours(int descriptor) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  path[length > 0 ? length : 0] = 0;
  return is_below(path);
}

static int is_ours_path(int directory, const char *path) {
  char name[PATH_MAX * 2], here[PATH_MAX];
  if (path[0] == '/') return is_below(path);
  if (directory == AT_FDCWD) {
    if (!getcwd(here, sizeof here)) return 0;
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, here, sizeof here - 1);
    here[length > 0 ? length : 0] = 0;
  }
  snprintf(name, sizeof name, "%s/%s", here, path);
  return is_below(name);
}

static void rest(uint64_t milliseconds) {
  struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  while (nanosleep(&time, &time) != 0 && errno == EINTR) {}
}

static int refuse(int error) {
  atomic_fetch_add(&control[bad_disk_refused], 1);
  errno = error;
  return 1;
}

// Waits as the disk does. True when the call fails: then errno says why.
static int meet(int is_sync) {
  if (is_sync) {
    atomic_fetch_add(&control[bad_disk_syncs], 1);
    uint64_t milliseconds = get(bad_disk_sync_milliseconds);
    if (milliseconds) rest(milliseconds);
  }
  uint64_t enough = is_sync ? 1 : 2;
  if (get(bad_disk_stall) >= enough) {
    atomic_fetch_add(&control[bad_disk_waiting], 1);
    while (get(bad_disk_stall) >= enough) rest(2);
    atomic_fetch_sub(&control[bad_disk_waiting], 1);
  }
  int error = (int)get(bad_disk_error);
  return error ? refuse(error) : 0;
}

// Takes room for a write of `length` bytes, of which nothing stands in the file yet. What can be written: all of it, whole
// blocks of it, or nothing (-1), as of a file system that has filled up meanwhile.
static ssize_t take(int descriptor, size_t length, off64_t offset) {
  if (!get(bad_disk_is_full) || length == 0) return length;
  off64_t place = lseek64(descriptor, 0, SEEK_CUR);
  off64_t hole = lseek64(descriptor, offset, SEEK_HOLE);
  if (place >= 0) lseek64(descriptor, place, SEEK_SET);
  // At or behind the end there is no hole to be found.
  if (hole < 0) hole = offset;
  if (hole >= offset + (off64_t)length) return length;
  size_t known = hole - offset, wanted = length - known;
  uint64_t room = get(bad_disk_room), taken;
  do {
    taken = room >= wanted ? wanted : room / 4096 * 4096;
  } while (!atomic_compare_exchange_weak(&control[bad_disk_room], &room, room - taken));
  if (known + taken == 0) {
    refuse(ENOSPC);
    return -1;
  }
  return known + taken;
}

#define NEXT(name) \
  static __typeof__(&name) next; \
  if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_synced(int descriptor) { return (fcntl(descriptor, F_GETFL) & O_DSYNC) != 0; }

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset) {
  NEXT(pwrite64);
  if (is_quiet() || !is_ours(descriptor)) return next(descriptor, bytes, length, offset);
  if (meet(is_synced(descriptor))) return -1;
  ssize_t room = take(descriptor, length, offset);
  return room < 0 ? -1 : next(descriptor, bytes, room, offset);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
  return pwrite64(descriptor, bytes, length, offset);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
  NEXT(write);
  if (is_quiet() || !is_ours(descriptor)) return next(descriptor, bytes, length);
  if (meet(is_synced(descriptor))) return -1;
  int is_appending = fcntl(descriptor, F_GETFL) & O_APPEND;
  struct stat status;
  off64_t offset = is_appending && fstat(descriptor, &status) == 0 ? status.st_size : lseek64(descriptor, 0, SEEK_CUR);
  ssize_t room = take(descriptor, length, offset);
  return room < 0 ? -1 : next(descriptor, bytes, room);
}

// The parts one after the other, as far as there is room; `offset` is -1 where the file's own place counts.
static ssize_t written(int descriptor, const struct iovec *parts, int count, off64_t offset) {
  ssize_t sum = 0;
  for (int i = 0; i < count; i++) {
    ssize_t wrote = offset < 0 ? write(descriptor, parts[i].iov_base, parts[i].iov_len)
                               : pwrite64(descriptor, parts[i].iov_base, parts[i].iov_len, offset + sum);
    if (wrote < 0) return sum > 0 ? sum : -1;
    sum += wrote;
    if ((size_t)wrote < parts[i].iov_len) break;
  }
  return sum;
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
  NEXT(writev);
  if (is_quiet() || !is_ours(descriptor)) return next(descriptor, parts, count);
  return written(descriptor, parts, count, -1);
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset) {
  NEXT(pwritev64);
  if (is_quiet() || !is_ours(descriptor)) return next(descriptor, parts, count, offset);
  return written(descriptor, parts, count, offset);
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
  return pwritev64(descriptor, parts, count, offset);
}

int fsync(int descriptor) {
  NEXT(fsync);
  if (!is_quiet() && is_ours(descriptor) && meet(1)) return -1;
  return next(descriptor);
}

int fdatasync(int descriptor) {
  NEXT(fdatasync);
  if (!is_quiet() && is_ours(descriptor) && meet(1)) return -1;
  return next(descriptor);
}

// A map does not say whose file it is; the only ones that these programs sync are their own.
int msync(void *start, size_t length, int flags) {
  NEXT(msync);
  if (!is_quiet() && (flags & MS_SYNC) && meet(1)) return -1;
  return next(start, length, flags);
}

int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) {
  NEXT(fallocate64);
  if (is_quiet() || !is_ours(descriptor)) return next(descriptor, mode, offset, length);
  if (meet(0)) return -1;
  if (!(mode & FALLOC_FL_PUNCH_HOLE) && get(bad_disk_is_full) && get(bad_disk_room) < (uint64_t)length) {
    refuse(ENOSPC);
    return -1;
  }
  return next(descriptor, mode, offset, length);
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
  return fallocate64(descriptor, mode, offset, length);
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t length) {
  return fallocate64(descriptor, 0, offset, length) == 0 ? 0 : errno;
}

int posix_fallocate(int descriptor, off_t offset, off_t length) {
  return posix_fallocate64(descriptor, offset, length);
}

int ftruncate64(int descriptor, off64_t length) {
  NEXT(ftruncate64);
  if (!is_quiet() && is_ours(descriptor) && meet(0)) return -1;
  return next(descriptor, length);
}

int ftruncate(int descriptor, off_t length) { return ftruncate64(descriptor, length); }

// Whether opening, making or removing what stands at the path fails.
static int fails_at(int directory, const char *path) {
  return !is_quiet() && is_ours_path(directory, path) && meet(0);
}

// Making an entry takes a block, if there is none left in its directory.
static int has_no_room_at(int directory, const char *path) {
  if (is_quiet() || !get(bad_disk_is_full) || get(bad_disk_room) >= 4096 || !is_ours_path(directory, path)) return 0;
  return faccessat(directory, path, F_OK, 0) != 0 && refuse(ENOSPC);
}

static int changes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)); }

#define OPENING(name, directory, ...) \
  NEXT(name); \
  mode_t mode = 0; \
  if (flags & (O_CREAT | __O_TMPFILE)) { \
    va_list arguments; \
    va_start(arguments, flags); \
    mode = va_arg(arguments, mode_t); \
    va_end(arguments); \
  } \
  if (changes(flags) && (fails_at(directory, path) || ((flags & O_CREAT) && has_no_room_at(directory, path)))) return -1; \
  return next(__VA_ARGS__, flags, mode)

int open64(const char *path, int flags, ...) { OPENING(open64, AT_FDCWD, path); }
int open(const char *path, int flags, ...) { OPENING(open, AT_FDCWD, path); }
int openat64(int directory, const char *path, int flags, ...) { OPENING(openat64, directory, directory, path); }
int openat(int directory, const char *path, int flags, ...) { OPENING(openat, directory, directory, path); }

int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir);
  if (fails_at(AT_FDCWD, path) || has_no_room_at(AT_FDCWD, path)) return -1;
  return next(path, mode);
}

int rename(const char *old, const char *new) {
  NEXT(rename);
  return fails_at(AT_FDCWD, new) ? -1 : next(old, new);
}

int unlink(const char *path) {
  NEXT(unlink);
  return fails_at(AT_FDCWD, path) ? -1 : next(path);
}

int statvfs64(const char *path, struct statvfs64 *status) {
  NEXT(statvfs64);
  int result = next(path, status);
  if (result == 0 && !is_quiet() && get(bad_disk_is_full) && is_ours_path(AT_FDCWD, path) && status->f_frsize)
    status->f_bavail = status->f_bfree = get(bad_disk_room) / status->f_frsize;
  return result;
}

int fstatvfs64(int descriptor, struct statvfs64 *status) {
  NEXT(fstatvfs64);
  int result = next(descriptor, status);
  if (result == 0 && !is_quiet() && get(bad_disk_is_full) && is_ours(descriptor) && status->f_frsize)
    status->f_bavail = status->f_bfree = get(bad_disk_room) / status->f_frsize;
  return result;
}

// The two are one on machines of 64 bits, for which alone these programs are built.
_Static_assert(sizeof(struct statvfs) == sizeof(struct statvfs64), "statvfs differs from statvfs64");
int statvfs(const char *path, struct statvfs *status) { return statvfs64(path, (struct statvfs64 *)status); }
int fstatvfs(int descriptor, struct statvfs *status) { return fstatvfs64(descriptor, (struct statvfs64 *)status); }
