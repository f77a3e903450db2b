package query

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// reference writes with Prometheus' own functions.
func reference(f func(*jsoniter.Stream)) string {
	var b bytes.Buffer
	s := jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, &b, 64)
	f(s)
	s.Flush()
	return b.String()
}

func checkFloat(t *testing.T, f float64) {
	t.Helper()
	want := reference(func(s *jsoniter.Stream) { jsonutil.MarshalFloat(f, s) })
	if got := `"` + string(appendFloat(nil, f)) + `"`; got != want {
		t.Errorf("appendFloat(%x) = %s, want %s", math.Float64bits(f), got, want)
	}
}

func checkTime(t *testing.T, ms int64) {
	t.Helper()
	want := reference(func(s *jsoniter.Stream) { jsonutil.MarshalTimestamp(ms, s) })
	if got := string(appendTime(nil, ms)); got != want {
		t.Errorf("appendTime(%d) = %s, want %s", ms, got, want)
	}
}

func TestFloatIsPrometheus(t *testing.T) {
	for _, f := range []float64{
		0, math.Copysign(0, -1), 1, -1, 9, 10, 99, 100, 101, 1e6, 1e-6, 9.99e-7, 1e-7, 0.001, 0.0005, 0.1, 0.12, 0.123, 0.1234,
		-0.5, 123.456, 1e14, 1e15, 1e15 - 1, 1e15 + 2, 999999999999999.9, 99999999999.999, 999999999999.999, 1e20, 1e21, 1.5e21, -1e21,
		1 << 53, 1<<53 + 2, math.MaxInt64, math.MinInt64, math.MaxFloat64, math.SmallestNonzeroFloat64,
		math.Inf(1), math.Inf(-1), math.NaN(), 0.1 + 0.2, 1.0 / 3, 4.35, 2.675, 1.005,
	} {
		checkFloat(t, f)
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	const rounds = 200_000
	short := 0 // values the fast paths take
	for range rounds {
		var f float64
		switch rnd.IntN(7) {
		case 0:
			f = math.Float64frombits(rnd.Uint64())
		case 1:
			f = float64(rnd.Int64N(1<<rnd.IntN(62)+1) - rnd.Int64N(1<<20))
		case 2:
			f = float64(rnd.Int64N(1<<rnd.IntN(60)+1)) / 1000
		case 3:
			f = float64(rnd.Int64N(1<<rnd.IntN(60)+1)) / math.Pow10(rnd.IntN(12))
		case 4: // beside a number with three decimals
			f = math.Nextafter(float64(rnd.Int64N(1<<rnd.IntN(50)+1))/1000, math.Inf(rnd.IntN(2)*2-1))
		case 5: // any that is written without an exponent
			f = math.Ldexp(1+rnd.Float64(), rnd.IntN(92)-21)
		case 6: // powers of two, and beside them
			f = math.Float64frombits(math.Float64bits(math.Ldexp(1, rnd.IntN(92)-21)) + uint64(rnd.IntN(5)) - 2)
		}
		if m := math.Round(f * 1000); m/1000 == f && math.Abs(m) < maxExactDigits {
			short++
		}
		checkFloat(t, f)
	}
	if short < rounds/10 || short > rounds*9/10 {
		t.Errorf("%d of %d values took the fast path: both must be tried", short, rounds)
	}
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

func TestTimeIsPrometheus(t *testing.T) {
	for _, ms := range []int64{0, 1, 9, 10, 99, 100, 101, 999, 1000, 1001, 1795208747864, 1795208747000, 1795208747010, 1795208747100, -1, -1000, -1001, -999, math.MaxInt64} {
		checkTime(t, ms)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		checkTime(t, rnd.Int64N(1<<45)-1<<40)
	}
}

func FuzzFloat(f *testing.F) {
	f.Add(uint64(0))
	f.Fuzz(func(t *testing.T, bits uint64) { checkFloat(t, math.Float64frombits(bits)) })
}

var sink []byte

func BenchmarkAppendFloat(b *testing.B) {
	for _, c := range []struct {
		name string
		f    float64
	}{{"whole", 123456}, {"decimals=2", 1234.56}, {"decimals=17", 1.0 / 3}, {"rate", 1234.0 / 7}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				sink = appendFloat(sink[:0], c.f)
			}
		})
	}
}

// TestParseEightDigits reads numbers back, and no text that has another character.
func TestParseEightDigits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 20_000 {
		want := rnd.Uint32N(1e8) >> rnd.IntN(27)
		text := fmt.Appendf(nil, "%08d", want)
		if got, ok := parseEightDigits(binary.LittleEndian.Uint64(text)); !ok || got != want {
			t.Fatalf("%s is %d, %v", text, got, ok)
		}
		c := byte(i)
		text[i>>8&7] = c
		if _, ok := parseEightDigits(binary.LittleEndian.Uint64(text)); ok != ('0' <= c && c <= '9') {
			t.Fatalf("%q: %v", text, ok)
		}
	}
}
