package pressure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Limit is one bound on memory that we are under: the machine's, or a
// control group's.
type Limit struct {
	Name           string // "node", or the control group's directory
	TotalBytes     int64
	AvailableBytes int64
}

// Reading is what the files say at one time.
type Reading struct {
	Limits []Limit // those that could be read; at least one
	// StalledMicros is for how long some task had to wait for memory, since
	// boot. It is 0 where the kernel does not say.
	StalledMicros int64
}

// errNonsense says that a file could be read, but not be right.
var errNonsense = errors.New("pressure: a reading that cannot be right")

// maxBytes is above any machine's memory; more is nonsense, or in version 1 of
// the control groups the word for no limit.
const maxBytes = 1 << 50

// reader knows where to look. It keeps no files open: to open, read and close
// one takes about 10 µs, at most fifty times a second.
type reader struct {
	fs     fs.FS
	groups []group // of this process, innermost first
}

// group is one directory of control groups.
type group struct {
	dir string // without a leading slash, as fs.FS has it
	v2  bool
}

// maxGroups bounds how many ancestors are read.
const maxGroups = 64

// newReader finds the control groups of this process. Where there are none to
// be seen, the node's memory is all there is.
func newReader(f fs.FS) *reader {
	r := &reader{fs: f}
	mounts := cgroupMounts(f)
	b, err := fs.ReadFile(f, "proc/self/cgroup")
	if err != nil {
		return r
	}
	for l := range strings.Lines(string(b)) {
		// hierarchy:controllers:path
		p := strings.SplitN(strings.TrimSuffix(l, "\n"), ":", 3)
		if len(p) != 3 {
			continue
		}
		v2 := p[0] == "0" && p[1] == ""
		if !v2 && !hasWord(p[1], "memory") {
			continue
		}
		for _, m := range mounts {
			if m.v2 == v2 {
				r.groups = append(r.groups, m.ancestors(p[2])...)
				break
			}
		}
	}
	r.groups = r.groups[:min(len(r.groups), maxGroups)]
	return r
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// mount is where a hierarchy of control groups can be seen.
type mount struct {
	root  string // the group that is mounted
	point string // where
	v2    bool
}

// cgroupMounts reads the mounts of both versions. Without a list of mounts it
// returns the usual places.
func cgroupMounts(f fs.FS) []mount {
	b, err := fs.ReadFile(f, "proc/self/mountinfo")
	if err != nil {
		return []mount{{"/", "/sys/fs/cgroup", true}, {"/", "/sys/fs/cgroup/memory", false}}
	}
	var ms []mount
	for l := range strings.Lines(string(b)) {
		// 29 23 0:26 /root /point rw,nosuid shared:9 - cgroup2 cgroup2 rw,memory_recursiveprot
		before, after, ok := strings.Cut(l, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 3 {
			continue
		}
		m := mount{root: fields[3], point: fields[4], v2: rest[0] == "cgroup2"}
		if m.v2 || rest[0] == "cgroup" && hasWord(rest[2], "memory") {
			ms = append(ms, m)
		}
	}
	return ms
}

// ancestors are the directories of a group and of all above it that can be
// seen. A path that is not below what is mounted is one of another namespace;
// then only the mount point itself can be ours.
func (m mount) ancestors(group_ string) []group {
	rel, ok := strings.CutPrefix(path.Clean(group_), strings.TrimSuffix(m.root, "/"))
	if !ok || rel != "" && rel[0] != '/' || strings.HasPrefix(group_, "/..") {
		rel = ""
	}
	top := path.Join(".", path.Clean("/" + m.point)[1:])
	dir := path.Join(top, rel)
	var gs []group
	for len(gs) < maxGroups {
		gs = append(gs, group{dir, m.v2})
		if dir == top || dir == "." {
			break
		}
		dir = path.Dir(dir)
	}
	return gs
}

// read reads everything. The error, if there is not one limit to be read,
// says why.
func (r *reader) read() (Reading, error) {
	var out Reading
	var errs []error
	if l, err := r.node(); err == nil {
		out.Limits = append(out.Limits, l)
	} else {
		errs = append(errs, err)
	}
	for _, g := range r.groups {
		l, ok, err := r.group(g)
		if err != nil {
			errs = append(errs, err)
		} else if ok {
			out.Limits = append(out.Limits, l)
		}
		if g.v2 {
			out.StalledMicros = max(out.StalledMicros, r.stalled(g.dir+"/memory.pressure"))
		}
	}
	out.StalledMicros = max(out.StalledMicros, r.stalled("proc/pressure/memory"))
	if len(out.Limits) == 0 {
		return out, errors.Join(errs...)
	}
	return out, nil
}

// TotalBytes is the least of the limits that this process is under, the
// machine's memory included. A nil file system means the real one.
func TotalBytes(f fs.FS) (int64, error) {
	if f == nil {
		f = os.DirFS("/")
	}
	reading, err := newReader(f).read()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	total := int64(maxBytes)
	for _, l := range reading.Limits {
		total = min(total, l.TotalBytes)
	}
	return total, nil
}

// node reads the machine's memory.
func (r *reader) node() (Limit, error) {
	const name = "proc/meminfo"
	b, err := fs.ReadFile(r.fs, name)
	if err != nil {
		return Limit{}, err
	}
	total, ok1 := field(b, "MemTotal:")
	avail, ok2 := field(b, "MemAvailable:")
	if !ok1 || !ok2 || total <= 0 || total > maxBytes>>10 || avail < 0 || avail > total {
		return Limit{}, fmt.Errorf("%w: /%s: MemTotal %d kB, MemAvailable %d kB", errNonsense, name, total, avail)
	}
	return Limit{"node", total << 10, avail << 10}, nil
}

// group reads a control group. It reports false if that has no limit.
func (r *reader) group(g group) (Limit, bool, error) {
	current, stat, limits := "memory.current", "inactive_file", []string{"memory.max", "memory.high"}
	if !g.v2 {
		current, stat, limits = "memory.usage_in_bytes", "total_inactive_file", []string{"memory.limit_in_bytes"}
	}
	limit := int64(maxBytes)
	for _, name := range limits {
		n, err := r.number(g.dir + "/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the root group, or a controller that is off
		}
		if err != nil {
			return Limit{}, false, err
		}
		limit = min(limit, n)
	}
	if limit >= maxBytes {
		return Limit{}, false, nil
	}
	used, err := r.number(g.dir + "/" + current)
	if err != nil {
		return Limit{}, false, err
	}
	// Pages of files that were not read of late go before anyone is killed.
	// Without the statistics none are counted: the safe side.
	b, _ := fs.ReadFile(r.fs, g.dir+"/memory.stat")
	cached, _ := field(b, stat)
	if cached < 0 || cached > used {
		cached = 0
	}
	return Limit{"/" + g.dir, limit, max(0, limit-(used-cached))}, true, nil
}

// number reads a file with one number, or the word max.
func (r *reader) number(name string) (int64, error) {
	b, err := fs.ReadFile(r.fs, name)
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b[:min(len(b), 64)]))
	if s == "max" {
		return maxBytes, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: /%s: %q", errNonsense, name, s)
	}
	return n, nil
}

// stalled reads the total of the line "some" of a pressure file, or 0.
func (r *reader) stalled(name string) int64 {
	b, err := fs.ReadFile(r.fs, name)
	if err != nil {
		return 0
	}
	// some avg10=0.00 avg60=0.00 avg300=0.00 total=0
	for l := range strings.Lines(string(b)) {
		if _, total, ok := strings.Cut(l, "total="); ok && strings.HasPrefix(l, "some ") {
			n, err := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
			if err != nil || n < 0 {
				return 0
			}
			return n
		}
	}
	return 0
}

// field finds the number after a name at the start of a line.
func field(b []byte, name string) (int64, bool) {
	for len(b) > 0 {
		l := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			l, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		rest, ok := bytes.CutPrefix(l, []byte(name))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) == 0 || rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		n, err := strconv.ParseInt(string(f[0]), 10, 64)
		return n, err == nil
	}
	return 0, false
}
