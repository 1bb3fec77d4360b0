package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// cpuTime is the CPU time that all threads of a process have used. It is read
// from the process's CPU clock, which counts nanoseconds, where getrusage and
// /proc/<pid>/stat count ticks of 10 ms or wait for its end.
func cpuTime(pid int) (time.Duration, bool) {
	// clock_getcpuclockid(3): the complement of the id, then CPUCLOCK_SCHED.
	const sched = 2
	var ts syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|sched), uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano()), errno == 0
}

// memory is the resident memory of a process now and at its peak, in bytes. It
// does not come from getrusage: a child's maximum starts at its parent's.
func memory(pid int) (now, peak int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64) // other lines hold other things
		switch key {
		case "VmRSS":
			now = kb << 10
		case "VmHWM":
			peak = kb << 10
		}
	}
	if now == 0 || peak == 0 {
		return 0, 0, errors.Join(lines.Err(), fmt.Errorf("process %d has no memory", pid))
	}
	return now, peak, nil
}
