package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prometheus/prometheus/model/labels"
)

// testGrid is six steps from 1000 s on.
var testGrid = gridOf{1_000_000, 500, 6}

// readMatrix lists what a reader finds, in a form of its own.
func readMatrix(r io.Reader) (string, error) {
	m := newMatrixReader(r, testGrid, span{from: 1, to: 5})
	var b strings.Builder
	for {
		s, err := m.next()
		if err == io.EOF {
			fmt.Fprintf(&b, "%q %q", m.warnings, m.infos)
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		fmt.Fprintf(&b, "%s %s %s\n", s.labels, s.floats, s.histograms)
	}
}

// TestMatrixReader reads what servers write, in whatever pieces it comes.
func TestMatrixReader(t *testing.T) {
	for in, want := range map[string]string{
		`{"status":"success","data":{"resultType":"matrix","result":[]}}`: `[] []`,
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"m","a":"b\"\u00e4\n"},"values":[[1000.500,"1"],[1001,"NaN"],[1002,"-1.5e-07"]]}]}}`: `{__name__="m", a="b\"ä\n"} [1000.500,"1"],[1001,"NaN"],[1002,"-1.5e-07"] ` + "\n[] []",
		// Of two members of a name the last counts, as in encoding/json.
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1001,"1"]],"values":[[1002,"2"]],"histograms":[],"histograms":[[1001,{"count":"1"}]]}]}}`: `{} [1002,"2"] [1001,{"count":"1"}]` + "\n[] []",
		// Another order of the members, more of them, and white space.
		"{ \"infos\": [\"i\"], \"isPartial\":false, \"data\": { \"result\" : [ { \"values\":[[1001,\"+Inf\"]], \"x\":{\"y\":[1,null,true,\"]}\"]}, \"metric\": {} }\n, {\"metric\":{\"z\":\"\",\"b\":\"c\"}}] , \"resultType\":\"matrix\", \"stats\":{} } , \"warnings\":[\"w\",\"v\"],\"status\" : \"success\" } ": "{} [1001,\"+Inf\"] \n{b=\"c\", z=\"\"}  \n[\"w\" \"v\"] [\"i\"]",
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"h"},"histograms":[[1001,{"count":"3","sum":"1.5","buckets":[[0,"1","2","3"]]}],[1002,{"count":"0","sum":"0"}]]}]},"warnings":null}`:                                                                                     `{__name__="h"}  [1001,{"count":"3","sum":"1.5","buckets":[[0,"1","2","3"]]}],[1002,{"count":"0","sum":"0"}]` + "\n[] []",
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)), "with the error": iotest.DataErrReader(strings.NewReader(in))} {
			if got, err := readMatrix(r); err != nil || got != want {
				t.Errorf("%s of %s:\n got %s, %v\nwant %s", name, in, got, err, want)
			}
		}
		// Half of an answer is none.
		for n := range len(strings.TrimSpace(in)) {
			if _, err := readMatrix(strings.NewReader(in[:n])); err == nil {
				t.Fatalf("%s is a whole answer", in[:n])
			}
		}
	}
	long := `{"status":"success","data":{"resultType":"matrix","result":[`
	want := ""
	for i := range 1500 {
		if i > 0 {
			long += ","
		}
		long += fmt.Sprintf(`{"metric":{"i":"%05d","text":%q},"values":[[1001,"%d"]]}`, i, strings.Repeat("x", i%300), i)
		want += fmt.Sprintf("%s [1001,\"%d\"] \n", labels.FromStrings("i", fmt.Sprintf("%05d", i), "text", strings.Repeat("x", i%300)), i)
	}
	if got, err := readMatrix(iotest.HalfReader(strings.NewReader(long + "]}}"))); err != nil || got != want+"[] []" {
		t.Errorf("a long answer: %v, %d bytes", err, len(got))
	}
}

// TestMatrixReaderRefuses what is not such an answer.
func TestMatrixReaderRefuses(t *testing.T) {
	point := func(p string) string {
		return `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[` + p + `]}]}}`
	}
	series := func(members string) string {
		return `{"status":"success","data":{"resultType":"matrix","result":[{` + members + `}]}}`
	}
	long, many := strings.Repeat("x", maxStoreText), strings.Repeat(`"l":"",`, maxStoreText/storeLabelBytes)
	for in, whole := range map[string]bool{
		// More than is held of anything that no loan is asked for.
		series(`"metric":{"l":"` + long + `x"}`): false, series(`"metric":{"` + long + `":""}`): false, series(`"metric":{` + many + `"l":""}`): false, series(`"` + long + `x":1`): false,
		series(`"metric":{},"histograms":[[1001,{"count":"` + long + `"}]]`): false, `{"warnings":["` + long + `"],"status":"success","data":{"resultType":"matrix","result":[]}}`: false,
		"": false, "<html>": false, "[]": false, "{}": false, `{"status":"success"}`: false, `{"status":"error","data":{"resultType":"matrix","result":[]}}`: false,
		`{"status":"success","data":{"resultType":"vector","result":[]}}`: false, `{"status":"success","data":{"resultType":"matrix","result":{}}}`: false,
		`{"status":"success","data":{"resultType":"matrix","result":[],"result":[]}}`: false, `{"status":"success","data":{"resultType":"matrix","result":[1]}}`: false,
		strings.Repeat(`{"a":[`, 200): false, `{"status":"success","x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `,"data":{"resultType":"matrix","result":[]}}`: false,
		point(`[1001,1]`): false, point(`[1001,"x"]`): false, point(`["1001","1"]`): false, point(`[1001,"1"],`): false, point(`[1001,"1"][1002,"1"]`): false, point(`[1001,"1",2]`): false,
		// Bytes that got into a string.
		series(`"metric":{"l":"a` + "\x00" + `b"}`): false, series(`"metric":{"l":"a` + "\x1f" + `\"b"}`): false, series(`"metric":{"l` + "\n" + `":""}`): false,
		// Other steps than those that were asked for, or not in order.
		point(`[1000,"1"]`): true, point(`[1003,"1"]`): true, point(`[1001.001,"1"]`): true, point(`[1002,"1"],[1001,"1"]`): true, point(`[1001,"1"],[1001,"1"]`): true, point(`[-1001,"1"]`): true,
	} {
		_, err := readMatrix(strings.NewReader(in))
		if w := new(wholeError); err == nil || errors.As(err, &w) != whole {
			t.Errorf("%.200s: %v", in, err)
		}
	}
}

// FuzzMatrixReader: whatever comes, it ends; and what it takes is what
// encoding/json reads.
func FuzzMatrixReader(f *testing.F) {
	f.Add([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1001,"1"]],"histograms":[[1001.5,{"count":"1"}]]}]},"warnings":["w"]}`))
	f.Add([]byte(`{"status":"success","data":{"result":[{"metric":{}},{"metric":{"\u0061":"\\"}}],"resultType":"matrix"}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := readMatrix(strings.NewReader(string(in)))
		pieces, err2 := readMatrix(iotest.OneByteReader(strings.NewReader(string(in))))
		if (err == nil) != (err2 == nil) || err == nil && whole != pieces {
			t.Fatalf("as a whole %q, %v; in pieces %q, %v", whole, err, pieces, err2)
		}
		if err != nil {
			return
		}
		var answer struct {
			Data struct {
				Result []struct {
					Values, Histograms []json.RawMessage
				}
			}
		}
		if json.Valid(in) && json.Unmarshal(in, &answer) == nil {
			if n := strings.Count(whole, "\n"); n < len(answer.Data.Result) {
				t.Fatalf("%d series of %d", n, len(answer.Data.Result))
			}
		}
	})
}
