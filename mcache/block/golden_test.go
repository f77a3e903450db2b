package block

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// goldenForms is one example of each form, with what it is encoded from.
func goldenForms() (names []string, blocks map[string][]Sample) {
	blocks = map[string][]Sample{}
	const start = 1_700_000_000_123
	add := func(name string, n int, at func(i int) int64, value func(i int) uint64) {
		ss := make([]Sample, n)
		for i := range ss {
			ss[i] = Sample{start + at(i), value(i)}
		}
		names = append(names, name)
		blocks[name] = ss
	}
	grid := func(i int) int64 { return int64(i) * 15_000 }
	float := func(f func(i int) float64) func(i int) uint64 {
		return func(i int) uint64 { return math.Float64bits(f(i)) }
	}
	noise := func(i int) uint64 { return uint64(i+1) * 0x9e3779b97f4a7c15 }
	add("single", 1, grid, float(func(int) float64 { return 42 }))
	add("constant", 128, grid, float(func(int) float64 { return 0.5 }))
	add("counter", 12, grid, float(func(i int) float64 { return float64(100 + i*i) }))
	add("counter, shifted", 8, grid, float(func(i int) float64 { return float64(4096 * (i + i%3)) }))
	add("counter, reset", 64, grid, float(func(i int) float64 { return float64(i % 50 * 1000) }))
	add("gauge, two decimals", 16, grid, float(func(i int) float64 { return float64(int(noise(i)>>58)) / 100 }))
	add("gauge, outliers", 60, grid, float(func(i int) float64 { return float64(int(noise(i)>>62) + i/59<<40) }))
	add("foreign values", 24, grid, func(i int) uint64 {
		if i%12 == 5 {
			return 0x7ff0000000000002 // StaleNaN
		}
		return math.Float64bits(float64(i))
	})
	add("raw", 6, grid, noise)
	add("raw, narrow", 6, grid, func(i int) uint64 { return 0x3ff123456789abcd + uint64(i*i)<<3 })
	add("jitter", 19, func(i int) int64 { return grid(i) + int64(i%3&1*3) }, float(func(i int) float64 { return float64(i) }))
	add("holes", 20, func(i int) int64 { return grid(i + i/7*100) }, float(func(i int) float64 { return float64(i) }))
	return names, blocks
}

// golden encodes all forms: name → start and bytes.
func golden() (lines []string, modes map[[2]byte]bool) {
	var c Codec
	modes = map[[2]byte]bool{}
	line := func(name string, start int64, b []byte) {
		lines = append(lines, fmt.Sprintf("%s: %d %s", name, start, hex.EncodeToString(b)))
	}
	names, blocks := goldenForms()
	for _, name := range names {
		b := c.Encode(nil, blocks[name], 15_000)
		modes[[2]byte{'t', b[1] & 3}], modes[[2]byte{'v', b[1] >> 2 & 3}] = true, true
		line(name, blocks[name][0].T, b)
	}
	first, then := blocks["counter"], []Sample{{1_700_000_200_000, 1}, {1_700_000_215_000, 2}}
	two := c.AppendSection(nil, c.Encode(nil, first, 15_000), first[0].T, then, 15_000)
	modes[[2]byte{'t', two[1] & 3}] = true
	line("sections", first[0].T, two)
	chunk := AppendChunk(nil, goldenRecords)
	line("records", goldenRecords[0].T, chunk)
	p := Parts{Blocks: []Part{{first[0].T, Len(two), two}}, Records: []Part{{goldenRecords[0].T, len(goldenRecords), chunk}}}
	line("blob", first[0].T, p.Append(nil, 1_700_000_215_000))
	return lines, modes
}

var goldenRecords = []Record{{1_700_000_000_500, []byte("a record")}, {1_700_000_030_500, nil}, {1_700_000_030_501, []byte{0, 255}}}

const goldenFile = "testdata/golden"

// TestGolden holds the encoder to the bytes that it always made, and the decoder
// to reading them. UPDATE=1 writes the file anew: that is a new format.
func TestGolden(t *testing.T) {
	lines, modes := golden()
	if len(modes) != 7 {
		t.Errorf("not every time and value mode has an example: %v", modes)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(goldenFile, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c Codec
	var out [MaxSamples]Sample
	_, blocks := goldenForms()
	k := 0
	for in := bufio.NewScanner(f); in.Scan(); k++ {
		if k == len(lines) || in.Text() != lines[k] {
			t.Fatalf("line %d: the file has\n%s\nthe encoder makes\n%s", k+1, in.Text(), append(lines, "nothing")[k])
		}
		name, rest, _ := strings.Cut(in.Text(), ": ")
		var start int64
		var text string
		if _, err := fmt.Sscan(rest, &start, &text); err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "records":
			if !CheckChunk(b, start) || !slices.EqualFunc(AppendRecords(nil, b, start), goldenRecords, equalRecords) {
				t.Errorf("%s: read as %v", name, AppendRecords(nil, b, start))
			}
		case "blob":
			o, ok := OpenBlob(b)
			if !ok || o.Points != 17 || o.First() != start || o.Last != 1_700_000_215_000 || o.Blocks.Len() != 1 || o.Records.Len() != 1 {
				t.Errorf("%s: read as %+v, %v", name, o, ok)
			}
		default:
			want := blocks[name]
			if name == "sections" {
				want = append(slices.Clone(blocks["counter"]), Sample{1_700_000_200_000, 1}, Sample{1_700_000_215_000, 2})
			}
			if n, err := decodeBlock(&c, &out, b, start); err != nil || !slices.Equal(out[:n], want) {
				t.Errorf("%s: read as %v, %v", name, out[:n], err)
			}
		}
	}
	if k != len(lines) {
		t.Errorf("%d lines, want %d", k, len(lines))
	}
}

func equalRecords(a, b Record) bool { return a.T == b.T && string(a.Value) == string(b.Value) }
