/* Preloaded into a program, it makes one write to a regular file go wrong: number DISK_AT, in the way DISK_HOW.
   0: the process is killed; 1: the disk is full from there on; 2: an input/output error; 3: half is written, then killed.
   DISK_COUNT names a file that gets the number of writes. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static long writes = 0;

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static int goes_wrong(int file) {
    struct stat about;
    long at = number("DISK_AT", -1);
    if (file < 3 || fstat(file, &about) || !S_ISREG(about.st_mode)) return 0;
    long now = writes++;
    return at >= 0 && (now == at || (number("DISK_HOW", 0) == 1 && now > at));
}

static ssize_t fault(long call, int file, const void *data, size_t size, off_t at) {
    long how = number("DISK_HOW", 0);
    if (how == 3) syscall(call, file, data, size / 2, at);
    if (how == 0 || how == 3) kill(getpid(), SIGKILL);
    errno = how == 1 ? ENOSPC : EIO;
    return -1;
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t at) {
    if (goes_wrong(file)) return fault(SYS_pwrite64, file, data, size, at);
    return syscall(SYS_pwrite64, file, data, size, at);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) { return pwrite64(file, data, size, at); }

ssize_t write(int file, const void *data, size_t size) {
    if (goes_wrong(file)) return fault(SYS_write, file, data, size, 0);
    return syscall(SYS_write, file, data, size);
}

__attribute__((destructor)) static void at_the_end(void) {
    const char *name = getenv("DISK_COUNT");
    FILE *file = name ? fopen(name, "w") : NULL;
    if (file) {
        fprintf(file, "%ld", writes);
        fclose(file);
    }
}
