// A disk that can be slow, stand still, be full or refuse, under a program that knows nothing of it: a library that the
// loader puts in front of the C library's functions (LD_PRELOAD). It needs no rights and no file system of its own.
//
//   BANYAN_BAD_DISK          the directory whose files are on that disk; without it, nothing is touched
//   BANYAN_BAD_DISK_CONTROL  a file of bad_disk_byte_count bytes that whoever plays the disk writes into meanwhile
//
// The control file holds numbers of eight bytes, in this machine's order. It is mapped: a change counts from the next call on.
#pragma once

enum {
  // Written by who plays the disk.
  bad_disk_sync_milliseconds,  // each sync takes so much longer: fsync, fdatasync, msync, and a write that is one (O_DSYNC)
  bad_disk_stall,              // 1: syncs do not return until it is 0 again; 2: neither do other writes
  bad_disk_error,              // an errno with which all that changes something fails; 0: none
  bad_disk_is_full,            // 1: no more than the room below can be written where nothing was written yet
  bad_disk_room,               // bytes; falls with what is written, and is what the file system says is free
  // Written by the disk.
  bad_disk_waiting,            // calls that a stall holds now
  bad_disk_syncs,              // syncs that were begun
  bad_disk_refused,            // calls that failed by the error above or for want of room
  bad_disk_count
};

enum { bad_disk_byte_count = bad_disk_count * 8 };
