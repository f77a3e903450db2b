package cluster

import (
	"fmt"
	"hash/crc32"
	"net/url"
	"slices"
	"strings"
)

// What all members must have the same. Place tells that something is not; a member also
// tells of each flag what it has, so that who reads the log sees which flag it is and
// both of its values. Keys are not among them: two first keys differ where all that is
// told is the same and Place is not.

// A Setting is a flag that all members must have the same.
type Setting struct {
	Flag  string // --name
	Value string
}

const (
	// maxCommonBytes bounds Member.Common: with the longest names there is room for it.
	maxCommonBytes = 128
	// maxSettingBytes of a value are told. Of a longer one its checksum is.
	maxSettingBytes = 32
)

// Common is how Member has settings: "flag=value flag=value", escaped as in a query.
// It is empty if they take too many bytes.
func Common(settings []Setting) string {
	var words []string
	for _, s := range settings {
		value := url.QueryEscape(s.Value)
		if len(value) > maxSettingBytes {
			value = fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE([]byte(s.Value)))
		}
		words = append(words, strings.TrimPrefix(s.Flag, "--")+"="+value)
	}
	text := strings.Join(words, " ")
	if len(text) > maxCommonBytes {
		return ""
	}
	return text
}

// settingsOf reads what Common wrote. What it did not is left out.
func settingsOf(common string) (settings []Setting) {
	for word := range strings.FieldsSeq(common) {
		flag, value, ok := strings.Cut(word, "=")
		if value, err := url.QueryUnescape(value); ok && err == nil {
			settings = append(settings, Setting{"--" + flag, value})
		}
	}
	return settings
}

// Otherwise says what of m is configured otherwise than this member is, and must not be:
// "--flag is VALUE there and VALUE here" of each flag. It is empty if nothing is. A flag
// that one of them does not tell of, as another release, is taken for the same.
func (m *Member) Otherwise(than Member) string {
	if m.Place == than.Place && m.Common == than.Common {
		return ""
	}
	var differs []string
	here := settingsOf(than.Common)
	for _, s := range settingsOf(m.Common) {
		i := slices.IndexFunc(here, func(o Setting) bool { return o.Flag == s.Flag })
		if i >= 0 && here[i].Value != s.Value {
			differs = append(differs, fmt.Sprintf("%s is %q there and %q here", s.Flag, s.Value, here[i].Value))
		}
	}
	switch {
	case len(differs) > 0:
		return strings.Join(differs, "; ")
	case m.Place == than.Place:
		return ""
	case m.Common != "" && than.Common != "":
		return "the first line of --cluster.key-file is another there"
	}
	return "the first line of --cluster.key-file, --cluster.copies, --cluster.blob-copies, --cluster.spread or --cluster.ignore-labels is another there"
}
