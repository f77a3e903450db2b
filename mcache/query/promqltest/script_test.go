package promqltest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

// exceptionsFile lists the evaluations that do not pass, each on a line of its
// own, under a heading that says why. The test holds it to be exact: what is
// missing from it fails, and so does what passes after all.
const exceptionsFile = "exceptions.txt"

// wantEvaluations is what the scripts of v0.315.0 have. Another number means
// that they did not run to their ends.
const wantEvaluations = 2243

// runEnv names, in the inner processes, the storage to run on.
const runEnv = "MCACHED_RUN_SCRIPTS"

var storages = map[string]func(testing.TB) storage.Storage{
	"mcache":     newCacheStorage,
	"prometheus": newFloatStorage,
}

// TestScripts runs every evaluation of every script on mcaches, and on
// Prometheus' own storage to compare.
//
// The scripts' own runner makes a test of each evaluation and fails it when it
// does not pass. To allow for exceptions, it runs in a process of its own whose
// report is read.
func TestScripts(t *testing.T) {
	if name := os.Getenv(runEnv); name != "" {
		engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
		promqltest.RunBuiltinTestsWithStorage(t, engine, storages[name])
		return
	}
	ours, output := runScripts(t, "mcache")
	control, _ := runScripts(t, "prometheus")
	listed := readExceptions(t)
	passes := 0
	for name, passed := range ours {
		if passed {
			passes++
		}
		switch {
		case passed && listed[name]:
			t.Errorf("%s\nis listed in %s, but passes", name, exceptionsFile)
		case !passed && !listed[name]:
			t.Errorf("%s\n%s", name, complaint(output, name))
		case passed != control[name]:
			t.Errorf("%s\npasses on one storage only: on mcache %t, on Prometheus' %t", name, passed, control[name])
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("%s\nis listed in %s, but is no evaluation", name, exceptionsFile)
	}
	t.Logf("%d of %d evaluations pass", passes, len(ours))
}

// runScripts runs the scripts on a storage and returns which evaluations
// passed, and the report.
func runScripts(t *testing.T, name string) (map[string]bool, []byte) {
	t.Helper()
	inner := exec.Command(os.Args[0], "-test.run=^TestScripts$", "-test.v", "-test.count=1")
	inner.Env = append(os.Environ(), runEnv+"="+name)
	output, err := inner.CombinedOutput()
	results := readResults(output)
	if len(results) != wantEvaluations {
		t.Fatalf("%d evaluations ran on %s, expected %d: %v\n%s", len(results), name, wantEvaluations, err, output)
	}
	return results, output
}

// A line of the report: the outcome, the script, and the evaluation's line and text.
var resultLine = regexp.MustCompile(`^\s*--- (PASS|FAIL): TestScripts/testdata/(\w[\w-]*\.test/line_\d+/.*) \(\d+\.\d+s\)$`)

// readResults reads which evaluations passed.
func readResults(output []byte) map[string]bool {
	results := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(output)); lines.Scan(); {
		if m := resultLine.FindStringSubmatch(lines.Text()); m != nil {
			results[m[2]] = m[1] == "PASS"
		}
	}
	return results
}

// complaint is what the report says about an evaluation.
func complaint(output []byte, name string) string {
	_, rest, _ := strings.Cut(string(output), "=== RUN   TestScripts/testdata/"+name+"\n")
	text, _, _ := strings.Cut(rest, "=== ")
	return text
}

func readExceptions(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(exceptionsFile)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names[line] = true
		}
	}
	return names
}
