package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// group are daemons that are one cache, as members of one cluster on loopback.
type group struct {
	t       testing.TB
	flags   []string
	members []*server // in the order in which they were started; some may have ended
	gossip  []string  // their addresses of gossip, likewise
}

var gossipInOutput = regexp.MustCompile(`msg=Cluster\. .* gossip=(\S+)`)

// startCluster runs n daemons, n0 and so on, with more flags, until the test
// ends, and returns when each sees all of them ready. Members wait for each other
// longer than by default: the machine may be busy, and who was killed refuses at once.
func startCluster(t testing.TB, n int, flags ...string) *group {
	t.Helper()
	g := &group{t: t, flags: append(slices.Clone(flags), "--cluster.read-timeout=20s")}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%d", i))
		g.start(names[i])
	}
	g.wait(names...)
	return g
}

// start runs another member, which knows of all that were started before.
func (g *group) start(name string, flags ...string) *server {
	g.t.Helper()
	args := append(slices.Clone(g.flags), "--cluster.name=e2e", "--cluster.node-name="+name, "--cluster.listen-address=127.0.0.1:0", "--self-scrape.interval=0")
	for _, a := range g.gossip {
		args = append(args, "--cluster.join="+a)
	}
	s := startServer(g.t, append(args, flags...)...)
	m := gossipInOutput.FindStringSubmatch(s.output())
	if m == nil {
		g.t.Fatal("the daemon does not say where its gossip is")
	}
	g.members, g.gossip = append(g.members, s), append(g.gossip, m[1])
	return s
}

// clusterView is how a member sees its cluster.
type clusterView struct {
	Name    string
	Members []struct {
		Name, State, HTTP, RESP string
		Self                    bool
		Share, Keys             float64
	}
}

func (s *server) cluster() (v clusterView, err error) {
	var a struct{ Data clusterView }
	err = s.get("/api/v1/status/cluster", &a)
	return a.Data, err
}

// running are the members whose process has not ended.
func (g *group) running() (all []*server) {
	for _, s := range g.members {
		select {
		case <-s.exited:
		default:
			all = append(all, s)
		}
	}
	return all
}

// wait returns when each running member sees exactly these, ready.
func (g *group) wait(names ...string) {
	g.t.Helper()
	for _, s := range g.running() {
		eventually(g.t, "each member sees "+strings.Join(names, ", "), func() error {
			v, err := s.cluster()
			if err != nil {
				return err
			}
			var seen []string
			for _, m := range v.Members {
				if m.State == "ready" {
					seen = append(seen, m.Name)
				}
			}
			slices.Sort(seen)
			if !slices.Equal(seen, names) || len(v.Members) != len(names) {
				return fmt.Errorf("%s sees %+v", s.url, v.Members)
			}
			return nil
		})
	}
}

func TestClusterMembers(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3)
	share := 0.0
	for _, s := range g.members {
		v, err := s.cluster()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range v.Members {
			if m.Self != (m.HTTP == s.url) {
				t.Errorf("%s takes %s for itself: %v", s.url, m.HTTP, m.Self)
			}
			if m.Self && m.RESP != s.resp {
				t.Errorf("%s tells clients %s, but serves them at %s", m.Name, m.RESP, s.resp)
			}
			if m.Self {
				share += m.Share
			}
		}
		if n := s.metric(`mcached_cluster_members{state="ready"}`); n != 3 {
			t.Errorf("the metric counts %v members", n)
		}
	}
	if share < 0.999 || share > 1.001 {
		t.Errorf("the members own %.3f of all together", share)
	}
	out, err := exec.Command(daemonBinary(t), "cluster", "--url="+g.members[1].url).CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, "Cluster e2e: 3 members, 2 copies") || strings.Count(text, "ready") != 3 || strings.Count(text, "n1 *") != 1 {
		t.Errorf("mcached cluster: %v\n%s", err, out)
	}

	// One leaves in order, one is killed.
	if code := g.members[2].stop(); code != exitOK {
		t.Error("exit code", code)
	}
	g.wait("n0", "n1")
	if lost := g.members[0].metric("mcached_cluster_members_lost_total"); lost != 0 {
		t.Errorf("a member that left in order counts as lost (%v)", lost)
	}
	_ = g.members[1].cmd.Process.Signal(syscall.SIGKILL)
	<-g.members[1].exited
	g.wait("n0")
	if lost := g.members[0].metric("mcached_cluster_members_lost_total"); lost != 1 {
		t.Errorf("%v members lost, want the one that was killed", lost)
	}
	g.start("n1")
	g.wait("n0", "n1")
}

// A daemon that nobody lets in, because the seed is wrong or another cluster's,
// says so in one line and is not ready.
func TestClusterWrongSeed(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 1)
	for what, flags := range map[string][]string{
		"nobody there": {"--cluster.join=127.0.0.1:1"},
		"another name": {"--cluster.join=" + g.gossip[0], "--cluster.name=other"},
		"another key":  {"--cluster.join=" + g.gossip[0], "--cluster.name=e2e", "--cluster.key-file=" + keyFile(t)},
	} {
		began := time.Now()
		p := start(t, daemonBinary(t), append(flags, "--cluster.listen-address=127.0.0.1:0", "--web.listen-address=127.0.0.1:0", "--resp.listen-address=off", "--memory.size=64MiB")...)
		url := ""
		eventually(t, what+": it listens", func() error {
			p.alive()
			if m := urlInOutput.FindStringSubmatch(p.output()); m != nil {
				url = m[1]
				return nil
			}
			return fmt.Errorf("no URL in its output")
		})
		eventually(t, what+": it says that it is alone", func() error {
			if !strings.Contains(p.output(), "No seed let this daemon in") {
				return fmt.Errorf("its output is %s", p.output())
			}
			return nil
		})
		s := &server{process: p, url: url}
		if alone, ok := s.hasMetric("mcached_cluster_alone"); !ok || alone != 1 {
			t.Errorf("%s: mcached_cluster_alone is %v", what, alone)
		}
		res, err := http.Get(url + "/-/ready")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK && time.Since(began) < 30*time.Second {
			t.Errorf("%s: ready before it waited", what)
		}
		if n := strings.Count(p.output(), "level=WARN"); n != 1 {
			t.Errorf("%s: %d warnings, want one", what, n)
		}
	}
	if v, err := g.members[0].cluster(); err != nil || len(v.Members) != 1 {
		t.Errorf("a stranger was let in: %+v, %v", v, err)
	}
}

func keyFile(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("a secret that all members share\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A wrong command line is one line, by the daemon and by check-config.
func TestClusterFlags(t *testing.T) {
	key := keyFile(t)
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags []string
		want  string // "" for none
	}{
		{[]string{"--cluster.join=127.0.0.1:7946"}, ""},
		{[]string{"--cluster.name=x", "--cluster.listen-address=0.0.0.0:7946"}, "--cluster.key-file"},
		{[]string{"--cluster.name=x", "--cluster.listen-address=0.0.0.0:7946", "--cluster.key-file=" + short, "--web.listen-address=:9201", "--resp.listen-address=off"}, "16 bytes"},
		{[]string{"--cluster.name=x", "--cluster.listen-address=0.0.0.0:7946", "--cluster.key-file=" + key}, "--web.listen-address"},
		{[]string{"--cluster.name=x", "--cluster.listen-address=0.0.0.0:7946", "--cluster.key-file=" + key, "--web.listen-address=:9201"}, "--resp.listen-address"},
		{[]string{"--cluster.name=x", "--cluster.listen-address=0.0.0.0:7946", "--cluster.key-file=" + key, "--web.listen-address=:9201", "--resp.listen-address=off"}, ""},
		{[]string{"--cluster.name=x", "--cluster.listen-address=:7946", "--cluster.key-file=" + key, "--web.listen-address=:9201", "--cluster.advertise-resp=10.0.0.1:6379", "--cluster.advertise-address=10.0.0.1"}, ""},
		{[]string{"--cluster.name=x", "--cluster.advertise-address=somewhere"}, "--cluster.advertise-address"},
		{[]string{"--cluster.join=somewhere"}, "--cluster.join"},
		{[]string{"--cluster.join=dns+mcached:7946", "--cluster.copies=9"}, "--cluster.copies"},
		{[]string{"--cluster.name=x", "--cluster.write-acks=3"}, "--cluster.write-acks"},
		{[]string{"--cluster.name=x", "--cluster.blob-copies=2"}, ""},
		{[]string{"--cluster.name=x", "--cluster.blob-copies=3"}, "--cluster.blob-copies"},
		{[]string{"--cluster.name=x", "--cluster.blob-copies=0"}, "--cluster.blob-copies"},
		{[]string{"--cluster.name=x", "--cluster.spread=1"}, "--cluster.spread"},
		{[]string{"--cluster.name=x", "--cluster.read-timeout=0"}, "--cluster.read-timeout"},
		{[]string{"--cluster.name=x", "--cluster.http-config-file=/nowhere"}, "--cluster.http-config-file"},
		{[]string{"--cluster.name=x", "--cluster.resp=guess"}, "--cluster.resp"},
		{[]string{"--cluster.name=" + strings.Repeat("x", 65)}, "--cluster.name"},
		{[]string{"--cluster.zone=a"}, "--cluster.zone"},
	} {
		out, err := exec.Command(daemonBinary(t), append([]string{"check-config"}, c.flags...)...).CombinedOutput()
		if text := string(out); (err == nil) != (c.want == "") || !strings.Contains(text, c.want) || strings.Count(text, "\n") != 1 {
			t.Errorf("%v: %v, want %q\n%s", c.flags, err, c.want, out)
		}
	}
}
