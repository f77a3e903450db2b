package wire

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

var goldenAnswers = []Answer{
	{Status: 204, Written: Elements{3, 2, 1}},
	{Status: 400, Written: Elements{300, 0, 0}, Failed: 2, Reasons: []string{"one", "two"}, Losses: []Loss{{1, Elements{1, 0, 0}}, {300, Elements{0, 1, 2}}}},
	{Status: 413, Whole: true, Reasons: []string{"too large"}},
	{Status: 503, Retry: "busy", RetryAfter: 1500 * time.Millisecond},
	{Status: 204, Written: Elements{5, 0, 0}, Unknown: []int{0, 2, 300}},
}

// The bytes are those of version 1: nodes of two releases speak to each other.
func TestBundleBytes(t *testing.T) {
	b := AppendBundle(nil)
	for _, p := range []Part{{Protocol: V1, Bucket: "default", Body: []byte("abc")}, {Protocol: V2, Bucket: "t"}, {Protocol: V2, Bucket: "t", Body: []byte("d"), Standby: Bits{5}, Settled: true}} {
		b = append(AppendPartHead(b, p), p.Body...)
	}
	if want := "\x01\x01\x07default\x03abc\x02\x01t\x00\x32\x01\x05\x01t\x01d"; string(b) != want {
		t.Errorf("a bundle is %q, want %q", b, want)
	}
	var got []Part
	if err := Parts(b, func(p Part) bool { got = append(got, p); return true }); err != nil ||
		!reflect.DeepEqual(got, []Part{{Protocol: V1, Bucket: "default", Body: []byte("abc")}, {Protocol: V2, Bucket: "t", Body: []byte{}}, {Protocol: V2, Bucket: "t", Body: []byte("d"), Standby: Bits{5}, Settled: true}}) {
		t.Errorf("it holds %v, %v", got, err)
	}
	a := AppendAnswers(nil)
	for i := range goldenAnswers {
		a = AppendAnswer(a, &goldenAnswers[i])
	}
	want := "\x01\xcc\x01\x00\x03\x02\x01\x00\x00\x00\x00\x00" +
		"\x90\x03\x00\xac\x02\x00\x00\x02\x00\x00\x02\x03one\x03two\x02\x01\x01\x00\x00\xab\x02\x00\x01\x02" +
		"\x9d\x03\x01\x00\x00\x00\x00\x00\x00\x01\x09too large\x00" +
		"\xf7\x03\x00\x00\x00\x00\x00\xdc\x0b\x04busy\x00\x00" +
		"\xcc\x01\x02\x05\x00\x00\x00\x00\x00\x00\x00\x03\x00\x02\xaa\x02"
	if string(a) != want {
		t.Errorf("answers are\n%q, want\n%q", a, want)
	}
	answers, err := Answers(a, len(goldenAnswers), nil)
	if err != nil || !reflect.DeepEqual(answers, goldenAnswers) {
		t.Errorf("they hold\n%+v, %v, want\n%+v", answers, err, goldenAnswers)
	}
	for n := range a {
		if _, err := Answers(a[:n], len(goldenAnswers), nil); !errors.Is(err, ErrBundle) {
			t.Errorf("%d bytes of them: %v", n, err)
		}
	}
}

// The bytes of prints, which one node learns of and another is named series by.
func TestPrintedBytes(t *testing.T) {
	x, y := Print{1, 2}, Print{0x0807060504030201, 1 << 63}
	part := Part{Protocol: V1, Bucket: "t", Body: []byte("d"), Standby: Bits{1}, Prints: AppendPrint(AppendPrint(nil, x), y)}
	b := append(AppendPartHead(AppendBundle(nil), part), part.Body...)
	if want := "\x01\x51\x01\x01\x20\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00\x00\x00\x80\x01t\x01d"; string(b) != want {
		t.Errorf("a part that teaches is\n%q, want\n%q", b, want)
	}
	if err := Parts(b, func(p Part) bool {
		if !reflect.DeepEqual(p, part) || PrintAt(p.Prints, 1) != y || PrintAt(p.Prints, 2) != (Print{}) {
			t.Errorf("it holds %v", p)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
	records := AppendPrinted(AppendPrinted(nil, x, []byte("\x12\x00")), y, nil)
	if want := "\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\x12\x00" +
		"\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00\x00\x00\x80\x00"; string(records) != want {
		t.Errorf("records are\n%q, want\n%q", records, want)
	}
	first, from, to := PrintedAt(records, 0)
	second, at, end := PrintedAt(records, to)
	if first != x || second != y || string(records[from:to]) != "\x12\x00" || at != end || end != len(records) {
		t.Errorf("they are %v at %d to %d, %v at %d to %d", first, from, to, second, at, end)
	}
	for n := range records {
		if _, from, to := PrintedAt(records[:n], 0); from >= 0 && to < len(records)-PrintBytes-1 {
			t.Errorf("%d bytes hold a record to %d", n, to)
		}
	}
}

func FuzzBundle(f *testing.F) {
	b := AppendAnswers(nil)
	for i := range goldenAnswers {
		b = AppendAnswer(b, &goldenAnswers[i])
	}
	f.Add(b)
	f.Add([]byte("\x01\x01\x07default\x03abc\x02\x01t\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		again := AppendBundle(nil)
		if Parts(b, func(p Part) bool { again = append(AppendPartHead(again, p), p.Body...); return true }) == nil {
			n := 0
			if err := Parts(again, func(Part) bool { n++; return true }); err != nil {
				t.Fatalf("%x, of %x: %v", again, b, err)
			}
		}
		answers, err := Answers(b, 3, nil)
		if err != nil {
			return
		}
		again = AppendAnswers(nil)
		for i := range answers {
			again = AppendAnswer(again, &answers[i])
		}
		if got, err := Answers(again, 3, nil); err != nil || !reflect.DeepEqual(got, answers) {
			t.Fatalf("%+v became %+v, %v", answers, got, err)
		}
	})
}

// What is appended at once is what is appended one by one, wherever there is room.
func TestAppendAllPrinted(t *testing.T) {
	body := make([]byte, 200)
	for i := range body {
		body[i] = byte(i)
	}
	series := []Named{{Print{1, 2}, 0, 21}, {Print{3, 4}, 30, 62}, {Print{5, 6}, 60, 93}, {Print{7, 8}, 70, 199}, {Print{9, 10}, 168, 190}, {Print{11, 12}, 169, 190}, {Print{13, 14}, 200, 200}}
	want := []byte("before")
	for _, x := range series {
		want = AppendPrinted(want, x.Print, body[x.Rest:x.End])
	}
	for room := range 2 * len(want) {
		dst := append(make([]byte, 0, len("before")+room), "before"...)
		if got := AppendAllPrinted(dst, body[:len(body):len(body)], series); string(got) != string(want) {
			t.Fatalf("with room for %d: %q, want %q", room, got, want)
		}
	}
}
