package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process reads the books the kernel keeps of a server. The zero value is no
// process and reads as nothing.
type process struct {
	root string // "/proc"
	pid  int
}

// usage is a reading of a process.
type usage struct {
	cpu      time.Duration // user and system
	user     time.Duration
	rssBytes int64
}

// clockTick is the unit of /proc/PID/stat, on every Linux for user space.
const clockTick = 10 * time.Millisecond

func (p process) usage() (usage, error) {
	if p.pid == 0 {
		return usage{}, nil
	}
	dir := filepath.Join(p.root, strconv.Itoa(p.pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return usage{}, fmt.Errorf("--pid: %w", err)
	}
	// The second field is a name in brackets that may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 22 {
		return usage{}, fmt.Errorf("--pid: %s/stat has %d fields after the name, want at least 22", dir, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	pages, err3 := strconv.ParseInt(fields[21], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return usage{}, fmt.Errorf("--pid: %s/stat holds no numbers: %q", dir, stat)
	}
	return usage{time.Duration(user+system) * clockTick, time.Duration(user) * clockTick, pages * int64(os.Getpagesize())}, nil
}

// cpuTime is what usage has as cpu, to the nanosecond: by the clock that
// clock_getcpuclockid(3) names.
func (p process) cpuTime() (time.Duration, error) {
	const scheduled = 2 // of user and system, as the scheduler counts
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid)<<3|scheduled, &t); err != nil {
		return 0, fmt.Errorf("the processor time of process %d: %w", p.pid, err)
	}
	return time.Duration(t.Nano()), nil
}
