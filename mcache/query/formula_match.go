package query

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
)

// Operators between two formulas find partners by signature once, for all steps;
// see formula.go for why that gives what the engine gives.

// matched is an operator between two formulas, by their labels.
type matched struct {
	lhs, rhs formula
	op       operation
	kind     resultKind
	matching *parser.VectorMatching
}

func (j *matched) rows(f *formulaRun) ([]computedRow, error) {
	lhs, rhs, err := f.both(j.lhs, j.rhs)
	if err != nil {
		return nil, err
	}
	if len(lhs) == 0 || len(rhs) == 0 {
		return nil, nil
	}
	swapped := j.matching.Card == parser.CardOneToMany
	if swapped {
		lhs, rhs = rhs, lhs
	}
	s := newSignatures(j.matching)
	partners := make(map[string]*computedRow, len(rhs))
	for i := range rhs {
		key := s.of(rhs[i].labels)
		if partners[string(key)] != nil {
			return nil, errUnplanned
		}
		partners[string(key)] = &rhs[i]
	}
	var met map[*computedRow]bool // partners, where each may have one
	if j.matching.Card == parser.CardOneToOne {
		met = make(map[*computedRow]bool, len(rhs))
	}
	out := lhs[:0]
	for _, row := range lhs {
		partner := partners[string(s.of(row.labels))]
		if partner == nil {
			continue
		}
		if met != nil {
			if met[partner] {
				return nil, errUnplanned
			}
			met[partner] = true
		}
		j.calculate(row.values, partner.values, swapped)
		row.labels = s.result(row.labels, partner.labels, j.kind)
		out = append(out, row)
	}
	if met != nil {
		return f.keep(out), nil // signatures tell the results apart
	}
	if j.kind == filters && len(labelSets(out)) < len(out) {
		return nil, errUnplanned // an error also where the comparison does not hold
	}
	return f.distinct(out)
}

// labelSets are the hashes of the labels of rows.
func labelSets(rows []computedRow) map[uint64]struct{} {
	all := make(map[uint64]struct{}, len(rows))
	for i := range rows {
		all[rows[i].labels.Hash()] = struct{}{}
	}
	return all
}

// calculate computes each step of row.
func (j *matched) calculate(row, partner []float64, swapped bool) {
	for k, l := range row {
		r := partner[k]
		if isNone(l) || isNone(r) {
			row[k] = none
			continue
		}
		if swapped {
			l, r = r, l
		}
		result, keep := j.op(l, r)
		switch {
		case j.kind == tells:
			result = truth(keep)
		case !keep:
			result = none
		}
		row[k] = result
	}
}

// combined is and, or or unless between two formulas.
type combined struct {
	lhs, rhs formula
	op       parser.ItemType
	matching *parser.VectorMatching
}

func (c *combined) rows(f *formulaRun) ([]computedRow, error) {
	lhs, rhs, err := f.both(c.lhs, c.rhs)
	if err != nil {
		return nil, err
	}
	s := newSignatures(c.matching)
	if err := f.take(max(len(lhs), len(rhs))); err != nil {
		return nil, err
	}
	if c.op == parser.LOR {
		there := s.presence(lhs, f.c.n)
		for _, row := range rhs {
			mask(row.values, there[string(s.of(row.labels))], false)
		}
		return f.distinct(append(lhs, rhs...))
	}
	there := s.presence(rhs, f.c.n)
	for _, row := range lhs {
		mask(row.values, there[string(s.of(row.labels))], c.op == parser.LAND)
	}
	return f.keep(lhs), nil
}

// mask leaves of a row the steps at which there is something, or nothing.
func mask(row []float64, there []bool, something bool) {
	for k := range row {
		if (there != nil && there[k]) != something {
			row[k] = none
		}
	}
}

// signatures determine which series are partners, and what labels results have.
type signatures struct {
	*parser.VectorMatching
	names   []string // sorted
	buf     []byte
	builder *labels.Builder
}

func newSignatures(m *parser.VectorMatching) *signatures {
	names := slices.Clone(m.MatchingLabels)
	if !m.On {
		names = append(names, model.MetricNameLabel)
	}
	slices.Sort(names)
	return &signatures{VectorMatching: m, names: names, builder: labels.NewBuilder(labels.EmptyLabels())}
}

// of is the signature of a series, until the next is asked for.
func (s *signatures) of(ls labels.Labels) []byte {
	if s.On {
		s.buf = ls.BytesWithLabels(s.buf, s.names...)
	} else {
		s.buf = ls.BytesWithoutLabels(s.buf, s.names...)
	}
	return s.buf
}

// presence says of each signature at which steps there is a series of it.
func (s *signatures) presence(rows []computedRow, n int) map[string][]bool {
	all := make(map[string][]bool, len(rows))
	for _, row := range rows {
		key := s.of(row.labels)
		there := all[string(key)]
		if there == nil {
			there = make([]bool, n)
			all[string(key)] = there
		}
		for k, v := range row.values {
			there[k] = there[k] || !isNone(v)
		}
	}
	return all
}

// result are the labels of what was computed of two partners, of which the
// second is the one that may have several.
func (s *signatures) result(many, one labels.Labels, kind resultKind) labels.Labels {
	s.builder.Reset(many)
	if kind != filters {
		schema.Metadata{}.SetToLabels(s.builder)
	}
	if s.Card == parser.CardOneToOne {
		if s.On {
			s.builder.Keep(s.MatchingLabels...)
		} else {
			s.builder.Del(s.MatchingLabels...)
		}
	}
	for _, name := range s.Include {
		s.builder.Set(name, one.Get(name)) // without a value it goes
	}
	return s.builder.Labels()
}
