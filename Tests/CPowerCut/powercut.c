#define _GNU_SOURCE
#include "CPowerCut.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static powercut_operation *operations;
static size_t count, capacity;
static size_t fail_after;
static int fail_error;

void powercut_fail(size_t after, int error) {
  pthread_mutex_lock(&mutex);
  fail_after = after;
  fail_error = error;
  pthread_mutex_unlock(&mutex);
}

void powercut_record(const char *directory) {
  pthread_mutex_lock(&mutex);
  if (!realpath(directory, root)) abort();
  pthread_mutex_unlock(&mutex);
}

size_t powercut_count(void) {
  pthread_mutex_lock(&mutex);
  size_t result = count;
  pthread_mutex_unlock(&mutex);
  return result;
}

powercut_operation powercut_get(size_t index) {
  pthread_mutex_lock(&mutex);
  powercut_operation result = operations[index];
  pthread_mutex_unlock(&mutex);
  return result;
}

static int is_recorded(const char *path) {
  size_t length = strlen(root);
  return length > 0 && strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static void remember(int kind, int is_synced, const char *path, const char *target, int64_t offset, const void *bytes,
                     size_t length) {
  if (!is_recorded(path)) return;
  powercut_operation operation = {kind, is_synced, strdup(path), target ? strdup(target) : NULL, offset, length, NULL};
  if (length) operation.bytes = memcpy(malloc(length), bytes, length);
  pthread_mutex_lock(&mutex);
  if (count == capacity) operations = realloc(operations, (capacity = capacity * 2 + 1024) * sizeof *operations);
  operations[count++] = operation;
  pthread_mutex_unlock(&mutex);
}

// The name of an open file, or an empty one.
static void name_of(int descriptor, char path[PATH_MAX]) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  path[length > 0 ? length : 0] = 0;
}

static void wrote(int descriptor, int64_t offset, const void *bytes, size_t length) {
  if (!root[0]) return;
  char path[PATH_MAX];
  name_of(descriptor, path);
  int is_synced = is_recorded(path) && (fcntl(descriptor, F_GETFL) & O_DSYNC) != 0;
  remember(powercut_write, is_synced, path, NULL, offset, bytes, length);
}

// Whether the disk refuses: then errno says why.
static int fails(int descriptor) {
  pthread_mutex_lock(&mutex);
  int error = fail_error && count >= fail_after ? fail_error : 0;
  pthread_mutex_unlock(&mutex);
  if (!error) return 0;
  char path[PATH_MAX];
  name_of(descriptor, path);
  if (!is_recorded(path)) return 0;
  errno = error;
  return 1;
}

#define NEXT(name, type)                                \
  static type next;                                     \
  if (!next) next = (type)dlsym(RTLD_NEXT, name)

typedef ssize_t (*pwrite_type)(int, const void *, size_t, off64_t);
typedef ssize_t (*write_type)(int, const void *, size_t);
typedef ssize_t (*writev_type)(int, const struct iovec *, int);
typedef int (*sync_type)(int);
typedef int (*open_type)(const char *, int, mode_t);
typedef int (*rename_type)(const char *, const char *);
typedef int (*unlink_type)(const char *);

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset) {
  NEXT("pwrite64", pwrite_type);
  if (fails(descriptor)) return -1;
  wrote(descriptor, offset, bytes, length);
  return next(descriptor, bytes, length, offset);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
  return pwrite64(descriptor, bytes, length, offset);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
  NEXT("write", write_type);
  if (fails(descriptor)) return -1;
  if (root[0]) wrote(descriptor, lseek(descriptor, 0, SEEK_CUR), bytes, length);
  return next(descriptor, bytes, length);
}

ssize_t writev(int descriptor, const struct iovec *parts, int part_count) {
  NEXT("writev", writev_type);
  if (fails(descriptor)) return -1;
  if (root[0]) {
    int64_t offset = lseek(descriptor, 0, SEEK_CUR);
    for (int i = 0; i < part_count; offset += parts[i++].iov_len)
      wrote(descriptor, offset, parts[i].iov_base, parts[i].iov_len);
  }
  return next(descriptor, parts, part_count);
}

static int synced(int descriptor, int result) {
  if (result != 0 || !root[0]) return result;
  char path[PATH_MAX];
  struct stat status;
  name_of(descriptor, path);
  if (fstat(descriptor, &status) == 0)
    remember(S_ISDIR(status.st_mode) ? powercut_sync_directory : powercut_sync, 0, path, NULL, 0, NULL, 0);
  return result;
}

int fdatasync(int descriptor) {
  NEXT("fdatasync", sync_type);
  if (fails(descriptor)) return -1;
  return synced(descriptor, next(descriptor));
}

int fsync(int descriptor) {
  NEXT("fsync", sync_type);
  if (fails(descriptor)) return -1;
  return synced(descriptor, next(descriptor));
}

static void absolute(const char *path, char result[PATH_MAX]) {
  if (path[0] == '/') {
    snprintf(result, PATH_MAX, "%s", path);
  } else {
    char here[PATH_MAX / 2];
    snprintf(result, PATH_MAX, "%s/%s", getcwd(here, sizeof here) ? here : "", path);
  }
}

static int opened(const char *path, int flags, mode_t mode) {
  NEXT("open64", open_type);
  char name[PATH_MAX];
  absolute(path, name);
  int is_new = root[0] && (flags & O_CREAT) && access(path, F_OK) != 0;
  int result = next(path, flags, mode);
  if (result >= 0 && is_new) remember(powercut_create, 0, name, NULL, 0, NULL, 0);
  return result;
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return opened(path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return opened(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
  static int (*next)(const char *, mode_t);
  if (!next) next = (int (*)(const char *, mode_t))dlsym(RTLD_NEXT, "mkdir");
  int result = next(path, mode);
  char name[PATH_MAX];
  absolute(path, name);
  if (result == 0) remember(powercut_create, 1, name, NULL, 0, NULL, 0);
  return result;
}

int rename(const char *old, const char *new) {
  NEXT("rename", rename_type);
  char name[PATH_MAX], target[PATH_MAX];
  absolute(old, name);
  absolute(new, target);
  int result = next(old, new);
  if (result == 0) remember(powercut_rename, 0, name, target, 0, NULL, 0);
  return result;
}

int unlink(const char *path) {
  NEXT("unlink", unlink_type);
  char name[PATH_MAX];
  absolute(path, name);
  int result = next(path);
  if (result == 0) remember(powercut_unlink, 0, name, NULL, 0, NULL, 0);
  return result;
}
