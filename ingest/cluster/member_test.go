package cluster

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMemberTravels(t *testing.T) {
	m := Member{ID: "mcached-0#1700000000000", Name: "mcached-0", HTTP: "https://mcached-0.mcached.default.svc:9201", RESP: "10.244.113.214:6379",
		Zone: "eu-central-1a", Weight: 17, State: Ready, Place: 1 << 31, Version: "1.2.3", Fills: true}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeMember(b)
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Fatalf("%+v came back as %+v, %v", m, back, err)
	}
	t.Logf("%d bytes", len(b))
	m.HTTP = "http://" + strings.Repeat("x", 500)
	if _, err := m.encode(); !errors.Is(err, ErrMember) {
		t.Error("a member of more than 512 bytes:", err)
	}
	for _, bad := range []string{`{"i":"a#1"}`, `{"i":"a#1","h":"ftp://x"}`, `{"i":"a#1","h":"http://x:1","r":"host:6379"}`, `{"i":"a#1","h":"http://x:1","r":"10.0.0.1:0"}`, "", "null", "{}", `{"i":"a"}`, `{"i":"#1"}`, `{"i":"a#-"}`, `{"i":"a#01"}`, `{"i":"a#1","s":3}`, `{"i":"a#1","w":41}`, `{"i":"a#1","w":-1}`,
		`{"i":"` + strings.Repeat("n", 65) + `#1"}`, `{"i":"a#1","z":"` + strings.Repeat("z", 65) + `"}`, `{"i":"a#1","h":"` + strings.Repeat("z", 600) + `"}`} {
		if m, err := decodeMember([]byte(bad)); !errors.Is(err, ErrMember) {
			t.Errorf("%.60s: %+v, %v", bad, m, err)
		}
	}
}
