package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A lab is a network of daemons, each in a network namespace of its own, that go by
// a switch which the test is: it cuts the network, delays frames and loses them.
// Kernels often lack what tc needs for that.
//
//	n0 ── tap ─┐
//	n1 ── tap ─┤ switch (goroutines of the test)
//	n2 ── tap ─┤
//	test ─ tap ┘
//
// The test has itself run again in namespaces of its own, so that nothing of the
// machine's network is touched, and nothing is left.
type lab struct {
	t     *testing.T
	ports []*port
	key   string // the cluster's key file
	redis bool   // daemons serve Redis clients, at port 6380
}

// port is a place of the switch.
type port struct {
	tap  *os.File
	side atomic.Int32 // frames go to ports of the same side
	slow atomic.Bool  // frames from it are delayed and lost
	out  chan frameAt
}

type frameAt struct {
	frame []byte
	at    time.Time
}

const (
	labEnv = "E2E_LAB"
	// longEnv has cuts and stops last as long as the design's table of figures says,
	// and holds them to its bounds, which are for a machine that does nothing else.
	longEnv = "E2E_LONG"

	slowBy   = 300 * time.Millisecond
	slowLoss = 0.2
	maxFrame = 2048
)

// long is how long something lasts: short by default, full where that is asked for.
func long(short, full time.Duration) time.Duration {
	if os.Getenv(longEnv) != "" {
		return full
	}
	return short
}

// inLab runs a test in a lab of n daemons' places and one more, which is the test's.
func inLab(t *testing.T, n int, test func(l *lab)) {
	t.Helper()
	if os.Getenv(labEnv) == t.Name() {
		test(newLab(t, n))
		return
	}
	t.Parallel()
	for program, debianPackage := range map[string]string{"unshare": "util-linux", "ip": "iproute2"} {
		realServer(t, program, debianPackage)
	}
	const try = "mount -t tmpfs tmpfs /run && ip link set lo up && ip netns add x && ip tuntap add dev x mode tap"
	if out, err := exec.Command("unshare", "--net", "--mount", "--map-root-user", "sh", "-c", try).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this machine allows no network of one's own: %v %s", err, out)
		}
		t.Skipf("this machine allows no network of one's own: %v %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "--net", "--mount", "--map-root-user", "sh", "-c", `mount -t tmpfs tmpfs /run && ip link set lo up && exec "$0" "$@"`,
		self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+(4*patience).String())
	c.Env = append(os.Environ(), labEnv+"="+t.Name(), "MCACHED_TEST_BINARY="+daemonBinary(t))
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("in a network of its own: %v\n%s", err, tail(string(out), 200))
		return
	}
	t.Logf("%s", tail(string(out), 20))
}

func newLab(t *testing.T, n int) *lab {
	l := &lab{t: t, key: keyFile(t)}
	for i := range n + 1 {
		name := fmt.Sprintf("tap%d", i)
		p := &port{tap: openTap(t, name), out: make(chan frameAt, 1024)}
		l.ports = append(l.ports, p)
		ns := []string{}
		if i < n {
			l.ip("netns", "add", labName(i))
			l.ip("link", "set", name, "netns", labName(i))
			ns = []string{"-n", labName(i)}
			l.ip("-n", labName(i), "link", "set", "lo", "up")
		}
		l.ip(append(ns, "addr", "add", fmt.Sprintf("10.9.0.%d/24", i+1), "dev", name)...)
		l.ip(append(ns, "link", "set", name, "up")...)
	}
	for _, p := range l.ports {
		go l.receive(p)
		go p.send()
	}
	return l
}

func labName(i int) string { return fmt.Sprintf("n%d", i) }

func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %v: %v %s", args, err, out)
	}
}

// openTap makes a network interface of which the test reads and writes the frames.
func openTap(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// receive hands on what comes from a port, until it is closed.
func (l *lab) receive(p *port) {
	buf := make([]byte, maxFrame)
	for {
		n, err := p.tap.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil { // while it is being set up
			time.Sleep(10 * time.Millisecond)
			continue
		}
		f := frameAt{append([]byte(nil), buf[:n]...), time.Now()}
		if p.slow.Load() {
			if rand.Float64() < slowLoss {
				continue
			}
			f.at = f.at.Add(slowBy)
		}
		for _, to := range l.ports { // a hub: whom it is not for drops it
			// The test is on all sides.
			if last := l.ports[len(l.ports)-1]; to == p || to != last && p != last && to.side.Load() != p.side.Load() {
				continue
			}
			select {
			case to.out <- f:
			default: // as a switch does that has no room
			}
		}
	}
}

// send writes frames to a port when it is time, until the process ends.
func (p *port) send() {
	for f := range p.out {
		if d := time.Until(f.at); d > 0 {
			time.AfterFunc(d, func() { _, _ = p.tap.Write(f.frame) })
			continue
		}
		_, _ = p.tap.Write(f.frame)
	}
}

// cut has the first n daemons and the others no longer reach each other.
func (l *lab) cut(n int) {
	for i, p := range l.ports {
		side := int32(0)
		if i >= n {
			side = 1
		}
		p.side.Store(side)
	}
}

// heal ends a cut.
func (l *lab) heal() { l.cut(len(l.ports)) }

// cluster runs a daemon in each place, as one cluster.
func (l *lab) cluster(flags ...string) *group {
	l.t.Helper()
	g := &group{t: l.t}
	var names []string
	for i := range len(l.ports) - 1 {
		at := fmt.Sprintf("10.9.0.%d", i+1)
		resp := []string{"--resp.listen-address=off"}
		if l.redis {
			resp = []string{"--resp.listen-address=" + at + ":6380", "--resp.protected-mode=false"}
		}
		args := append([]string{"--cluster.name=lab", "--cluster.node-name=" + labName(i), "--cluster.key-file=" + l.key, "--cluster.join=10.9.0.1:7946",
			"--cluster.listen-address=" + at + ":7946", "--web.listen-address=" + at + ":9201", "--self-scrape.interval=0"}, append(resp, flags...)...)
		g.members = append(g.members, startServerBy(l.t, []string{"ip", "netns", "exec", labName(i)}, args...))
		names = append(names, labName(i))
	}
	g.wait(names...)
	return g
}
