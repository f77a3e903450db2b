package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
)

// namedValue is a flag's value whose errors say which flag was wrong.
type namedValue struct {
	kingpin.Value
	flag string
}

// Set implements kingpin.Value.
func (n namedValue) Set(s string) error {
	if err := n.Value.Set(s); err != nil {
		return fmt.Errorf("--%s: %w", n.flag, err)
	}
	return nil
}

// spelt is a value of another package, whose errors do not say what it may be.
type spelt struct {
	kingpin.Value
	as string
}

// Set implements kingpin.Value.
func (v spelt) Set(s string) error {
	if err := v.Value.Set(s); err != nil {
		return fmt.Errorf("%q is not %s", s, v.as)
	}
	return nil
}

// IsBoolFlag tells kingpin whether the flag stands alone: --x and --no-x.
func (n namedValue) IsBoolFlag() bool {
	_, ok := n.Value.(*truth)
	return ok
}

// IsCumulative tells kingpin whether the flag may be repeated.
func (n namedValue) IsCumulative() bool {
	many, ok := n.Value.(interface{ IsCumulative() bool })
	return ok && many.IsCumulative()
}

// byteSize is a flag's value in bytes, spelt as 512MiB, 1.5GiB, 64MB or a bare
// number of bytes; or as Kubernetes has it, 512Mi and 64M. Units with an i count
// in 1024s, the others in 1000s, here as there; but Prometheus' own flags count MB
// in 1024s, too. 512m is refused: see parseSize.
type byteSize int64

// sizeUnits are the suffixes a size may carry, longest first, so that "MiB" is
// not read as "B" after a number that ends in "Mi".
var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"ki", 1 << 10}, {"mi", 1 << 20}, {"gi", 1 << 30}, {"ti", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"t", 1e12},
	{"b", 1}, {"", 1},
}

// parseSize reads a size. Fractions of a byte are dropped.
func parseSize(s string) (byteSize, error) {
	in := strings.ToLower(strings.TrimSpace(s))
	if strings.HasSuffix(strings.TrimSpace(s), "m") {
		return 0, fmt.Errorf("%q is thousandths of a byte to Kubernetes and MiB to others: write 512M for 512 times 1000², 512Mi for 512 times 1024²", s)
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(in, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		switch {
		case err != nil || strings.ContainsAny(digits, "einx_"): // no 1e9, inf, nan, 0x10
			return 0, fmt.Errorf("%q is not a size such as 512MiB or 2GiB", s)
		case n < 0:
			return 0, fmt.Errorf("a size cannot be negative, got %q", s)
		case n*u.bytes >= math.MaxInt64:
			return 0, fmt.Errorf("%q is more than the largest size, 8388607TiB", s)
		}
		return byteSize(n * u.bytes), nil
	}
	panic("unreachable: the last unit is empty and matches everything")
}

// Set implements kingpin.Value.
func (b *byteSize) Set(s string) error {
	v, err := parseSize(s)
	if err == nil {
		*b = v
	}
	return err
}

// String gives the shortest exact spelling in units of 1024.
func (b *byteSize) String() string {
	if b == nil {
		return ""
	}
	v := int64(*b)
	for _, u := range []struct {
		suffix string
		shift  uint
	}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if v != 0 && v&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(v>>u.shift, 10) + u.suffix
		}
	}
	return strconv.FormatInt(v, 10) + "B"
}

// duration is a flag's value as Prometheus spells times: 15s, 1h30m, 0.
type duration time.Duration

// Set implements kingpin.Value.
func (d *duration) Set(s string) error {
	v, err := model.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 15s or 5m", s)
	}
	*d = duration(v)
	return nil
}

// String implements kingpin.Value.
func (d *duration) String() string {
	if d == nil {
		return ""
	}
	return model.Duration(*d).String()
}

// truth is a boolean. Kingpin knows --x and --no-x; spellBooleans turns what it
// does not know, --x=false and the like, into these.
type truth bool

// Set implements kingpin.Value.
func (t *truth) Set(s string) error {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", s)
	}
	*t = truth(v)
	return nil
}

// String implements kingpin.Value.
func (t *truth) String() string {
	if t == nil {
		return ""
	}
	return strconv.FormatBool(bool(*t))
}

// spellBooleans spells boolean flags as kingpin wants them: --x=true, --x true
// and --x as --x, --x=false and --x false as --no-x.
func spellBooleans(app *kingpin.Application, args []string) ([]string, error) {
	boolean := map[string]bool{}
	for _, f := range app.Model().Flags {
		if n, ok := f.Value.(namedValue); ok && n.IsBoolFlag() {
			boolean["--"+f.Name] = true
		}
	}
	var spelt []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return append(spelt, args[i:]...), nil
		}
		name, value, given := strings.Cut(args[i], "=")
		if !boolean[name] {
			spelt = append(spelt, args[i])
			continue
		}
		if !given && i+1 < len(args) {
			if _, err := strconv.ParseBool(args[i+1]); err == nil {
				i++
				value, given = args[i], true
			}
		}
		is := truth(true)
		if given {
			if err := is.Set(value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		if !is {
			name = "--no-" + strings.TrimPrefix(name, "--")
		}
		spelt = append(spelt, name)
	}
	return spelt, nil
}

// count is a number of things, at least one.
type count int

// Set implements kingpin.Value.
func (c *count) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		return fmt.Errorf("%q is not a whole number above 0", s)
	}
	*c = count(v)
	return nil
}

// String implements kingpin.Value.
func (c *count) String() string {
	if c == nil {
		return ""
	}
	return strconv.Itoa(int(*c))
}

// natural is a number of things, or 0.
type natural int

// Set implements kingpin.Value.
func (n *natural) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a whole number from 0 up", s)
	}
	*n = natural(v)
	return nil
}

// String implements kingpin.Value.
func (n *natural) String() string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(int(*n))
}

// origin is a regular expression that matches whole origins of web pages.
type origin struct{ *regexp.Regexp }

// Set implements kingpin.Value.
func (o *origin) Set(s string) error {
	if s == "" {
		return nil
	}
	re, err := regexp.Compile("^(?:" + s + ")$")
	if err != nil {
		return fmt.Errorf("%q is not a regular expression: %w", s, err)
	}
	o.Regexp = re
	return nil
}

// String implements kingpin.Value.
func (o *origin) String() string {
	if o == nil || o.Regexp == nil {
		return ""
	}
	return o.Regexp.String()
}
