package query

import (
	"fmt"
	"math"
	"testing"

	"mcached/mcache"
)

// A counter that stood still and then ended is zero as long as it was there, and
// not until the end of the range.
func TestPushedZerosEnd(t *testing.T) {
	tc := newTestCluster(t, 1, FanOutOptions{}, "a", "b", "c")
	for i := range 12 {
		for k := range int64(20) {
			tc.write("default", seriesOf(t, fmt.Sprintf("m_total{i=%d}", i)), mcache.Sample{T: t0 + k*15_000, V: math.Float64bits(7)})
		}
	}
	for _, n := range tc.lives() {
		n.fan.o.NoPushDown = true
		r := []string{"query", "rate(m_total[1m])", "start", seconds(t0), "end", seconds(t0 + 900_000), "step", "15"}
		want := get(t, n.api, "query_range", r...).Body.String()
		n.fan.o.NoPushDown = false
		if got := get(t, n.api, "query_range", r...).Body.String(); got != want {
			t.Errorf("%s computes %.500s\nwant %.500s", n.name, got, want)
		}
		if st := n.fan.Stats(); st.Pushed == 0 {
			t.Errorf("nothing was pushed: %+v", st)
		}
	}
}
