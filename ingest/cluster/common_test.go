package cluster

import (
	"strings"
	"testing"
)

// TestOtherwise: who is told that members are configured otherwise is told which flag it
// is, and both values.
func TestOtherwise(t *testing.T) {
	here := []Setting{{"--cluster.copies", "2"}, {"--cluster.ignore-labels", "a,b c"}, {"--tenancy.header", ""}}
	change := func(flag, value string) []Setting {
		list := append([]Setting(nil), here...)
		for i := range list {
			if list[i].Flag == flag {
				list[i].Value = value
			}
		}
		return list
	}
	long := strings.Repeat("é", 100)
	for _, c := range []struct {
		there []Setting
		place uint32
		want  string
	}{
		{here, 1, ""},
		{here, 2, "the first line of --cluster.key-file is another there"},
		{change("--cluster.copies", "3"), 2, `--cluster.copies is "3" there and "2" here`},
		{change("--cluster.ignore-labels", "x=y&z"), 2, `--cluster.ignore-labels is "x=y&z" there and "a,b c" here`},
		{change("--tenancy.header", "X-Scope-OrgID"), 1, `--tenancy.header is "X-Scope-OrgID" there and "" here`},
		{change("--tenancy.header", long), 1, `--tenancy.header is "crc32:`},
		{append(change("--cluster.copies", "3"), Setting{"--of-another-release", "1"}), 2, `--cluster.copies is "3" there and "2" here`},
		{here[1:], 1, ""},
		{nil, 1, ""},
		{nil, 2, "the first line of --cluster.key-file, --cluster.copies,"},
	} {
		self, m := Member{Place: 1, Common: Common(here)}, Member{Place: c.place, Common: Common(c.there)}
		if got := m.Otherwise(self); got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%+v, place %d: %q, want %q", c.there, c.place, got, c.want)
		}
	}
	if got := Common([]Setting{{"--" + strings.Repeat("f", maxCommonBytes), "1"}}); got != "" {
		t.Errorf("too much is told: %q", got)
	}
}

// TestCommonTravels: what is told of flags is left out where there is no room, and that of
// a stranger is bounded.
func TestCommonTravels(t *testing.T) {
	m := Member{ID: "a#1", Name: "a", HTTP: "http://x:1", Common: Common([]Setting{{"--cluster.copies", "2"}})}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := decodeMember(b); err != nil || back != m {
		t.Errorf("%+v came back as %+v, %v", m, back, err)
	}
	full := m
	full.HTTP += strings.Repeat("1", maxStateBytes-len(b)+10)
	if b, err = full.encode(); err != nil {
		t.Fatal("there is room without the flags:", err)
	}
	if back, err := decodeMember(b); err != nil || back.Common != "" || back.HTTP != full.HTTP {
		t.Errorf("%+v came back as %+v, %v", full, back, err)
	}
	m.Common = strings.Repeat("x", maxCommonBytes+1)
	if b, err = m.encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeMember(b); err == nil {
		t.Error("a member may tell more of its flags than a member does")
	}
}
