// A file layer that remembers in which order a directory's files were written and synced, so that a power cut at any moment
// can be played afterwards. Linked into a program, it stands in front of the C library's functions for its libraries, too.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { powercut_write, powercut_sync, powercut_create, powercut_sync_directory, powercut_rename, powercut_unlink };

typedef struct {
  int kind;
  // 1 for a write that is durable when it returns (O_DSYNC).
  int is_synced;
  // Of a write; never NULL.
  const char *path;
  // Of a rename: the new name; else NULL.
  const char *target;
  int64_t offset;
  size_t length;
  const uint8_t *bytes;
} powercut_operation;

// Remembers what happens to files in `directory` and below it from now on.
void powercut_record(const char *directory);
// How many operations were remembered so far. Whatever was acknowledged before is among them.
size_t powercut_count(void);
powercut_operation powercut_get(size_t index);
// Lets every write and sync fail with this errno, once so many operations were remembered; 0: none.
void powercut_fail(size_t after, int error);
