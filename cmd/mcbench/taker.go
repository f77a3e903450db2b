package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// The neighbour is a process of its own, this program again, so that what it
// holds goes with it however this one ends. It is told by lines how much to
// take, and answers how long that took.

// takerCommand is the neighbour's side. It is not for people.
func takerCommand(app *kingpin.Application) (string, action) {
	c := app.Command("take-memory", "Take memory as lines of the input say, until that ends.").Hidden()
	return c.FullCommand(), func(_ context.Context, out io.Writer) error { return takeMemory(os.Stdin, out) }
}

const takeStep = 1 << 20

// takeMemory reads lines of how many bytes to take, and how many a second at
// most, 0 for as fast as it goes, asideRate for huge pages that are set aside.
// What was set aside is given back at the end of the input.
func takeMemory(in io.Reader, out io.Writer) error {
	aside := hugePages{file: hugePagesFile}
	defer aside.giveBack()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var bytes, perSecond int64
		if _, err := fmt.Sscan(lines.Text(), &bytes, &perSecond); err != nil || bytes < 0 || perSecond < asideRate {
			return fmt.Errorf("bytes and bytes a second, not %q", lines.Text())
		}
		began := time.Now()
		take := take
		if perSecond == asideRate {
			take = aside.take
		}
		if err := take(bytes, perSecond); err != nil {
			return err
		}
		fmt.Fprintln(out, time.Since(began).Microseconds())
	}
	return lines.Err()
}

// hugePages sets memory aside for programs that ask for huge pages. The kernel
// zeroes none of it, so that 2 GiB are gone in milliseconds: no neighbour takes
// memory faster. It is an administrator's right, and of the whole machine.
type hugePages struct {
	file   string
	before int // pages, if changed
	change bool
}

const (
	asideRate     = -1
	hugePagesFile = "/proc/sys/vm/nr_hugepages"
	hugePageBytes = 2 << 20
	asideTries    = 5
)

func (h *hugePages) read() (int, error) {
	b, err := os.ReadFile(h.file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// take sets so many bytes more aside. To take none has the kernel bring its free
// pages together, so that there are huge ones to be taken later.
func (h *hugePages) take(bytes, _ int64) error {
	if bytes == 0 {
		return os.WriteFile(filepath.Join(filepath.Dir(h.file), "compact_memory"), []byte("1"), 0o200)
	}
	now, err := h.read()
	if err != nil {
		return err
	}
	if !h.change {
		h.before, h.change = now, true
	}
	want := now + int((bytes+hugePageBytes-1)/hugePageBytes)
	for range asideTries { // each has the kernel move other pages out of the way
		if err = os.WriteFile(h.file, []byte(strconv.Itoa(want)), 0o644); err != nil {
			return err
		}
		if now, err = h.read(); err != nil || now >= want {
			return err
		}
	}
	return fmt.Errorf("%d huge pages of %d were to be had", now, want)
}

func (h *hugePages) giveBack() {
	if h.change {
		_ = os.WriteFile(h.file, []byte(strconv.Itoa(h.before)), 0o644)
	}
}

// take maps memory and makes its pages present; it is never given back.
func take(bytes, perSecond int64) error {
	if bytes == 0 {
		return nil
	}
	mem, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	// With huge pages the kernel hands it out several times as fast. It may
	// have none; then it is pages of 4 KiB.
	_ = syscall.Madvise(mem, syscall.MADV_HUGEPAGE)
	began := time.Now()
	for at := 0; at < len(mem); at += takeStep {
		if perSecond > 0 {
			time.Sleep(time.Duration(float64(at)/float64(perSecond)*float64(time.Second)) - time.Since(began))
		}
		step := mem[at:min(at+takeStep, len(mem))]
		for i := 0; i < len(step); i += 4096 {
			step[i] = 1
		}
	}
	return nil
}

// taker is a neighbour under way.
type taker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err strings.Builder
}

func startTaker(ctx context.Context) (*taker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	t := &taker{cmd: exec.CommandContext(ctx, self, "take-memory")}
	t.cmd.Stderr = &t.err
	in, err1 := t.cmd.StdinPipe()
	out, err2 := t.cmd.StdoutPipe()
	if err1 == nil {
		t.cmd.Cancel = in.Close // as when this process ends, however it does
	}
	t.cmd.WaitDelay = time.Minute
	if err := errors.Join(err1, err2, t.cmd.Start()); err != nil {
		return nil, err
	}
	t.in, t.out = in, bufio.NewReader(out)
	return t, nil
}

// take has the neighbour take memory, and returns how long that took it.
func (t *taker) take(bytes, perSecond int64) (time.Duration, error) {
	var us int64
	_, err := fmt.Fprintln(t.in, bytes, perSecond)
	if err == nil {
		_, err = fmt.Fscanln(t.out, &us)
	}
	if err != nil {
		return 0, fmt.Errorf("the neighbour did not get %d bytes: %w %s", bytes, err, strings.TrimSpace(t.err.String()))
	}
	return time.Duration(us) * time.Microsecond, nil
}

// stop ends the neighbour, and what it took is back.
func (t *taker) stop() {
	t.in.Close()
	t.cmd.Wait()
}
