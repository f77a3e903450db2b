package pressure

import (
	"errors"
	"testing"
	"testing/fstest"
)

func TestTotalBytesIsOfTheTightest(t *testing.T) {
	machine := fstest.MapFS{
		"proc/meminfo": {Data: []byte("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")},
	}
	if n, err := TotalBytes(machine); n != 16<<30 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	machine["proc/self/cgroup"] = &fstest.MapFile{Data: []byte("0::/a\n")}
	machine["sys/fs/cgroup/a/memory.max"] = &fstest.MapFile{Data: []byte("1073741824\n")}
	machine["sys/fs/cgroup/a/memory.current"] = &fstest.MapFile{Data: []byte("1048576\n")}
	if n, err := TotalBytes(machine); n != 1<<30 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := TotalBytes(fstest.MapFS{}); !errors.Is(err, ErrUnreadable) {
		t.Error(err)
	}
}
