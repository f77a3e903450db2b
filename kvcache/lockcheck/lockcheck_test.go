package lockcheck

import (
	"slices"
	"strings"
	"testing"
)

// TestRule breaks each part of the rule once.
func TestRule(t *testing.T) {
	faults, needing, err := Check(Rule{
		Dir: "testdata", Type: "box", Mutex: "mu", Parts: []string{"part"},
		Except: map[string]string{"allowed": "a test", "box.length": "it needs none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"box.bare needs the lock, and its name",
		"box.viaPart needs the lock, and its name",
		"part.partBare needs the lock, and its name",
		"box.calls needs the lock, and its name",
		"box.freeLocked needs no lock",
		"box.takesLocked takes the lock, and is named",
		"box.twiceLocked needs the lock, and calls what takes it",
		"box.quietLocked lets go",
		"box.laterLocked lets go",
		"box.before needs the lock, and its name",
		"outside uses what the lock guards",
		"box.length: is an exception, and needs none",
	}
	for _, w := range want {
		n := len(faults)
		if faults = slices.DeleteFunc(faults, func(f string) bool { return strings.Contains(f, w) }); len(faults) != n-1 {
			t.Errorf("%q: %d faults, not one", w, n-len(faults))
		}
	}
	if len(faults) > 0 || needing < 10 {
		t.Errorf("not faults: %q; %d functions need the lock", faults, needing)
	}
}

func TestNoSuch(t *testing.T) {
	for _, r := range []Rule{
		{Dir: "none", Type: "box", Mutex: "mu"},
		{Dir: "testdata", Type: "crate", Mutex: "mu"},
		{Dir: "testdata", Type: "box", Mutex: "lock"},
		{Dir: "testdata", Type: "box", Mutex: "mu", Parts: []string{"parts"}},
	} {
		if _, _, err := Check(r); err == nil {
			t.Errorf("%+v: no error", r)
		}
	}
}
