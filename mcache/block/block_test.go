package block

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// decodeBlock decodes b through a copy with the slack that decode asks for.
func decodeBlock(c *Codec, out *[MaxSamples]Sample, b []byte, start int64) (int, error) {
	return c.Decode(out, append(append([]byte(nil), b...), make([]byte, Slack)...), start)
}

func checkBlock(t *testing.T, c *Codec, ss []Sample, step int64) int {
	t.Helper()
	b := c.Encode(nil, ss, step)
	if len(b) > MaxBytes {
		t.Fatalf("block of %d bytes, bound %d", len(b), MaxBytes)
	}
	var out [MaxSamples]Sample
	n, err := decodeBlock(c, &out, b, ss[0].T)
	if err != nil || n != len(ss) {
		t.Fatalf("decode: %d of %d samples, %v; input %v", n, len(ss), err, ss)
	}
	for i := range ss {
		if out[i] != ss[i] {
			t.Fatalf("sample %d of %d: got %d %#x, want %d %#x", i, n, out[i].T, out[i].V, ss[i].T, ss[i].V)
		}
	}
	return len(b)
}

// awkward are the bit patterns that decimal codecs get wrong.
var awkward = []uint64{
	0, 1 << 63, math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)),
	0x7ff0000000000002, 0x7ff8000000000001, 0xfff8000000000000, 0x7ff0000000000001, 0xffffffffffffffff,
	1, 0x000fffffffffffff, 0x0010000000000000, math.Float64bits(math.MaxFloat64),
	math.Float64bits(0.1), math.Float64bits(1e-10), math.Float64bits(1e-11), math.Float64bits(1 << 53), math.Float64bits(1<<53 + 2),
	math.Float64bits(-(1 << 53)), math.Float64bits(9007199254740993.5), math.Float64bits(0.30000000000000004),
}

// TestBlockExact seals random runs of every kind that the classes of real
// series and the awkward patterns make, and reads them back bit for bit.
func TestBlockExact(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var c Codec
	samples, modes := 0, [4]int{}
	rounds := 160_000 // ten million samples
	if testing.Short() {
		rounds /= 10
	}
	for round := range rounds {
		n := 1 + rnd.IntN(MaxSamples)
		ss := make([]Sample, n)
		step := []int64{1, 1000, 15000, 60000}[rnd.IntN(4)]
		tm := rnd.Int64N(1<<42) - 1<<40
		x := float64(rnd.IntN(1e6))
		exp := rnd.IntN(12)
		for i := range ss {
			switch round % 4 {
			case 1:
				tm += rnd.Int64N(5)
			case 2:
				if rnd.IntN(20) == 0 {
					tm += step * rnd.Int64N(100)
				}
			case 3:
				tm += rnd.Int64N(1 << 30)
			}
			ss[i].T = tm
			tm += step
			switch round / 4 % 6 {
			case 0:
				x += float64(rnd.IntN(1000))
			case 1:
				x = math.Round(rnd.NormFloat64()*1e5) / math.Pow10(exp)
			case 2:
				x = rnd.NormFloat64()
			case 3:
				x = math.Float64frombits(rnd.Uint64())
			case 4:
				if x += float64(rnd.IntN(50)); rnd.IntN(60) == 0 {
					x = 0
				}
			}
			ss[i].V = math.Float64bits(x)
			if round%7 == 0 && rnd.IntN(30) == 0 {
				ss[i].V = awkward[rnd.IntN(len(awkward))]
			}
		}
		checkBlock(t, &c, ss, []int64{0, step}[rnd.IntN(2)])
		modes[c.Encode(nil, ss, step)[1]>>2&3]++
		samples += n
	}
	if modes[valueRaw] == 0 || modes[valueFrame] == 0 || modes[valueDelta] == 0 {
		t.Errorf("not every mode happened: %v over %d samples", modes, samples)
	}
}

// FuzzBlock seals whatever bytes say and reads it back.
func FuzzBlock(f *testing.F) {
	for _, v := range awkward {
		f.Add(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, v), 42), int64(15000), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, step int64, jitter uint8) {
		n := min(len(data)/8, MaxSamples)
		if n == 0 || step <= 0 || step > 1<<40 {
			return
		}
		ss := make([]Sample, n)
		at := int64(len(data))
		for i := range ss {
			ss[i] = Sample{T: at, V: binary.LittleEndian.Uint64(data[8*i:])}
			at += step
			if jitter > 0 && i%int(jitter) == 0 {
				at += int64(data[i])
			}
		}
		checkBlock(t, new(Codec), ss, step)
	})
}

// FuzzBlockDamaged decodes arbitrary bytes: an error or samples, never a panic.
func FuzzBlockDamaged(f *testing.F) {
	var c Codec
	f.Add(c.Encode(nil, []Sample{{1, 2}, {3, 4}, {5, math.Float64bits(0.25)}}, 2))
	f.Add(c.AppendSection(nil, c.Encode(nil, []Sample{{1, 2}, {3, 4}}, 2), 1, []Sample{{5, 6}}, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out [MaxSamples]Sample
		_, _ = decodeBlock(new(Codec), &out, b, 0)
	})
}

// TestSections adds runs of samples as sections of one block and reads all of
// them back, and none of what a damaged one seems to say.
func TestSections(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var c Codec
	damaged := 0
	for range 2000 {
		var all []Sample
		var b []byte
		at := rnd.Int64N(1<<40) - 1<<39
		sections := 1 + rnd.IntN(MaxSections)
		for k := range sections {
			part := make([]Sample, 1+rnd.IntN(MaxSamples/MaxSections))
			for i := range part {
				at += 1 + rnd.Int64N(3)*rnd.Int64N(20000)
				part[i] = Sample{at, []uint64{math.Float64bits(float64(i)), rnd.Uint64(), awkward[i%len(awkward)]}[rnd.IntN(3)]}
			}
			if all = append(all, part...); k == 0 {
				b = c.Encode(nil, part, 15000)
			} else {
				b = c.AppendSection(nil, b, all[0].T, part, 15000)
			}
		}
		if Sections(b) != sections || Len(b) != len(all) || len(b) > MaxBytes {
			t.Fatalf("%d sections of %d, %d samples of %d, %d bytes", Sections(b), sections, Len(b), len(all), len(b))
		}
		var out [MaxSamples]Sample
		if n, err := decodeBlock(&c, &out, b, all[0].T); err != nil || !slices.Equal(out[:n], all) {
			t.Fatalf("%d sections: %v", sections, err)
		}
		section, from := LastSection(b, all[0].T)
		n, err := decodeBlock(&c, &out, section, from)
		if err != nil || !slices.Equal(out[:n], all[len(all)-n:]) {
			t.Fatalf("the last of %d sections: %v", sections, err)
		}
		if sections > 1 {
			if _, err := decodeBlock(&c, &out, b[:len(b)-1-rnd.IntN(len(b)-2)], all[0].T); err == nil {
				t.Fatal("a cut block is no error")
			}
			damaged++
		}
	}
	if damaged == 0 {
		t.Error("no block had several sections")
	}
}
